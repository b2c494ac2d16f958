/* SPDX-License-Identifier: Apache-2.0 */
/* ChaCha20 in 4 lanes and Poly1305 in 2 lanes of 26-bit limbs: NEON, AArch64 and ARMv7. */
#include "crypto/variant.h"

#ifdef WT_CRYPTO_NEON
#ifdef __arm__
#include <sys/auxv.h>
#endif
/* ARMv7 distributions compile for CPUs without NEON: it is switched on for this file alone. */
#if defined(__arm__) && !defined(__ARM_NEON)
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("neon"))), apply_to = function)
#define POP_TARGET _Pragma("clang attribute pop")
#else
#pragma GCC push_options
#pragma GCC target("fpu=neon")
#define POP_TARGET _Pragma("GCC pop_options")
#endif
#else
#define POP_TARGET
#endif
#include <arm_neon.h>

#include "base/endian.h"
#include "base/secret.h"
#include "crypto/lanes.h"

#define INLINE static inline __attribute__((always_inline))

typedef uint32x4_t vec;

#define ADD32 vaddq_u32
#define XOR veorq_u32
#define ROL(v, n)                                                              \
	((n) == 16 ? vreinterpretq_u32_u16(vrev32q_u16(vreinterpretq_u16_u32(v))) \
		   : vsriq_n_u32(vshlq_n_u32(v, n), v, 32 - (n)))
#include "crypto/rounds.h"
#ifdef __arm__
#include "crypto/rounds_armv7.h"
#else
/* The 20 rounds, and what they began with added */
INLINE void rounds4(vec x[16], const vec in[16])
{
	UNROLL
	for (int i = 0; i < 16; i++)
		x[i] = in[i];
	CHACHA_ROUNDS(x);
	UNROLL
	for (int i = 0; i < 16; i++)
		x[i] = ADD32(x[i], in[i]);
}
#endif

/* ---- ChaCha20 ---- */

/* x[0..3] holds the same 4 words of 4 blocks: afterwards x[i] is those words of block i. */
INLINE void transpose4(vec x[4])
{
	uint32x4x2_t a = vtrnq_u32(x[0], x[1]), b = vtrnq_u32(x[2], x[3]);

	x[0] = vcombine_u32(vget_low_u32(a.val[0]), vget_low_u32(b.val[0]));
	x[1] = vcombine_u32(vget_low_u32(a.val[1]), vget_low_u32(b.val[1]));
	x[2] = vcombine_u32(vget_high_u32(a.val[0]), vget_high_u32(b.val[0]));
	x[3] = vcombine_u32(vget_high_u32(a.val[1]), vget_high_u32(b.val[1]));
}

INLINE vec load(const void *p)
{
	return vreinterpretq_u32_u8(vld1q_u8(p));
}

/* secret_erase() of 16 vectors; memset() of a small C library takes six times the instructions. */
INLINE void erase16(vec x[16])
{
	vec zero = vdupq_n_u32(0);

	/* Or the compiler sees a memset() in what follows. */
	__asm__("" : "+w"(zero));
	UNROLL
	for (int i = 0; i < 16; i++)
		x[i] = zero;
	__asm__ __volatile__("" : : "r"(x) : "memory");
}

/* 4 blocks of state @in: x[4 k + i] becomes the k-th quarter of block i of the key stream. */
INLINE void blocks4(vec x[16], const vec in[16])
{
	rounds4(x, in);
	UNROLL
	for (int i = 0; i < 16; i += 4)
		transpose4(x + i);
}

INLINE void xor_whole(uint8_t *out, const uint8_t *in, vec a, vec b, vec c, vec d)
{
	a = XOR(a, load(in));
	b = XOR(b, load(in + 16));
	c = XOR(c, load(in + 32));
	d = XOR(d, load(in + 48));
	vst1q_u8(out, vreinterpretq_u8_u32(a));
	vst1q_u8(out + 16, vreinterpretq_u8_u32(b));
	vst1q_u8(out + 32, vreinterpretq_u8_u32(c));
	vst1q_u8(out + 48, vreinterpretq_u8_u32(d));
}

INLINE void xor_lane(const struct block_group *g, unsigned int i, vec a, vec b, vec c, vec d)
{
	static const uint8_t none[CHACHA_BLOCK];
	uint8_t stream[CHACHA_BLOCK];

	if (g->len[i] == CHACHA_BLOCK) {
		xor_whole(g->out[i], g->in[i], a, b, c, d);
		return;
	}
	xor_whole(stream, none, a, b, c, d);
	lanes_xor(g->out[i], g->in[i], stream, g->len[i]);
	secret_erase(stream, sizeof(stream));
}

static void neon_xor_group(const struct block_group *g)
{
	vec x[16], in[16];

	UNROLL
	for (int i = 0; i < 4; i++)
		in[i] = vdupq_n_u32(sigma[i]);
	if (g->one_key) {
		UNROLL
		for (int i = 0; i < 8; i++)
			in[4 + i] = vdupq_n_u32(load_le32(g->key[0] + 4 * i));
	} else {
		UNROLL
		for (unsigned int i = 0; i < 4; i++) {
			const uint8_t *k = g->key[i < g->n ? i : 0];

			in[4 + i] = load(k);
			in[8 + i] = load(k + 16);
		}
		transpose4(in + 4);
		transpose4(in + 8);
	}
	in[12] = vld1q_u32(g->counter);
	UNROLL
	for (int i = 0; i < 3; i++)
		in[13 + i] = vld1q_u32(g->nonce[i]);
	blocks4(x, in);
	UNROLL
	for (unsigned int i = 0; i < 4; i++)
		if (i < g->n)
			xor_lane(g, i, x[i], x[4 + i], x[8 + i], x[12 + i]);
	erase16(in);
	erase16(x);
}

static void neon_xor_run(const uint8_t *key, const uint32_t nonce[3], uint32_t counter,
			 const uint8_t *in, uint8_t *out, size_t blocks)
{
	static const uint32_t iota[4] = { 0, 1, 2, 3 };
	vec x[16], state[16];

	UNROLL
	for (int i = 0; i < 4; i++)
		state[i] = vdupq_n_u32(sigma[i]);
	UNROLL
	for (int i = 0; i < 8; i++)
		state[4 + i] = vdupq_n_u32(load_le32(key + 4 * i));
	state[12] = ADD32(vld1q_u32(iota), vdupq_n_u32(counter));
	UNROLL
	for (int i = 0; i < 3; i++)
		state[13 + i] = vdupq_n_u32(nonce[i]);
	for (; blocks; blocks -= 4, in += 256, out += 256) {
		blocks4(x, state);
		state[12] = ADD32(state[12], vdupq_n_u32(4));
		UNROLL
		for (int i = 0; i < 4; i++)
			xor_whole(out + 64 * i, in + 64 * i, x[i], x[4 + i], x[8 + i], x[12 + i]);
	}
	erase16(state);
	erase16(x);
}

/* ---- Poly1305 ---- */

#define POLY_LANES 2
typedef uint64x2_t wide;
typedef uint32x2_t half;
#define W_ADD vaddq_u64
#define W_AND vandq_u64
#define W_OR vorrq_u64
#define W_ANDNOT(mask, v) vbicq_u64(v, mask)
#define W_SHR(v, n) vshrq_n_u64(v, n)
#define W_SHL(v, n) vshlq_n_u64(v, n)
#define W_SET1(x) vdupq_n_u64(x)
#define W_LOAD(p) vld1q_u64(p)
#define W_STORE(p, v) vst1q_u64(p, v)
#define MULTIPLY vmull_u32
#define MULTIPLY_ADD vmlal_u32
#define HALF(v) vmovn_u64(v)

INLINE void load_blocks(wide *lo, wide *hi, const uint8_t *const p[POLY_LANES])
{
	wide a = vreinterpretq_u64_u8(vld1q_u8(p[0])), b = vreinterpretq_u64_u8(vld1q_u8(p[1]));

	*lo = vcombine_u64(vget_low_u64(a), vget_low_u64(b));
	*hi = vcombine_u64(vget_high_u64(a), vget_high_u64(b));
}

#include "crypto/poly26.h"

POP_TARGET

static bool neon_available(void)
{
#ifdef __arm__
	return getauxval(AT_HWCAP) >> 12 & 1; /* HWCAP_NEON */
#else
	return true;
#endif
}

static const struct lane_ops neon_ops = {
	.blocks = 4,
	.run = 4,
	.packets = POLY_LANES,
	.long_blocks = 16,
	.xor_group = neon_xor_group,
	.xor_run = neon_xor_run,
	.tags = poly26_tags,
	.poly_long = poly26_long,
	.lone_max = SIZE_MAX,
};

const struct aead_variant aead_neon = {
	.name = "neon",
	.available = neon_available,
	.seal_batch = lanes_seal_batch,
	.open_batch = lanes_open_batch,
	.seal = lanes_seal,
	.open = lanes_open,
	.ops = &neon_ops,
};
#endif /* WT_CRYPTO_NEON */
