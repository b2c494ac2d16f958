/* SPDX-License-Identifier: Apache-2.0 */
/* ChaCha20 in plain C: any CPU, either byte order, no unaligned load. */
#include "base/endian.h"
#include "base/secret.h"
#include "crypto/lanes.h"

/*
 * One block at a time in 16 local variables: a 32-register CPU (MIPS, AArch64)
 * keeps all of them, and no rotate or add is wider than 32 bits.
 */
#define INLINE inline __attribute__((always_inline))

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

/* How a word of a packet is reached; a constant wherever these are called. */
enum access { ANY_ALIGNMENT, WORD_ALIGNED };

static INLINE uint32_t load_word(const uint8_t *p, enum access access)
{
	return load_le32(access == WORD_ALIGNED ? __builtin_assume_aligned(p, 4) : p);
}

static INLINE void store_word(uint8_t *p, uint32_t v, enum access access)
{
	store_le32(access == WORD_ALIGNED ? __builtin_assume_aligned(p, 4) : p, v);
}

#define XOR_WORD(i, x)                                                         \
	store_word(out + 4 * (i), load_word(in + 4 * (i), access) ^ ((x) + s[i]), access)

/* The halves of a double round; its columns but the first, too. */
#define OTHER_COLUMNS                                                          \
	QUARTER_ROUND(x1, x5, x9, xd);                                         \
	QUARTER_ROUND(x2, x6, xa, xe);                                         \
	QUARTER_ROUND(x3, x7, xb, xf)
#define FIRST_COLUMN QUARTER_ROUND(x0, x4, x8, xc)
#define DIAGONALS                                                              \
	QUARTER_ROUND(x0, x5, xa, xf);                                         \
	QUARTER_ROUND(x1, x6, xb, xc);                                         \
	QUARTER_ROUND(x2, x7, x8, xd);                                         \
	QUARTER_ROUND(x3, x4, x9, xe)

/*
 * A packet's blocks differ in the counter, word 12, alone: three of the four columns
 * of the first round come out the same for all.  @head is the state after those.
 * Key stream leaves the registers only as ciphertext or plaintext.
 */
static INLINE void xor_block(uint8_t *out, const uint8_t *in, const uint32_t s[16],
			     const uint32_t head[16], enum access access)
{
	uint32_t x0 = s[0], x1 = head[1], x2 = head[2], x3 = head[3];
	uint32_t x4 = s[4], x5 = head[5], x6 = head[6], x7 = head[7];
	uint32_t x8 = s[8], x9 = head[9], xa = head[10], xb = head[11];
	uint32_t xc = s[12], xd = head[13], xe = head[14], xf = head[15];

	FIRST_COLUMN;
	DIAGONALS;
	for (int round = 2; round < 20; round += 2) {
		FIRST_COLUMN;
		OTHER_COLUMNS;
		DIAGONALS;
	}
	XOR_WORD(0, x0);
	XOR_WORD(1, x1);
	XOR_WORD(2, x2);
	XOR_WORD(3, x3);
	XOR_WORD(4, x4);
	XOR_WORD(5, x5);
	XOR_WORD(6, x6);
	XOR_WORD(7, x7);
	XOR_WORD(8, x8);
	XOR_WORD(9, x9);
	XOR_WORD(10, xa);
	XOR_WORD(11, xb);
	XOR_WORD(12, xc);
	XOR_WORD(13, xd);
	XOR_WORD(14, xe);
	XOR_WORD(15, xf);
}

static INLINE void head_of(uint32_t head[16], const uint32_t s[16])
{
	uint32_t x1 = s[1], x2 = s[2], x3 = s[3], x5 = s[5], x6 = s[6], x7 = s[7];
	uint32_t x9 = s[9], xa = s[10], xb = s[11], xd = s[13], xe = s[14], xf = s[15];

	OTHER_COLUMNS;
	head[1] = x1;
	head[2] = x2;
	head[3] = x3;
	head[5] = x5;
	head[6] = x6;
	head[7] = x7;
	head[9] = x9;
	head[10] = xa;
	head[11] = xb;
	head[13] = xd;
	head[14] = xe;
	head[15] = xf;
}

/*
 * MIPS takes two instructions for a word of any alignment, and each of them
 * again as long as a plain one.  Packets mostly are aligned.
 */
static void xor_blocks(uint8_t *out, const uint8_t *in, uint32_t s[16], size_t blocks)
{
	uint32_t head[16];

	head_of(head, s);
	if (((uintptr_t)out | (uintptr_t)in) % 4 == 0) {
		for (; blocks; blocks--, in += CHACHA_BLOCK, out += CHACHA_BLOCK, s[12]++)
			xor_block(out, in, s, head, WORD_ALIGNED);
	} else {
		for (; blocks; blocks--, in += CHACHA_BLOCK, out += CHACHA_BLOCK, s[12]++)
			xor_block(out, in, s, head, ANY_ALIGNMENT);
	}
	secret_erase(head, sizeof(head));
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

static void portable_xor_group(const struct block_group *g)
{
	static const uint8_t none[CHACHA_BLOCK] __attribute__((aligned(4)));
	uint8_t stream[CHACHA_BLOCK] __attribute__((aligned(4)));
	uint32_t s[16];

	for (unsigned int i = 0; i < g->n; i++) {
		state_init(s, g->key[i], g->counter[i], g->nonce[0][i], g->nonce[1][i],
			   g->nonce[2][i]);
		if (g->len[i] == CHACHA_BLOCK) {
			xor_blocks(g->out[i], g->in[i], s, 1);
			continue;
		}
		xor_blocks(stream, none, s, 1);
		lanes_xor(g->out[i], g->in[i], stream, g->len[i]);
		secret_erase(stream, sizeof(stream));
	}
	secret_erase(s, sizeof(s));
}

static void portable_xor_run(const uint8_t *key, const uint32_t nonce[3], uint32_t counter,
			     const uint8_t *in, uint8_t *out, size_t blocks)
{
	uint32_t s[16];

	state_init(s, key, counter, nonce[0], nonce[1], nonce[2]);
	xor_blocks(out, in, s, blocks);
	secret_erase(s, sizeof(s));
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
