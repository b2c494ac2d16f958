/* SPDX-License-Identifier: Apache-2.0 */
/* XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03): HChaCha20 before the AEAD. */
#include "base/endian.h"
#include "base/secret.h"
#include "crypto/variant.h"

static inline uint32_t rol(uint32_t x, unsigned int n)
{
	return x << n | x >> (32 - n);
}

static inline void quarter_round(uint32_t *x, int a, int b, int c, int d)
{
	x[a] += x[b];
	x[d] = rol(x[d] ^ x[a], 16);
	x[c] += x[d];
	x[b] = rol(x[b] ^ x[c], 12);
	x[a] += x[b];
	x[d] = rol(x[d] ^ x[a], 8);
	x[c] += x[d];
	x[b] = rol(x[b] ^ x[c], 7);
}

void hchacha20(uint8_t out[32], const uint8_t nonce[16], const uint8_t key[AEAD_KEY_LEN])
{
	uint32_t x[16] = { 0x61707865, 0x3320646e, 0x79622d32, 0x6b206574 };

	for (int i = 0; i < 8; i++)
		x[4 + i] = load_le32(key + 4 * i);
	for (int i = 0; i < 4; i++)
		x[12 + i] = load_le32(nonce + 4 * i);
	for (int round = 0; round < 20; round += 2) {
		for (int i = 0; i < 4; i++)
			quarter_round(x, i, 4 + i, 8 + i, 12 + i);
		for (int i = 0; i < 4; i++)
			quarter_round(x, i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4);
	}
	for (int i = 0; i < 4; i++) {
		store_le32(out + 4 * i, x[i]);
		store_le32(out + 16 + 4 * i, x[12 + i]);
	}
	secret_erase(x, sizeof(x));
}

static void derive(uint8_t subkey[AEAD_KEY_LEN], uint8_t subnonce[AEAD_NONCE_LEN],
		   const uint8_t *nonce, const uint8_t *key)
{
	hchacha20(subkey, nonce, key);
	memset(subnonce, 0, 4);
	memcpy(subnonce + 4, nonce + 16, 8);
}

void xaead_seal(uint8_t *out, const uint8_t *in, size_t len, const uint8_t *ad, size_t ad_len,
		const uint8_t nonce[XAEAD_NONCE_LEN], const uint8_t key[AEAD_KEY_LEN])
{
	uint8_t subkey[AEAD_KEY_LEN], subnonce[AEAD_NONCE_LEN];

	derive(subkey, subnonce, nonce, key);
	aead_seal(out, in, len, ad, ad_len, subnonce, subkey);
	secret_erase(subkey, sizeof(subkey));
}

bool xaead_open(uint8_t *out, const uint8_t *in, size_t len, const uint8_t *ad, size_t ad_len,
		const uint8_t nonce[XAEAD_NONCE_LEN], const uint8_t key[AEAD_KEY_LEN])
{
	uint8_t subkey[AEAD_KEY_LEN], subnonce[AEAD_NONCE_LEN];
	bool ok;

	derive(subkey, subnonce, nonce, key);
	ok = aead_open(out, in, len, ad, ad_len, subnonce, subkey);
	secret_erase(subkey, sizeof(subkey));
	return ok;
}
