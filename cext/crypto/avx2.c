/* SPDX-License-Identifier: Apache-2.0 */
/* ChaCha20 in 8 lanes and Poly1305 in 4 lanes of 26-bit limbs: AVX2. */
#ifdef __x86_64__
#include <immintrin.h>

#include "base/cpu.h"
#include "base/endian.h"
#include "base/secret.h"
#include "crypto/lanes.h"

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,bmi2"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,bmi2")
#endif

#define INLINE static inline __attribute__((always_inline))

typedef __m256i vec;

/* Rotations by whole bytes are one shuffle. */
INLINE vec rotate(vec v, const int n)
{
	if (n == 16)
		return _mm256_shuffle_epi8(v, _mm256_set_epi64x(0x0d0c0f0e09080b0a, 0x0504070601000302,
								0x0d0c0f0e09080b0a,
								0x0504070601000302));
	if (n == 8)
		return _mm256_shuffle_epi8(v, _mm256_set_epi64x(0x0e0d0c0f0a09080b, 0x0605040702010003,
								0x0e0d0c0f0a09080b,
								0x0605040702010003));
	return _mm256_or_si256(_mm256_slli_epi32(v, n), _mm256_srli_epi32(v, 32 - n));
}
#define ROL256(v, n) rotate(v, n)
#define ADD32 ADD256
#define XOR XOR256
#define ROL ROL256
#include "crypto/rounds.h"
#include "crypto/rounds_avx2.h"
#include "crypto/rows256.h"

/* ---- ChaCha20 ---- */

/* x[0..7] holds the same 8 words of 8 blocks: afterwards x[i] is those words of block i. */
INLINE void transpose8(vec x[8])
{
	vec a[8], b[8];

	UNROLL
	for (int i = 0; i < 8; i += 2) {
		a[i] = _mm256_unpacklo_epi32(x[i], x[i + 1]);
		a[i + 1] = _mm256_unpackhi_epi32(x[i], x[i + 1]);
	}
	UNROLL
	for (int i = 0; i < 8; i += 4) {
		b[i] = _mm256_unpacklo_epi64(a[i], a[i + 2]);
		b[i + 1] = _mm256_unpackhi_epi64(a[i], a[i + 2]);
		b[i + 2] = _mm256_unpacklo_epi64(a[i + 1], a[i + 3]);
		b[i + 3] = _mm256_unpackhi_epi64(a[i + 1], a[i + 3]);
	}
	UNROLL
	for (int i = 0; i < 4; i++) {
		x[i] = _mm256_permute2x128_si256(b[i], b[4 + i], 0x20);
		x[4 + i] = _mm256_permute2x128_si256(b[i], b[4 + i], 0x31);
	}
}

INLINE vec splat(const uint8_t *p)
{
	return _mm256_set1_epi32((int)load_le32(p));
}

/* 8 blocks: x[i] and x[8 + i] become the halves of block i of the key stream. */
INLINE void blocks8(vec x[16], const vec key[8], vec counter, vec n0, vec n1, vec n2,
		    struct poly_feed *feed)
{
	const uint32_t *s = sigma;

	UNROLL
	for (int i = 0; i < 4; i++)
		x[i] = _mm256_set1_epi32((int)s[i]);
	UNROLL
	for (int i = 0; i < 8; i++)
		x[4 + i] = key[i];
	x[12] = counter;
	x[13] = n0;
	x[14] = n1;
	x[15] = n2;
	rounds8(x, feed);
	UNROLL
	for (int i = 0; i < 4; i++)
		x[i] = ADD32(x[i], _mm256_set1_epi32((int)s[i]));
	UNROLL
	for (int i = 0; i < 8; i++)
		x[4 + i] = ADD32(x[4 + i], key[i]);
	x[12] = ADD32(x[12], counter);
	x[13] = ADD32(x[13], n0);
	x[14] = ADD32(x[14], n1);
	x[15] = ADD32(x[15], n2);
	transpose8(x);
	transpose8(x + 8);
}

static __attribute__((noinline)) void xor_up_to_8(const struct block_group *g,
						   struct poly_feed *feed)
{
	vec x[16], key[8];

	if (g->one_key) {
		UNROLL
		for (int i = 0; i < 8; i++)
			key[i] = splat(g->key[0] + 4 * i);
	} else {
		UNROLL
		for (unsigned int i = 0; i < 8; i++)
			key[i] = load256(g->key[i < g->n ? i : 0]);
		transpose8(key);
	}
	blocks8(x, key, load256(g->counter), load256(g->nonce[0]), load256(g->nonce[1]),
		load256(g->nonce[2]), feed);
	UNROLL
	for (unsigned int i = 0; i < 8; i++)
		if (i < g->n)
			xor_lane256(g, i, x[i], x[8 + i]);
	secret_erase(key, sizeof(key));
	secret_erase(x, sizeof(x));
}

static void avx2_xor_run_fed(const uint8_t *key, const uint32_t nonce[3], uint32_t counter,
			     const uint8_t *in, uint8_t *out, size_t blocks, struct poly_feed *feed)
{
	const vec iota = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
	vec x[16], k[8];

	UNROLL
	for (int i = 0; i < 8; i++)
		k[i] = splat(key + 4 * i);
	for (; blocks; blocks -= 8, counter += 8, in += 512, out += 512) {
		blocks8(x, k, ADD32(iota, _mm256_set1_epi32((int)counter)),
			_mm256_set1_epi32((int)nonce[0]), _mm256_set1_epi32((int)nonce[1]),
			_mm256_set1_epi32((int)nonce[2]), feed);
		UNROLL
		for (int i = 0; i < 8; i++)
			xor_whole256(out + 64 * i, in + 64 * i, x[i], x[8 + i]);
	}
	secret_erase(k, sizeof(k));
	secret_erase(x, sizeof(x));
}

static void avx2_xor_run(const uint8_t *key, const uint32_t nonce[3], uint32_t counter,
			 const uint8_t *in, uint8_t *out, size_t blocks)
{
	avx2_xor_run_fed(key, nonce, counter, in, out, blocks, NULL);
}

static __attribute__((noinline)) void xor_up_to_2(const struct block_group *g)
{
	rows_xor_group(g, 1);
}

static __attribute__((noinline)) void xor_up_to_4(const struct block_group *g)
{
	rows_xor_group(g, 2);
}

static void avx2_xor_group(const struct block_group *g)
{
	if (g->n <= 2)
		xor_up_to_2(g);
	else if (g->n <= 4)
		xor_up_to_4(g);
	else
		xor_up_to_8(g, NULL);
}

/* ---- Poly1305 ---- */

#define POLY_LANES 4
typedef vec wide;
typedef vec half;
#define W_ADD _mm256_add_epi64
#define W_AND _mm256_and_si256
#define W_OR _mm256_or_si256
#define W_ANDNOT _mm256_andnot_si256
#define W_SHR _mm256_srli_epi64
#define W_SHL _mm256_slli_epi64
#define W_SET1(x) _mm256_set1_epi64x((int64_t)(x))
#define W_LOAD(p) load256(p)
#define W_STORE(p, v) _mm256_storeu_si256((vec *)(p), v)
#define MULTIPLY _mm256_mul_epu32
#define MULTIPLY_ADD multiply_add
#define HALF(v) (v)

/* In this order: GCC would make trees of the sums, and spill what waits in them. */
INLINE vec multiply_add(vec sum, vec a, vec b)
{
	sum = _mm256_add_epi64(sum, _mm256_mul_epu32(a, b));
	__asm__("" : "+x"(sum));
	return sum;
}

INLINE void load_blocks(wide *lo, wide *hi, const uint8_t *const p[POLY_LANES])
{
	vec a = two_rows256(p[0], p[2]), b = two_rows256(p[1], p[3]);

	*lo = _mm256_unpacklo_epi64(a, b);
	*hi = _mm256_unpackhi_epi64(a, b);
}

#include "crypto/poly26.h"

#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

static const struct lane_ops avx2_ops = {
	.blocks = 8,
	.run = 8,
	.packets = POLY_LANES,
	.long_blocks = 48,
	.xor_group = avx2_xor_group,
	.xor_run = avx2_xor_run,
	.tags = poly26_tags,
	.poly_long = poly26_long,
	.fed_min = 384,
	.xor_group_fed = xor_up_to_8,
	.xor_run_fed = avx2_xor_run_fed,
	/* Equal at 1420 bytes; at 16 KiB OpenSSL's assembly for AVX2 is 1.3 times as fast. */
	.lone_max = 2048,
};

const struct aead_variant aead_avx2 = {
	.name = "avx2",
	.available = cpu_has_avx2_bmi2,
	.seal_batch = lanes_seal_batch,
	.open_batch = lanes_open_batch,
	.seal = lanes_seal,
	.open = lanes_open,
	.ops = &avx2_ops,
};
#endif /* __x86_64__ */
