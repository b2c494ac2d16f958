/* SPDX-License-Identifier: Apache-2.0 */
/* Poly1305 (RFC 8439 section 2.5) in limbs of one machine word. */
#ifdef __x86_64__
#include <immintrin.h>
#endif

#include "base/endian.h"
#include "base/secret.h"
#include "crypto/poly1305.h"

#ifdef __SIZEOF_INT128__
#define WORD_BITS 64
#define load_word load_le64
#define store_word store_le64
#define CLAMP_FIRST UINT64_C(0x0ffffffc0fffffff)
#define CLAMP_OTHER UINT64_C(0x0ffffffc0ffffffc)
#else
#define WORD_BITS 32
#define load_word load_le32
#define store_word store_le32
#define CLAMP_FIRST UINT32_C(0x0fffffff)
#define CLAMP_OTHER UINT32_C(0x0ffffffc)
#endif

#define WORD_LEN (WORD_BITS / 8)
#define INLINE inline __attribute__((always_inline))

void poly1305_init(struct poly1305 *p, const uint8_t key[POLY1305_KEY_LEN])
{
	for (int i = 0; i < POLY_WORDS; i++) {
		p->r[i] = load_word(key + i * WORD_LEN) & (i ? CLAMP_OTHER : CLAMP_FIRST);
		p->s[i] = p->r[i] + (p->r[i] >> 2);
		p->h[i] = 0;
	}
	p->h[POLY_WORDS] = 0;
	memcpy(p->pad, key + 16, sizeof(p->pad));
}

/*
 * h = (h + block) * r.  The last limb is at most 7 here: 2 bits after the
 * reduction, a carry, and @top.  What lies above 2^130 comes back times 5; as
 * (upper & ~3) + (upper >> 2) it needs no multiplication.
 */
#if WORD_BITS == 64
/* *sum = a + b + carry; compilers make poor code of 128-bit sums, and good of this. */
static inline uint64_t add_carry(uint64_t carry, uint64_t a, uint64_t b, uint64_t *sum)
{
#ifdef __x86_64__
	unsigned long long s;

	carry = _addcarry_u64((unsigned char)carry, a, b, &s);
	*sum = s;
	return carry;
#else
	a += carry;
	carry = a < carry;
	*sum = a + b;
	return carry + (*sum < b);
#endif
}

static inline void multiply(uint64_t *lo, uint64_t *hi, uint64_t a, uint64_t b)
{
	unsigned __int128 product = (unsigned __int128)a * b;

	*lo = (uint64_t)product;
	*hi = (uint64_t)(product >> 64);
}

void poly1305_blocks(struct poly1305 *p, const uint8_t *in, size_t blocks, poly_word top)
{
	const uint64_t r0 = p->r[0], r1 = p->r[1], s1 = p->s[1];
	uint64_t h0 = p->h[0], h1 = p->h[1], h2 = p->h[2], c;
	uint64_t a0, a1, b0, b1, d0, d1, e0, e1;

	for (; blocks; blocks--, in += POLY1305_BLOCK) {
		c = add_carry(0, h0, load_le64(in), &h0);
		c = add_carry(c, h1, load_le64(in + 8), &h1);
		h2 += c + top;

		multiply(&a0, &a1, h0, r0);
		multiply(&b0, &b1, h1, s1);
		multiply(&d0, &d1, h0, r1);
		multiply(&e0, &e1, h1, r0);
		c = add_carry(0, a0, b0, &a0);
		add_carry(c, a1, b1, &a1);
		c = add_carry(0, d0, e0, &d0);
		add_carry(c, d1, e1, &d1);
		c = add_carry(0, d0, h2 * s1, &d0);
		d1 += c;
		c = add_carry(0, d0, a1, &h1);
		h2 = h2 * r0 + d1 + c;

		c = (h2 >> 2) + (h2 & ~UINT64_C(3));
		h2 &= 3;
		c = add_carry(0, a0, c, &h0);
		c = add_carry(c, h1, 0, &h1);
		h2 += c;
	}
	p->h[0] = h0;
	p->h[1] = h1;
	p->h[2] = h2;
}
#else
/*
 * The accumulator between two blocks: words h0..h3 with h4 small, and c still to be
 * added to h0.  Rippling c through the words costs more than 4 products of its own.
 */
struct sum {
	uint32_t h0, h1, h2, h3, h4, c;
};

/*
 * One word of (h + c) * r + m: carry + m + a sum of products, its upper half left in
 * *carry.  With r below 2^28 and 5 / 4 r below 2^28.4, six products are below 2^63.
 */
static INLINE uint32_t column(uint32_t *carry, uint32_t m, const struct sum *a, uint32_t b0,
			      uint32_t b1, uint32_t b2, uint32_t b3, uint32_t b4)
{
#if defined(__mips__) && defined(__mips_isa_rev) && __mips_isa_rev < 6
	/*
	 * Compilers move the accumulator out and in again around each product.  A
	 * factor of 1 adds a word in one instruction, and sets the accumulator in one.
	 */
	uint32_t lo, hi;

	__asm__("multu %[carry], %[one]\n\t"
		"maddu %[h0], %[b0]\n\t"
		"maddu %[c], %[b0]\n\t"
		"maddu %[h1], %[b1]\n\t"
		"maddu %[h2], %[b2]\n\t"
		"maddu %[h3], %[b3]\n\t"
		"maddu %[h4], %[b4]\n\t"
		"maddu %[m], %[one]\n\t"
		"mflo %[lo]\n\t"
		"mfhi %[hi]"
		: [lo] "=&r"(lo), [hi] "=&r"(hi)
		: [carry] "r"(*carry), [one] "r"(1), [m] "r"(m), [c] "r"(a->c), [h0] "r"(a->h0),
		  [h1] "r"(a->h1), [h2] "r"(a->h2), [h3] "r"(a->h3), [h4] "r"(a->h4), [b0] "r"(b0),
		  [b1] "r"(b1), [b2] "r"(b2), [b3] "r"(b3), [b4] "r"(b4)
		: "hi", "lo");
	*carry = hi;
	return lo;
#else
	uint64_t d = (uint64_t)*carry + m;

	d += (uint64_t)a->h0 * b0;
	d += (uint64_t)a->c * b0;
	d += (uint64_t)a->h1 * b1;
	d += (uint64_t)a->h2 * b2;
	d += (uint64_t)a->h3 * b3;
	d += (uint64_t)a->h4 * b4;
	*carry = (uint32_t)(d >> 32);
	return (uint32_t)d;
#endif
}

/* The first column has neither a carry nor a product of h4. */
static INLINE uint32_t first_column(uint32_t *carry, uint32_t m, const struct sum *a, uint32_t b0,
				    uint32_t b1, uint32_t b2, uint32_t b3)
{
#if defined(__mips__) && defined(__mips_isa_rev) && __mips_isa_rev < 6
	uint32_t lo, hi;

	__asm__("multu %[h0], %[b0]\n\t"
		"maddu %[c], %[b0]\n\t"
		"maddu %[h1], %[b1]\n\t"
		"maddu %[h2], %[b2]\n\t"
		"maddu %[h3], %[b3]\n\t"
		"maddu %[m], %[one]\n\t"
		"mflo %[lo]\n\t"
		"mfhi %[hi]"
		: [lo] "=&r"(lo), [hi] "=&r"(hi)
		: [one] "r"(1), [m] "r"(m), [c] "r"(a->c), [h0] "r"(a->h0), [h1] "r"(a->h1),
		  [h2] "r"(a->h2), [h3] "r"(a->h3), [b0] "r"(b0), [b1] "r"(b1), [b2] "r"(b2),
		  [b3] "r"(b3)
		: "hi", "lo");
	*carry = hi;
	return lo;
#else
	*carry = 0;
	return column(carry, m, a, b0, b1, b2, b3, 0);
#endif
}

/*
 * a = a * r + m + top * 2^128.  h4 is below 8 before, below 5 afterwards; its upper
 * part, below 2^32 even times 5 / 4, becomes c.
 */
static INLINE void multiply_add(struct sum *a, const struct poly1305 *p, uint32_t m0, uint32_t m1,
				uint32_t m2, uint32_t m3, uint32_t top)
{
	const uint32_t *r = p->r, *s = p->s;
	uint32_t carry, g0, g1, g2, g3;

	g0 = first_column(&carry, m0, a, r[0], s[3], s[2], s[1]);
	g1 = column(&carry, m1, a, r[1], r[0], s[3], s[2], s[1]);
	g2 = column(&carry, m2, a, r[2], r[1], r[0], s[3], s[2]);
	g3 = column(&carry, m3, a, r[3], r[2], r[1], r[0], s[3]);
	carry += a->h4 * r[0];
	a->h0 = g0;
	a->h1 = g1;
	a->h2 = g2;
	a->h3 = g3;
	a->h4 = (carry & 3) + top;
	a->c = (carry >> 2) + (carry & ~UINT32_C(3));
}

/* *sum += b + carry; return the carry. */
static INLINE uint32_t add_carry(uint32_t carry, uint32_t *sum, uint32_t b)
{
	uint64_t d = (uint64_t)*sum + b + carry;

	*sum = (uint32_t)d;
	return (uint32_t)(d >> 32);
}

/*
 * The words of the next block join the columns of this one's product, where adding
 * one is an instruction and no chain of carries.
 */
static INLINE void sum_blocks(struct poly1305 *p, const uint8_t *in, size_t blocks, poly_word top,
			      bool aligned)
{
#define WORD(i) load_le32(aligned ? __builtin_assume_aligned(in + 4 * (i), 4) : in + 4 * (i))
	const struct poly1305 key = *p;
	struct sum a = { p->h[0], p->h[1], p->h[2], p->h[3], p->h[4], 0 };
	const uint8_t *last = in + (blocks - 1) * POLY1305_BLOCK;
	uint32_t carry;

	carry = add_carry(0, &a.h0, WORD(0));
	carry = add_carry(carry, &a.h1, WORD(1));
	carry = add_carry(carry, &a.h2, WORD(2));
	carry = add_carry(carry, &a.h3, WORD(3));
	a.h4 += carry + top;
	while (in != last) {
		in += POLY1305_BLOCK;
		multiply_add(&a, &key, WORD(0), WORD(1), WORD(2), WORD(3), top);
	}
	multiply_add(&a, &key, 0, 0, 0, 0, 0);
	carry = add_carry(0, &a.h0, a.c);
	carry = add_carry(carry, &a.h1, 0);
	carry = add_carry(carry, &a.h2, 0);
	carry = add_carry(carry, &a.h3, 0);
	p->h[0] = a.h0;
	p->h[1] = a.h1;
	p->h[2] = a.h2;
	p->h[3] = a.h3;
	p->h[4] = a.h4 + carry;
#undef WORD
}

void poly1305_blocks(struct poly1305 *p, const uint8_t *in, size_t blocks, poly_word top)
{
	if (!blocks)
		return;
	/* A word of any alignment takes MIPS two instructions. */
	if ((uintptr_t)in % 4)
		sum_blocks(p, in, blocks, top, false);
	else
		sum_blocks(p, in, blocks, top, true);
}
#endif

void poly1305_final(struct poly1305 *p, uint8_t tag[16])
{
	poly_word g[POLY_WORDS], mask;
	poly_double d = 5;

	/* h + 5 reaches 2^130 exactly when h >= 2^130 - 5: then its low bits are h mod p. */
	for (int i = 0; i < POLY_WORDS; i++) {
		d += p->h[i];
		g[i] = (poly_word)d;
		d >>= WORD_BITS;
	}
	mask = (poly_word)0 - ((p->h[POLY_WORDS] + (poly_word)d) >> 2);
	__asm__("" : "+r"(mask));
	d = 0;
	for (int i = 0; i < POLY_WORDS; i++) {
		d += (p->h[i] & ~mask) | (g[i] & mask);
		d += load_word(p->pad + i * WORD_LEN);
		store_word(tag + i * WORD_LEN, (poly_word)d);
		d >>= WORD_BITS;
	}
	secret_erase(p, sizeof(*p));
}

#define MASK26 UINT64_C(0x3ffffff)

static void split26(uint64_t limb[5], uint64_t lo, uint64_t hi, uint64_t top)
{
	limb[0] = lo & MASK26;
	limb[1] = lo >> 26 & MASK26;
	limb[2] = (lo >> 52 | hi << 12) & MASK26;
	limb[3] = hi >> 14 & MASK26;
	limb[4] = hi >> 40 | top << 24;
}

static inline uint64_t word64(const poly_word *w, int i)
{
#if WORD_BITS == 64
	return w[i];
#else
	return w[2 * i] | (uint64_t)w[2 * i + 1] << 32;
#endif
}

void poly1305_r26(uint64_t limb[5], const struct poly1305 *p)
{
	split26(limb, word64(p->r, 0), word64(p->r, 1), 0);
}

void poly1305_h26(uint64_t limb[5], const struct poly1305 *p)
{
	split26(limb, word64(p->h, 0), word64(p->h, 1), p->h[POLY_WORDS]);
}

void poly1305_set_h26(struct poly1305 *p, const uint64_t limb[5])
{
	uint64_t l[5], c = 0, lo, hi;

	memcpy(l, limb, sizeof(l));
	/* The second pass takes in what the first one carried past 2^130. */
	for (int pass = 0; pass < 2; pass++) {
		for (int i = 0; i < 5; i++) {
			l[i] += c;
			c = l[i] >> 26;
			l[i] &= MASK26;
		}
		c *= 5;
	}
	l[0] += c;
	l[1] += l[0] >> 26;
	l[0] &= MASK26;
	lo = l[0] | l[1] << 26 | l[2] << 52;
	hi = l[2] >> 12 | l[3] << 14 | l[4] << 40;
#if WORD_BITS == 64
	p->h[0] = lo;
	p->h[1] = hi;
#else
	p->h[0] = (uint32_t)lo;
	p->h[1] = (uint32_t)(lo >> 32);
	p->h[2] = (uint32_t)hi;
	p->h[3] = (uint32_t)(hi >> 32);
#endif
	p->h[POLY_WORDS] = (poly_word)(l[4] >> 24);
	secret_erase(l, sizeof(l));
}
