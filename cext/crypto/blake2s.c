/* SPDX-License-Identifier: Apache-2.0 */
/* BLAKE2s (RFC 7693), HMAC over it (RFC 2104) and the Noise key derivation. */
#include "base/endian.h"
#include "base/secret.h"
#include "crypto/crypto.h"

/*
 * Ours and not the library's: MAC1 of a handshake message is three compressions,
 * and a flood of forged initiations is answered with exactly this and nothing
 * else.  EVP comes near only with a fetched MAC and a keyed context kept for
 * each thread (1.25 times our time); fetching and allocating for each message
 * costs it several times as much.  `make bench-aead` prints both.
 */
#define BLOCK_LEN 64

static const uint32_t iv[8] = {
	0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
	0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
};

static inline uint32_t ror(uint32_t x, unsigned int n)
{
	return x >> n | x << (32 - n);
}

#define G(a, b, c, d, x, y)                                                    \
	do {                                                                   \
		a += b + (x);                                                  \
		d = ror(d ^ a, 16);                                            \
		c += d;                                                        \
		b = ror(b ^ c, 12);                                            \
		a += b + (y);                                                  \
		d = ror(d ^ a, 8);                                             \
		c += d;                                                        \
		b = ror(b ^ c, 7);                                             \
	} while (0)

/* One round, with the message words in the order that section 2.7 gives it. */
#define ROUND(s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, sa, sb, sc, sd, se, sf)  \
	do {                                                                   \
		G(v0, v4, v8, vc, m[s0], m[s1]);                               \
		G(v1, v5, v9, vd, m[s2], m[s3]);                               \
		G(v2, v6, va, ve, m[s4], m[s5]);                               \
		G(v3, v7, vb, vf, m[s6], m[s7]);                               \
		G(v0, v5, va, vf, m[s8], m[s9]);                               \
		G(v1, v6, vb, vc, m[sa], m[sb]);                               \
		G(v2, v7, v8, vd, m[sc], m[sd]);                               \
		G(v3, v4, v9, ve, m[se], m[sf]);                               \
	} while (0)

static void compress(struct blake2s_state *s, const uint8_t *block, uint32_t counted, uint32_t last)
{
	uint32_t m[16];
	uint32_t v0 = s->h[0], v1 = s->h[1], v2 = s->h[2], v3 = s->h[3];
	uint32_t v4 = s->h[4], v5 = s->h[5], v6 = s->h[6], v7 = s->h[7];
	uint32_t v8 = iv[0], v9 = iv[1], va = iv[2], vb = iv[3];
	uint32_t vc, vd, ve = iv[6] ^ last, vf = iv[7];

	s->t[0] += counted;
	s->t[1] += s->t[0] < counted;
	vc = iv[4] ^ s->t[0];
	vd = iv[5] ^ s->t[1];
	for (int i = 0; i < 16; i++)
		m[i] = load_le32(block + 4 * i);

	ROUND(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
	ROUND(14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3);
	ROUND(11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4);
	ROUND(7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8);
	ROUND(9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13);
	ROUND(2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9);
	ROUND(12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11);
	ROUND(13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10);
	ROUND(6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5);
	ROUND(10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0);

	s->h[0] ^= v0 ^ v8;
	s->h[1] ^= v1 ^ v9;
	s->h[2] ^= v2 ^ va;
	s->h[3] ^= v3 ^ vb;
	s->h[4] ^= v4 ^ vc;
	s->h[5] ^= v5 ^ vd;
	s->h[6] ^= v6 ^ ve;
	s->h[7] ^= v7 ^ vf;
	secret_erase(m, sizeof(m));
}

void blake2s_init(struct blake2s_state *s, size_t out_len, const uint8_t *key, size_t key_len)
{
	memcpy(s->h, iv, sizeof(iv));
	s->h[0] ^= 0x01010000u ^ (uint32_t)key_len << 8 ^ (uint32_t)out_len;
	s->t[0] = 0;
	s->t[1] = 0;
	s->filled = 0;
	s->out_len = (uint32_t)out_len;
	if (!key_len)
		return;
	memset(s->block, 0, BLOCK_LEN);
	memcpy(s->block, key, key_len);
	s->filled = BLOCK_LEN;
}

void blake2s_update(struct blake2s_state *s, const uint8_t *in, size_t len)
{
	size_t room = BLOCK_LEN - s->filled;

	if (!len)
		return;
	/* A full block waits until more follows: the last one is hashed differently. */
	if (len > room) {
		memcpy(s->block + s->filled, in, room);
		compress(s, s->block, BLOCK_LEN, 0);
		s->filled = 0;
		in += room;
		len -= room;
		for (; len > BLOCK_LEN; in += BLOCK_LEN, len -= BLOCK_LEN)
			compress(s, in, BLOCK_LEN, 0);
	}
	memcpy(s->block + s->filled, in, len);
	s->filled += (uint32_t)len;
}

void blake2s_final(struct blake2s_state *s, uint8_t *out)
{
	uint8_t digest[BLAKE2S_LEN];

	memset(s->block + s->filled, 0, BLOCK_LEN - s->filled);
	compress(s, s->block, s->filled, UINT32_MAX);
	for (int i = 0; i < 8; i++)
		store_le32(digest + 4 * i, s->h[i]);
	memcpy(out, digest, s->out_len);
	secret_erase(digest, sizeof(digest));
	secret_erase(s, sizeof(*s));
}

void blake2s(uint8_t *out, size_t out_len, const uint8_t *in, size_t len, const uint8_t *key,
	     size_t key_len)
{
	struct blake2s_state s;

	blake2s_init(&s, out_len, key, key_len);
	blake2s_update(&s, in, len);
	blake2s_final(&s, out);
}

/* HMAC of two parts, so that the key derivation need not join its inputs. */
static void hmac_two(uint8_t out[BLAKE2S_LEN], const uint8_t *key, size_t key_len,
		     const uint8_t *a, size_t a_len, const uint8_t *b, size_t b_len)
{
	struct blake2s_state s;
	uint8_t pad[BLOCK_LEN] = { 0 };
	uint8_t inner[BLAKE2S_LEN];

	if (key_len > BLOCK_LEN)
		blake2s(pad, BLAKE2S_LEN, key, key_len, NULL, 0);
	else if (key_len)
		memcpy(pad, key, key_len);

	for (int i = 0; i < BLOCK_LEN; i++)
		pad[i] ^= 0x36;
	blake2s_init(&s, BLAKE2S_LEN, NULL, 0);
	blake2s_update(&s, pad, BLOCK_LEN);
	blake2s_update(&s, a, a_len);
	blake2s_update(&s, b, b_len);
	blake2s_final(&s, inner);

	for (int i = 0; i < BLOCK_LEN; i++)
		pad[i] ^= 0x36 ^ 0x5c;
	blake2s_init(&s, BLAKE2S_LEN, NULL, 0);
	blake2s_update(&s, pad, BLOCK_LEN);
	blake2s_update(&s, inner, sizeof(inner));
	blake2s_final(&s, out);
	secret_erase(pad, sizeof(pad));
	secret_erase(inner, sizeof(inner));
}

void hmac_blake2s(uint8_t out[BLAKE2S_LEN], const uint8_t *key, size_t key_len, const uint8_t *in,
		  size_t len)
{
	hmac_two(out, key, key_len, in, len, NULL, 0);
}

void kdf(uint8_t *out, unsigned int n, const uint8_t chaining_key[BLAKE2S_LEN], const uint8_t *in,
	 size_t len)
{
	uint8_t extracted[BLAKE2S_LEN];
	uint8_t previous[BLAKE2S_LEN];

	hmac_blake2s(extracted, chaining_key, BLAKE2S_LEN, in, len);
	for (uint8_t i = 1; i <= n; i++) {
		hmac_two(previous, extracted, sizeof(extracted), previous,
			 i > 1 ? sizeof(previous) : 0, &i, 1);
		memcpy(out + (size_t)(i - 1) * BLAKE2S_LEN, previous, BLAKE2S_LEN);
	}
	secret_erase(extracted, sizeof(extracted));
	secret_erase(previous, sizeof(previous));
}
