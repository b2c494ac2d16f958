/* SPDX-License-Identifier: Apache-2.0 */
/* ChaCha20 in 16 lanes and Poly1305 in 8 lanes of 44 bits: AVX-512F/BW/DQ/VL/VBMI2, IFMA52. */
#ifdef __x86_64__
#include <immintrin.h>

#include "base/cpu.h"
#include "base/endian.h"
#include "base/secret.h"
#include "crypto/lanes.h"

#ifdef __clang__
#pragma clang attribute push( \
	__attribute__((target("avx2,avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2"))), \
	apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")
#endif

#define INLINE static inline __attribute__((always_inline))

typedef __m512i vec;

#define ADD32 _mm512_add_epi32
#define ADD _mm512_add_epi64
#define XOR _mm512_xor_si512
#define AND _mm512_and_si512
#define OR _mm512_or_si512
#define SHR _mm512_srli_epi64
#define SHL _mm512_slli_epi64

/* ---- ChaCha20 ---- */

#define ROL _mm512_rol_epi32
#define ROL256 _mm256_rol_epi32
#include "crypto/rounds.h"
#include "crypto/rows256.h"

/* x[i] holds word i of 16 blocks: afterwards x[i] is block i. */
INLINE void transpose16(vec x[16])
{
	vec t[16];

	UNROLL
	for (int q = 0; q < 4; q++) {
		vec a = _mm512_unpacklo_epi32(x[4 * q], x[4 * q + 1]);
		vec b = _mm512_unpackhi_epi32(x[4 * q], x[4 * q + 1]);
		vec c = _mm512_unpacklo_epi32(x[4 * q + 2], x[4 * q + 3]);
		vec d = _mm512_unpackhi_epi32(x[4 * q + 2], x[4 * q + 3]);

		t[4 * q] = _mm512_unpacklo_epi64(a, c);
		t[4 * q + 1] = _mm512_unpackhi_epi64(a, c);
		t[4 * q + 2] = _mm512_unpacklo_epi64(b, d);
		t[4 * q + 3] = _mm512_unpackhi_epi64(b, d);
	}
	UNROLL
	for (int k = 0; k < 4; k++) {
		vec a = _mm512_shuffle_i32x4(t[k], t[4 + k], 0x88);
		vec b = _mm512_shuffle_i32x4(t[8 + k], t[12 + k], 0x88);
		vec c = _mm512_shuffle_i32x4(t[k], t[4 + k], 0xdd);
		vec d = _mm512_shuffle_i32x4(t[8 + k], t[12 + k], 0xdd);

		x[k] = _mm512_shuffle_i32x4(a, b, 0x88);
		x[8 + k] = _mm512_shuffle_i32x4(a, b, 0xdd);
		x[4 + k] = _mm512_shuffle_i32x4(c, d, 0x88);
		x[12 + k] = _mm512_shuffle_i32x4(c, d, 0xdd);
	}
}

/* 16 blocks under one key: x[i] becomes block i of the key stream. */
INLINE void blocks16(vec x[16], const uint8_t *key, vec counter, vec n0, vec n1, vec n2)
{
	const uint32_t *s = sigma;

	UNROLL
	for (int i = 0; i < 4; i++)
		x[i] = _mm512_set1_epi32((int)s[i]);
	UNROLL
	for (int i = 0; i < 8; i++)
		x[4 + i] = _mm512_set1_epi32((int)load_le32(key + 4 * i));
	x[12] = counter;
	x[13] = n0;
	x[14] = n1;
	x[15] = n2;
	CHACHA_ROUNDS(x);
	/* Broadcast again: 12 copies kept through the rounds would not fit the registers. */
	__asm__("" : "+r"(key), "+r"(s));
	UNROLL
	for (int i = 0; i < 4; i++)
		x[i] = ADD32(x[i], _mm512_set1_epi32((int)s[i]));
	UNROLL
	for (int i = 0; i < 8; i++)
		x[4 + i] = ADD32(x[4 + i], _mm512_set1_epi32((int)load_le32(key + 4 * i)));
	x[12] = ADD32(x[12], counter);
	x[13] = ADD32(x[13], n0);
	x[14] = ADD32(x[14], n1);
	x[15] = ADD32(x[15], n2);
	transpose16(x);
}

INLINE vec four_rows(const uint8_t *a, const uint8_t *b, const uint8_t *c, const uint8_t *d)
{
	vec v = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)a));

	v = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)b), 1);
	v = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)c), 2);
	return _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)d), 3);
}

/* Key words of 16 lanes, each with its own key. */
INLINE void gather_keys(vec k[8], const uint8_t *const key[16])
{
	UNROLL
	for (int half = 0; half < 2; half++) {
		vec r[4], a, b, c, d;

		UNROLL
		for (int i = 0; i < 4; i++)
			r[i] = four_rows(key[i] + 16 * half, key[4 + i] + 16 * half,
					 key[8 + i] + 16 * half, key[12 + i] + 16 * half);
		a = _mm512_unpacklo_epi32(r[0], r[1]);
		b = _mm512_unpackhi_epi32(r[0], r[1]);
		c = _mm512_unpacklo_epi32(r[2], r[3]);
		d = _mm512_unpackhi_epi32(r[2], r[3]);
		k[4 * half] = _mm512_unpacklo_epi64(a, c);
		k[4 * half + 1] = _mm512_unpackhi_epi64(a, c);
		k[4 * half + 2] = _mm512_unpacklo_epi64(b, d);
		k[4 * half + 3] = _mm512_unpackhi_epi64(b, d);
	}
}

INLINE void blocks16_keys(vec x[16], const struct block_group *g, vec counter, vec n0, vec n1,
			  vec n2)
{
	const uint8_t *key[16];
	vec k[8];

	UNROLL
	for (unsigned int i = 0; i < 16; i++)
		key[i] = g->key[i < g->n ? i : 0];
	gather_keys(k, key);
	UNROLL
	for (int i = 0; i < 4; i++)
		x[i] = _mm512_set1_epi32((int)sigma[i]);
	UNROLL
	for (int i = 0; i < 8; i++)
		x[4 + i] = k[i];
	x[12] = counter;
	x[13] = n0;
	x[14] = n1;
	x[15] = n2;
	CHACHA_ROUNDS(x);
	UNROLL
	for (int i = 0; i < 4; i++)
		x[i] = ADD32(x[i], _mm512_set1_epi32((int)sigma[i]));
	UNROLL
	for (int i = 0; i < 8; i++)
		x[4 + i] = ADD32(x[4 + i], k[i]);
	x[12] = ADD32(x[12], counter);
	x[13] = ADD32(x[13], n0);
	x[14] = ADD32(x[14], n1);
	x[15] = ADD32(x[15], n2);
	transpose16(x);
	secret_erase(k, sizeof(k));
}

INLINE void xor_lane(const struct block_group *g, unsigned int i, vec stream)
{
	if (g->len[i] == CHACHA_BLOCK) {
		_mm512_storeu_si512(g->out[i], XOR(stream, _mm512_loadu_si512(g->in[i])));
	} else {
		__mmask64 m = ~UINT64_C(0) >> (CHACHA_BLOCK - g->len[i]);

		_mm512_mask_storeu_epi8(g->out[i], m,
					XOR(stream, _mm512_maskz_loadu_epi8(m, g->in[i])));
	}
}

static __attribute__((noinline)) void xor_up_to_16(const struct block_group *g)
{
	vec x[16];
	vec counter = _mm512_loadu_si512(g->counter), n0 = _mm512_loadu_si512(g->nonce[0]);
	vec n1 = _mm512_loadu_si512(g->nonce[1]), n2 = _mm512_loadu_si512(g->nonce[2]);

	if (g->one_key)
		blocks16(x, g->key[0], counter, n0, n1, n2);
	else
		blocks16_keys(x, g, counter, n0, n1, n2);
	if (g->n == 16) {
		UNROLL
		for (unsigned int i = 0; i < 16; i++)
			xor_lane(g, i, x[i]);
		return;
	}
	/* Unrolled, so that the blocks never have to be stored to be indexed. */
	UNROLL
	for (unsigned int i = 0; i < 15; i++)
		if (i < g->n)
			xor_lane(g, i, x[i]);
}

static void avx512_xor_run(const uint8_t *key, const uint32_t nonce[3], uint32_t counter,
			   const uint8_t *in, uint8_t *out, size_t blocks)
{
	const vec iota = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
	vec x[16];

	for (; blocks; blocks -= 16, counter += 16, in += 1024, out += 1024) {
		blocks16(x, key, ADD32(iota, _mm512_set1_epi32((int)counter)),
			 _mm512_set1_epi32((int)nonce[0]), _mm512_set1_epi32((int)nonce[1]),
			 _mm512_set1_epi32((int)nonce[2]));
		UNROLL
		for (int i = 0; i < 16; i++)
			_mm512_storeu_si512(out + 64 * i,
					    XOR(x[i], _mm512_loadu_si512(in + 64 * i)));
	}
}

static __attribute__((noinline)) void xor_up_to_2(const struct block_group *g)
{
	rows_xor_group(g, 1);
}

static __attribute__((noinline)) void xor_up_to_4(const struct block_group *g)
{
	rows_xor_group(g, 2);
}

static __attribute__((noinline)) void xor_up_to_8(const struct block_group *g)
{
	rows_xor_group(g, 4);
}

static void avx512_xor_group(const struct block_group *g)
{
	if (g->n <= 2)
		xor_up_to_2(g);
	else if (g->n <= 4)
		xor_up_to_4(g);
	else if (g->n <= 8)
		xor_up_to_8(g);
	else
		xor_up_to_16(g);
}

/* ---- Poly1305: limbs of 44, 44 and 42 bits ---- */

#define MASK44 UINT64_C(0xfffffffffff)
#define MASK42 UINT64_C(0x3ffffffffff)
#define LO _mm512_madd52lo_epu64
#define HI _mm512_madd52hi_epu64

struct limbs {
	vec v[3];
};

/* A multiplier: its limbs, and 20 times the upper two (5 for the modulus, 4 for 132 - 130). */
struct power {
	vec r0, r1, r2, s1, s2;
};

/* Column sums of a product: low 52 bits of each term, and what lies above them. */
struct columns {
	vec lo[3], hi[3];
};

INLINE void columns_zero(struct columns *c)
{
	UNROLL
	for (int i = 0; i < 3; i++)
		c->lo[i] = c->hi[i] = _mm512_setzero_si512();
}

INLINE void multiply_add(struct columns *c, const struct limbs *m, const struct power *p)
{
	c->lo[0] = LO(c->lo[0], m->v[2], p->s1);
	c->hi[0] = HI(c->hi[0], m->v[2], p->s1);
	c->lo[1] = LO(c->lo[1], m->v[2], p->s2);
	c->hi[1] = HI(c->hi[1], m->v[2], p->s2);
	c->lo[2] = LO(c->lo[2], m->v[2], p->r0);
	c->hi[2] = HI(c->hi[2], m->v[2], p->r0);
	c->lo[0] = LO(c->lo[0], m->v[0], p->r0);
	c->hi[0] = HI(c->hi[0], m->v[0], p->r0);
	c->lo[1] = LO(c->lo[1], m->v[0], p->r1);
	c->hi[1] = HI(c->hi[1], m->v[0], p->r1);
	c->lo[2] = LO(c->lo[2], m->v[0], p->r2);
	c->hi[2] = HI(c->hi[2], m->v[0], p->r2);
	c->lo[0] = LO(c->lo[0], m->v[1], p->s2);
	c->hi[0] = HI(c->hi[0], m->v[1], p->s2);
	c->lo[1] = LO(c->lo[1], m->v[1], p->r0);
	c->hi[1] = HI(c->hi[1], m->v[1], p->r0);
	c->lo[2] = LO(c->lo[2], m->v[1], p->r1);
	c->hi[2] = HI(c->hi[2], m->v[1], p->r1);
}

/* Back to limbs of little more than 44, 44 and 42 bits. */
INLINE void carry(struct limbs *h, const struct columns *d)
{
	const vec m44 = _mm512_set1_epi64((int64_t)MASK44), m42 = _mm512_set1_epi64((int64_t)MASK42);
	vec c, a0 = d->lo[0], a1 = d->lo[1], a2 = d->lo[2];

	c = ADD(SHR(a0, 44), SHL(d->hi[0], 8));
	a1 = ADD(a1, c);
	c = ADD(SHR(a1, 44), SHL(d->hi[1], 8));
	a2 = ADD(a2, c);
	c = ADD(SHR(a2, 42), SHL(d->hi[2], 10));
	a0 = ADD(AND(a0, m44), ADD(c, SHL(c, 2)));
	h->v[2] = AND(a2, m42);
	h->v[1] = ADD(AND(a1, m44), SHR(a0, 44));
	h->v[0] = AND(a0, m44);
}

INLINE void multiply(struct limbs *out, const struct limbs *a, const struct power *p)
{
	struct columns d;

	columns_zero(&d);
	multiply_add(&d, a, p);
	carry(out, &d);
}

INLINE void split(struct limbs *m, vec lo, vec hi, vec top)
{
	const vec m44 = _mm512_set1_epi64((int64_t)MASK44);

	m->v[0] = AND(lo, m44);
	m->v[1] = AND(_mm512_shrdi_epi64(lo, hi, 44), m44);
	m->v[2] = OR(SHR(hi, 24), top);
}

INLINE void add_limbs(struct limbs *h, const struct limbs *m)
{
	UNROLL
	for (int i = 0; i < 3; i++)
		h->v[i] = ADD(h->v[i], m->v[i]);
}

INLINE void power_of(struct power *p, const struct limbs *r)
{
	p->r0 = r->v[0];
	p->r1 = r->v[1];
	p->r2 = r->v[2];
	p->s1 = ADD(SHL(r->v[1], 4), SHL(r->v[1], 2));
	p->s2 = ADD(SHL(r->v[2], 4), SHL(r->v[2], 2));
}

/* v[i] holds 64 bytes of packet i: afterwards v[k] is word k of 8 packets. */
INLINE void transpose8(vec v[8])
{
	vec a[8], p, q, r, s;

	UNROLL
	for (int i = 0; i < 8; i += 2) {
		a[i] = _mm512_unpacklo_epi64(v[i], v[i + 1]);
		a[i + 1] = _mm512_unpackhi_epi64(v[i], v[i + 1]);
	}
	UNROLL
	for (int o = 0; o < 2; o++) {
		p = _mm512_shuffle_i64x2(a[o], a[2 + o], 0x88);
		q = _mm512_shuffle_i64x2(a[4 + o], a[6 + o], 0x88);
		r = _mm512_shuffle_i64x2(a[o], a[2 + o], 0xdd);
		s = _mm512_shuffle_i64x2(a[4 + o], a[6 + o], 0xdd);
		v[o] = _mm512_shuffle_i64x2(p, q, 0x88);
		v[4 + o] = _mm512_shuffle_i64x2(p, q, 0xdd);
		v[2 + o] = _mm512_shuffle_i64x2(r, s, 0x88);
		v[6 + o] = _mm512_shuffle_i64x2(r, s, 0xdd);
	}
}

/* Packets from which on r^2 .. r^4 pay for themselves: four blocks, one carry. */
#define QUAD_MIN 256

/* Tags of up to 8 packets, one in each lane. */
static void tags8(const struct poly_lane *lane, unsigned int n)
{
	const vec top = _mm512_set1_epi64(INT64_C(1) << 40);
	const vec m44 = _mm512_set1_epi64((int64_t)MASK44), m42 = _mm512_set1_epi64((int64_t)MASK42);
	const uint8_t *data[8];
	uint64_t len[8];
	size_t shortest = lane[0].len, longest = lane[0].len, at = 0;
	struct limbs h, r, m;
	struct power p1;
	struct columns d;
	vec v[8], pad0, pad1, lens;

	UNROLL
	for (unsigned int i = 0; i < 8; i++) {
		const struct poly_lane *l = &lane[i < n ? i : 0];

		data[i] = l->data;
		len[i] = l->len;
		shortest = l->len < shortest ? l->len : shortest;
		longest = l->len > longest ? l->len : longest;
		v[i] = _mm512_loadu_si512(l->key);
	}
	lens = _mm512_loadu_si512(len);

	transpose8(v);
	v[0] = AND(v[0], _mm512_set1_epi64(INT64_C(0x0ffffffc0fffffff)));
	v[1] = AND(v[1], _mm512_set1_epi64(INT64_C(0x0ffffffc0ffffffc)));
	pad0 = v[2];
	pad1 = v[3];
	split(&r, v[0], v[1], _mm512_setzero_si512());
	power_of(&p1, &r);
	UNROLL
	for (int i = 0; i < 3; i++)
		h.v[i] = _mm512_setzero_si512();

	if (shortest >= QUAD_MIN) {
		struct power p2, p3, p4;

		multiply(&m, &r, &p1);
		power_of(&p2, &m);
		multiply(&m, &r, &p2);
		power_of(&p3, &m);
		multiply(&m, &r, &p3);
		power_of(&p4, &m);
		for (; at + 64 <= shortest; at += 64) {
			UNROLL
			for (int i = 0; i < 8; i++)
				v[i] = _mm512_loadu_si512(data[i] + at);
			transpose8(v);
			columns_zero(&d);
			split(&m, v[2], v[3], top);
			multiply_add(&d, &m, &p3);
			split(&m, v[4], v[5], top);
			multiply_add(&d, &m, &p2);
			split(&m, v[6], v[7], top);
			multiply_add(&d, &m, &p1);
			split(&m, v[0], v[1], top);
			add_limbs(&h, &m);
			multiply_add(&d, &h, &p4);
			carry(&h, &d);
		}
	}
	/* What is left, lane by lane: a lane whose packet has ended keeps its h. */
	for (; at < longest; at += 64) {
		size_t most = longest - at < 64 ? longest - at : 64;

		UNROLL
		for (int i = 0; i < 8; i++) {
			size_t left = len[i] > at ? len[i] - at : 0;

			if (left >= 64)
				v[i] = _mm512_loadu_si512(data[i] + at);
			else if (left)
				v[i] = _mm512_maskz_loadu_epi8(~UINT64_C(0) >> (64 - left),
							       data[i] + at);
			else
				v[i] = _mm512_setzero_si512();
		}
		transpose8(v);
		for (unsigned int k = 0; k < (most + 15) / 16; k++) {
			__mmask8 alive = _mm512_cmpgt_epu64_mask(
				lens, _mm512_set1_epi64((int64_t)(at + 16 * k)));
			struct limbs next = h;

			split(&m, v[2 * k], v[2 * k + 1], top);
			add_limbs(&next, &m);
			multiply(&next, &next, &p1);
			UNROLL
			for (int i = 0; i < 3; i++)
				h.v[i] = _mm512_mask_mov_epi64(h.v[i], alive, next.v[i]);
		}
	}
	split(&m, _mm512_setzero_si512(), lens, top);
	add_limbs(&h, &m);
	multiply(&h, &h, &p1);

	/* Full carry, then h - p where that is not negative, then + pad mod 2^128. */
	{
		vec c, g0, g1, g2, lo, hi, sum;
		__mmask8 over;

		c = SHR(h.v[1], 44);
		h.v[1] = AND(h.v[1], m44);
		h.v[2] = ADD(h.v[2], c);
		c = SHR(h.v[2], 42);
		h.v[2] = AND(h.v[2], m42);
		h.v[0] = ADD(h.v[0], ADD(c, SHL(c, 2)));
		c = SHR(h.v[0], 44);
		h.v[0] = AND(h.v[0], m44);
		h.v[1] = ADD(h.v[1], c);
		c = SHR(h.v[1], 44);
		h.v[1] = AND(h.v[1], m44);
		h.v[2] = ADD(h.v[2], c);

		g0 = ADD(h.v[0], _mm512_set1_epi64(5));
		g1 = ADD(h.v[1], SHR(g0, 44));
		g2 = ADD(h.v[2], SHR(g1, 44));
		over = _mm512_cmpgt_epu64_mask(g2, m42);
		h.v[0] = _mm512_mask_and_epi64(h.v[0], over, g0, m44);
		h.v[1] = _mm512_mask_and_epi64(h.v[1], over, g1, m44);
		h.v[2] = _mm512_mask_and_epi64(h.v[2], over, g2, m42);

		lo = OR(h.v[0], SHL(h.v[1], 44));
		hi = OR(SHR(h.v[1], 20), SHL(h.v[2], 24));
		sum = ADD(lo, pad0);
		over = _mm512_cmplt_epu64_mask(sum, lo);
		hi = ADD(hi, pad1);
		hi = _mm512_mask_add_epi64(hi, over, hi, _mm512_set1_epi64(1));
		v[0] = _mm512_unpacklo_epi64(sum, hi);
		v[1] = _mm512_unpackhi_epi64(sum, hi);
	}
	/* Lane 2 i of a half is packet 2 i, the other half holds the odd ones. */
	{
		uint8_t tag[2][64];

		_mm512_storeu_si512(tag[0], v[0]);
		_mm512_storeu_si512(tag[1], v[1]);
		for (unsigned int i = 0; i < n; i++)
			memcpy(lane[i].tag, tag[i % 2] + i / 2 * 16, 16);
	}
}

/* 44-bit limbs of a value in 64-bit words, the third word below 8. */
INLINE void to_limbs(uint64_t l[3], const uint64_t h[3])
{
	l[0] = h[0] & MASK44;
	l[1] = (h[0] >> 44 | h[1] << 20) & MASK44;
	l[2] = h[1] >> 24 | h[2] << 40;
}

INLINE void multiply_scalar(uint64_t out[3], const uint64_t a[3], const uint64_t b[3])
{
	const uint64_t s1 = b[1] * 20, s2 = b[2] * 20;
	unsigned __int128 d0, d1, d2;
	uint64_t c;

	d0 = (unsigned __int128)a[0] * b[0] + (unsigned __int128)a[1] * s2 +
	     (unsigned __int128)a[2] * s1;
	d1 = (unsigned __int128)a[0] * b[1] + (unsigned __int128)a[1] * b[0] +
	     (unsigned __int128)a[2] * s2;
	d2 = (unsigned __int128)a[0] * b[2] + (unsigned __int128)a[1] * b[1] +
	     (unsigned __int128)a[2] * b[0];
	d1 += (uint64_t)(d0 >> 44);
	d2 += (uint64_t)(d1 >> 44);
	c = (uint64_t)(d2 >> 42);
	out[0] = ((uint64_t)d0 & MASK44) + c * 5;
	out[1] = ((uint64_t)d1 & MASK44) + (out[0] >> 44);
	out[0] &= MASK44;
	out[2] = (uint64_t)d2 & MASK42;
}

INLINE void broadcast_power(struct power *p, const uint64_t r[3])
{
	struct limbs l;

	UNROLL
	for (int i = 0; i < 3; i++)
		l.v[i] = _mm512_set1_epi64((int64_t)r[i]);
	power_of(p, &l);
}

/*
 * One long message: lane k takes every eighth block and multiplies by r^8, two
 * rows of eight at a time by r^16; at the end each lane gets the power of r that
 * its place still needs, and the lanes are added.
 */
static void avx512_poly_long(struct poly1305 *p, const uint8_t *in, size_t blocks)
{
	const vec top = _mm512_set1_epi64(INT64_C(1) << 40);
	uint64_t r[17][3], word[3] = { p->r[0], p->r[1], 0 };
	size_t rows = blocks / 8, rest = blocks % 8;
	struct power p8, p16;
	struct columns d;
	struct limbs h, m;
	uint64_t sum[3], limb[3], c;
	vec a, b;

	to_limbs(r[1], word);
	multiply_scalar(r[2], r[1], r[1]);
	multiply_scalar(r[3], r[2], r[1]);
	multiply_scalar(r[4], r[2], r[2]);
	for (int i = 5; i <= 8; i++)
		multiply_scalar(r[i], r[4], r[i - 4]);
	multiply_scalar(r[16], r[8], r[8]);
	broadcast_power(&p8, r[8]);
	broadcast_power(&p16, r[16]);

	to_limbs(limb, p->h);
	UNROLL
	for (int i = 0; i < 3; i++)
		h.v[i] = _mm512_maskz_set1_epi64(1, (int64_t)limb[i]);

	/* Lanes hold blocks 0 4 1 5 2 6 3 7 of a row: unpacking keeps 128-bit places. */
#define ROW(offset)                                                            \
	do {                                                                   \
		a = _mm512_loadu_si512(in + (offset));                         \
		b = _mm512_loadu_si512(in + (offset) + 64);                    \
		split(&m, _mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b), top); \
	} while (0)
	for (; rows > 2; rows -= 2, in += 256) {
		columns_zero(&d);
		ROW(128);
		multiply_add(&d, &m, &p8);
		ROW(0);
		add_limbs(&h, &m);
		multiply_add(&d, &h, &p16);
		carry(&h, &d);
	}
	for (; rows > 1; rows--, in += 128) {
		ROW(0);
		add_limbs(&h, &m);
		multiply(&h, &h, &p8);
	}
	ROW(0);
	in += 128;
	add_limbs(&h, &m);
#undef ROW
	{
		struct limbs last;
		struct power each;

		UNROLL
		for (int i = 0; i < 3; i++)
			last.v[i] = _mm512_setr_epi64(
				(int64_t)r[8][i], (int64_t)r[4][i], (int64_t)r[7][i],
				(int64_t)r[3][i], (int64_t)r[6][i], (int64_t)r[2][i],
				(int64_t)r[5][i], (int64_t)r[1][i]);
		power_of(&each, &last);
		multiply(&h, &h, &each);
	}
	UNROLL
	for (int i = 0; i < 3; i++)
		sum[i] = (uint64_t)_mm512_reduce_add_epi64(h.v[i]);
	sum[1] += sum[0] >> 44;
	sum[0] &= MASK44;
	sum[2] += sum[1] >> 44;
	sum[1] &= MASK44;
	c = sum[2] >> 42;
	sum[2] &= MASK42;
	sum[0] += c * 5;
	sum[1] += sum[0] >> 44;
	sum[0] &= MASK44;
	sum[2] += sum[1] >> 44;
	sum[1] &= MASK44;
	p->h[0] = sum[0] | sum[1] << 44;
	p->h[1] = sum[1] >> 20 | sum[2] << 24;
	p->h[2] = sum[2] >> 40;
	secret_erase(r, sizeof(r));
	poly1305_blocks(p, in, rest, 1);
}

static void avx512_tags(const struct poly_lane *lane, unsigned int n)
{
	tags8(lane, n);
}

#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

static const struct lane_ops avx512_ops = {
	.blocks = 16,
	.run = 16,
	.packets = 8,
	.long_blocks = 24,
	.xor_group = avx512_xor_group,
	.xor_run = avx512_xor_run,
	.tags = avx512_tags,
	.poly_long = avx512_poly_long,
	.lone_max = SIZE_MAX,
};

const struct aead_variant aead_avx512ifma = {
	.name = "avx512ifma",
	.available = cpu_has_avx512_ifma,
	.seal_batch = lanes_seal_batch,
	.open_batch = lanes_open_batch,
	.seal = lanes_seal,
	.open = lanes_open,
	.ops = &avx512_ops,
};
#endif /* __x86_64__ */
