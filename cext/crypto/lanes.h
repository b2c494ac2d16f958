/* SPDX-License-Identifier: Apache-2.0 */
/* What a SIMD variant brings to the common AEAD driver; private to this room. */
#ifndef WT_CRYPTO_LANES_H
#define WT_CRYPTO_LANES_H

#include "base/endian.h"
#include "crypto/poly1305.h"
#include "crypto/variant.h"

#define CHACHA_BLOCK 64
#define LANES_MAX 16

/* Before a loop of few, constant turns over an array of vectors: keeps them in registers. */
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

/**
 * struct block_group - ChaCha20 blocks of any packets, computed side by side
 * @counter:	Block counter of each lane
 * @nonce:	Nonce words of each lane
 * @key:	32 bytes of key of each lane
 * @in:		Bytes to be XORed with the key stream
 * @out:	Where they go; equal to @in or not overlapping it
 * @len:	1 to 64 bytes of each
 * @n:		Lanes in use
 * @one_key:	All lanes have the same key pointer
 *
 * Only public values and addresses live here, never key stream.
 */
struct block_group {
	uint32_t counter[LANES_MAX];
	uint32_t nonce[3][LANES_MAX];
	const uint8_t *key[LANES_MAX];
	const uint8_t *in[LANES_MAX];
	uint8_t *out[LANES_MAX];
	uint32_t len[LANES_MAX];
	unsigned int n;
	bool one_key;
};

/* One packet of a batch; the nonce as words. */
struct packet {
	const uint8_t *key;
	const uint8_t *in;
	uint8_t *out;
	size_t len;
	uint32_t nonce[3];
};

static inline void packet_of(struct packet *p, const struct aead_job *j)
{
	p->key = j->key;
	p->in = j->in;
	p->out = j->out;
	p->len = j->len;
	p->nonce[0] = 0;
	p->nonce[1] = (uint32_t)j->counter;
	p->nonce[2] = (uint32_t)(j->counter >> 32);
}

/* One more block of a packet; there has to be a lane for it. */
static inline void group_add(struct block_group *g, const struct packet *p, uint32_t counter,
			     const uint8_t *in, uint8_t *out, uint32_t len)
{
	unsigned int i = g->n++;

	g->one_key = i == 0 || (g->one_key && p->key == g->key[0]);
	g->counter[i] = counter;
	g->nonce[0][i] = p->nonce[0];
	g->nonce[1][i] = p->nonce[1];
	g->nonce[2][i] = p->nonce[2];
	g->key[i] = p->key;
	g->in[i] = in;
	g->out[i] = out;
	g->len[i] = len;
}

/**
 * struct poly_lane - A packet without associated data, to be authenticated
 * @key:	One-time key, followed by 32 more readable bytes
 * @data:	Ciphertext
 * @len:	Its length
 * @tag:	Gets 16 bytes
 */
struct poly_lane {
	const uint8_t *key;
	const uint8_t *data;
	size_t len;
	uint8_t *tag;
};

/**
 * struct poly_feed - Whole blocks of Poly1305 to be done between ChaCha20's rounds
 * @poly:	Absorbs them
 * @in:		The next one
 * @blocks:	How many there are; what was not done is left
 */
struct poly_feed {
	struct poly1305 *poly;
	const uint8_t *in;
	size_t blocks;
};

/**
 * struct lane_ops - The inner loops of a variant
 * @blocks:	Blocks that @xor_group takes at most
 * @run:	@xor_run takes multiples of this many blocks
 * @packets:	Packets that @tags takes at most; 1: it is not used
 * @long_blocks: Poly1305 blocks from which on @poly_long is worth its set-up
 * @xor_group:	XOR key stream over the lanes of a group
 * @xor_run:	XOR key stream over consecutive whole blocks of one packet
 * @tags:	Authenticate several packets side by side
 * @poly_long:	Absorb consecutive whole blocks of one packet
 * @fed_min:	Packets of this length and more go through paired.c; 0: none
 * @xor_group_fed: @xor_group with a feed, or NULL
 * @xor_run_fed: @xor_run with a feed
 * @lone_max:	A packet alone in its batch, or with associated data, that is
 *		longer than this is sealed by the library
 */
struct lane_ops {
	unsigned int blocks;
	unsigned int run;
	unsigned int packets;
	size_t long_blocks;
	void (*xor_group)(const struct block_group *g);
	void (*xor_run)(const uint8_t *key, const uint32_t nonce[3], uint32_t counter,
			const uint8_t *in, uint8_t *out, size_t blocks);
	void (*tags)(const struct poly_lane *lanes, unsigned int n);
	void (*poly_long)(struct poly1305 *p, const uint8_t *in, size_t blocks);
	size_t fed_min;
	void (*xor_group_fed)(const struct block_group *g, struct poly_feed *feed);
	void (*xor_run_fed)(const uint8_t *key, const uint32_t nonce[3], uint32_t counter,
			    const uint8_t *in, uint8_t *out, size_t blocks, struct poly_feed *feed);
	size_t lone_max;
};

void lanes_seal_batch(const struct aead_variant *v, struct aead_job *jobs, size_t n);
void lanes_open_batch(const struct aead_variant *v, struct aead_job *jobs, size_t n);
void lanes_seal(const struct aead_variant *v, uint8_t *out, const uint8_t *in, size_t len,
		const uint8_t *ad, size_t ad_len, const uint8_t *nonce, const uint8_t *key);
bool lanes_open(const struct aead_variant *v, uint8_t *out, const uint8_t *in, size_t len,
		const uint8_t *ad, size_t ad_len, const uint8_t *nonce, const uint8_t *key);

/* Packets of fed_min and more, in this order (paired.c); at least two are worth it. */
void paired_seal(const struct lane_ops *ops, struct aead_job *jobs, const uint8_t *order, size_t n);
void paired_open(const struct lane_ops *ops, struct aead_job *jobs, const uint8_t *order, size_t n);

/* Input of a block whose key stream itself is wanted. */
extern const uint8_t zero_block[CHACHA_BLOCK];

/* Absorb all of a text; a last part of a block is padded with zeros. */
void lanes_absorb(const struct lane_ops *ops, struct poly1305 *st, const uint8_t *in, size_t len);
/* The end of RFC 8439 section 2.8's text, and the tag. */
void lanes_tag(struct poly1305 *st, uint8_t tag[AEAD_TAG_LEN], size_t ad_len, size_t len);

/* In constant time. */
static inline bool tag_equal(const uint8_t *a, const uint8_t *b)
{
	uint64_t differs = (load_le64(a) ^ load_le64(b)) | (load_le64(a + 8) ^ load_le64(b + 8));

	return differs == 0;
}

/* out = in XOR stream, for ends of packets; @out may equal @in. */
void lanes_xor(uint8_t *out, const uint8_t *in, const uint8_t *stream, size_t len);

#endif /* WT_CRYPTO_LANES_H */
