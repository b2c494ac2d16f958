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
 * (top & ~3) + (top >> 2) it needs no multiplication.
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
/* carry + a0 b0 + a1 b1 + a2 b2 + a3 b3 + a4 b4; the carry is below 2^32. */
static inline uint64_t column(uint64_t carry, uint32_t a0, uint32_t b0, uint32_t a1, uint32_t b1,
			      uint32_t a2, uint32_t b2, uint32_t a3, uint32_t b3, uint32_t a4,
			      uint32_t b4)
{
#if defined(__mips__) && defined(__mips_isa_rev) && __mips_isa_rev < 6
	/* Compilers move the accumulator out and in again around each product. */
	uint32_t lo = (uint32_t)carry, hi;

	__asm__("mtlo %0\n\t"
		"mthi $0\n\t"
		"maddu %2, %3\n\t"
		"maddu %4, %5\n\t"
		"maddu %6, %7\n\t"
		"maddu %8, %9\n\t"
		"maddu %10, %11\n\t"
		"mflo %0\n\t"
		"mfhi %1"
		: "+&r"(lo), "=&r"(hi)
		: "r"(a0), "r"(b0), "r"(a1), "r"(b1), "r"(a2), "r"(b2), "r"(a3), "r"(b3),
		  "r"(a4), "r"(b4)
		: "hi", "lo");
	return (uint64_t)hi << 32 | lo;
#else
	carry += (uint64_t)a0 * b0;
	carry += (uint64_t)a1 * b1;
	carry += (uint64_t)a2 * b2;
	carry += (uint64_t)a3 * b3;
	return carry + (uint64_t)a4 * b4;
#endif
}

void poly1305_blocks(struct poly1305 *p, const uint8_t *in, size_t blocks, poly_word top)
{
	const uint32_t r0 = p->r[0], r1 = p->r[1], r2 = p->r[2], r3 = p->r[3];
	const uint32_t s1 = p->s[1], s2 = p->s[2], s3 = p->s[3];
	uint32_t h0 = p->h[0], h1 = p->h[1], h2 = p->h[2], h3 = p->h[3], h4 = p->h[4];
	uint32_t m, c, g0, g1, g2;
	uint64_t d;

	for (; blocks; blocks--, in += POLY1305_BLOCK) {
		m = load_le32(in);
		h0 += m;
		c = h0 < m;
		m = load_le32(in + 4);
		h1 += c;
		c = h1 < c;
		h1 += m;
		c += h1 < m;
		m = load_le32(in + 8);
		h2 += c;
		c = h2 < c;
		h2 += m;
		c += h2 < m;
		m = load_le32(in + 12);
		h3 += c;
		c = h3 < c;
		h3 += m;
		c += h3 < m;
		h4 += c + top;

		/* Each column starts from the carry of the one before. */
		d = column(0, h0, r0, h1, s3, h2, s2, h3, s1, h4, 0);
		g0 = (uint32_t)d;
		d = column(d >> 32, h0, r1, h1, r0, h2, s3, h3, s2, h4, s1);
		g1 = (uint32_t)d;
		d = column(d >> 32, h0, r2, h1, r1, h2, r0, h3, s3, h4, s2);
		g2 = (uint32_t)d;
		d = column(d >> 32, h0, r3, h1, r2, h2, r1, h3, r0, h4, s3);
		h4 = h4 * r0 + (uint32_t)(d >> 32);

		c = (h4 >> 2) + (h4 & ~UINT32_C(3));
		h4 &= 3;
		h0 = g0 + c;
		c = h0 < c;
		h1 = g1 + c;
		c = h1 < c;
		h2 = g2 + c;
		c = h2 < c;
		h3 = (uint32_t)d + c;
		h4 += h3 < c;
	}
	p->h[0] = h0;
	p->h[1] = h1;
	p->h[2] = h2;
	p->h[3] = h3;
	p->h[4] = h4;
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
