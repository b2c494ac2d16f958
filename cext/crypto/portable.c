/* SPDX-License-Identifier: Apache-2.0 */
/* ChaCha20 in plain C: any CPU, either byte order, no unaligned load. */
#include "base/endian.h"
#include "base/secret.h"
#include "crypto/lanes.h"

/*
 * One block at a time in 16 local variables: a 32-register CPU (MIPS, AArch64)
 * keeps all of them, and no rotate or add is wider than 32 bits.
 */
static inline uint32_t rol(uint32_t x, unsigned int n)
{
	return x << n | x >> (32 - n);
}

#define QUARTER_ROUND(a, b, c, d)                                              \
	do {                                                                   \
		a += b;                                                        \
		d = rol(d ^ a, 16);                                            \
		c += d;                                                        \
		b = rol(b ^ c, 12);                                            \
		a += b;                                                        \
		d = rol(d ^ a, 8);                                             \
		c += d;                                                        \
		b = rol(b ^ c, 7);                                             \
	} while (0)

static void chacha_block(uint32_t x[16], const uint32_t s[16])
{
	uint32_t x0 = s[0], x1 = s[1], x2 = s[2], x3 = s[3];
	uint32_t x4 = s[4], x5 = s[5], x6 = s[6], x7 = s[7];
	uint32_t x8 = s[8], x9 = s[9], xa = s[10], xb = s[11];
	uint32_t xc = s[12], xd = s[13], xe = s[14], xf = s[15];

	for (int round = 0; round < 20; round += 2) {
		QUARTER_ROUND(x0, x4, x8, xc);
		QUARTER_ROUND(x1, x5, x9, xd);
		QUARTER_ROUND(x2, x6, xa, xe);
		QUARTER_ROUND(x3, x7, xb, xf);
		QUARTER_ROUND(x0, x5, xa, xf);
		QUARTER_ROUND(x1, x6, xb, xc);
		QUARTER_ROUND(x2, x7, x8, xd);
		QUARTER_ROUND(x3, x4, x9, xe);
	}
	x[0] = x0 + s[0];
	x[1] = x1 + s[1];
	x[2] = x2 + s[2];
	x[3] = x3 + s[3];
	x[4] = x4 + s[4];
	x[5] = x5 + s[5];
	x[6] = x6 + s[6];
	x[7] = x7 + s[7];
	x[8] = x8 + s[8];
	x[9] = x9 + s[9];
	x[10] = xa + s[10];
	x[11] = xb + s[11];
	x[12] = xc + s[12];
	x[13] = xd + s[13];
	x[14] = xe + s[14];
	x[15] = xf + s[15];
}

static void state_init(uint32_t s[16], const uint8_t *key, uint32_t counter, uint32_t n0,
		       uint32_t n1, uint32_t n2)
{
	s[0] = 0x61707865;
	s[1] = 0x3320646e;
	s[2] = 0x79622d32;
	s[3] = 0x6b206574;
	for (int i = 0; i < 8; i++)
		s[4 + i] = load_le32(key + 4 * i);
	s[12] = counter;
	s[13] = n0;
	s[14] = n1;
	s[15] = n2;
}

static void xor_words(uint8_t *out, const uint8_t *in, const uint32_t x[16])
{
	for (int i = 0; i < 16; i++)
		store_le32(out + 4 * i, load_le32(in + 4 * i) ^ x[i]);
}

static void portable_xor_group(const struct block_group *g)
{
	uint32_t s[16], x[16];

	for (unsigned int i = 0; i < g->n; i++) {
		state_init(s, g->key[i], g->counter[i], g->nonce[0][i], g->nonce[1][i],
			   g->nonce[2][i]);
		chacha_block(x, s);
		if (g->len[i] == CHACHA_BLOCK) {
			xor_words(g->out[i], g->in[i], x);
			continue;
		}
		for (uint32_t k = 0; k < g->len[i]; k++)
			g->out[i][k] = g->in[i][k] ^ (uint8_t)(x[k / 4] >> (k % 4 * 8));
	}
	secret_erase(s, sizeof(s));
	secret_erase(x, sizeof(x));
}

static void portable_xor_run(const uint8_t *key, const uint32_t nonce[3], uint32_t counter,
			     const uint8_t *in, uint8_t *out, size_t blocks)
{
	uint32_t s[16], x[16];

	state_init(s, key, counter, nonce[0], nonce[1], nonce[2]);
	for (; blocks; blocks--, in += CHACHA_BLOCK, out += CHACHA_BLOCK) {
		chacha_block(x, s);
		xor_words(out, in, x);
		s[12]++;
	}
	secret_erase(s, sizeof(s));
	secret_erase(x, sizeof(x));
}

static bool portable_available(void)
{
	return true;
}

static const struct lane_ops portable_ops = {
	.blocks = 1,
	.run = 1,
	.packets = 1,
	.long_blocks = SIZE_MAX,
	.xor_group = portable_xor_group,
	.xor_run = portable_xor_run,
	.lone_max = SIZE_MAX,
};

const struct aead_variant aead_portable = {
	.name = "portable",
	.available = portable_available,
	.seal_batch = lanes_seal_batch,
	.open_batch = lanes_open_batch,
	.seal = lanes_seal,
	.open = lanes_open,
	.ops = &portable_ops,
};
