/* SPDX-License-Identifier: Apache-2.0 */
/* Which implementation serves the AEAD on this CPU, and the proof that it is right. */
#include <string.h>

#include "crypto/variant.h"

/* Fastest first; crypto_init() takes the first one that this CPU can run. */
static const struct aead_variant *const variants[] = {
	&aead_openssl,
};
#define VARIANTS (sizeof(variants) / sizeof(variants[0]))

/* Written by crypto_init() and crypto_select() only, before other threads start. */
static const struct aead_variant *chosen = &aead_openssl;

int crypto_init(void)
{
	const struct aead_variant *first = NULL;

	for (size_t i = 0; i < VARIANTS && !first; i++)
		if (variants[i]->available())
			first = variants[i];
	if (!first || !selftest_aead(first) || !selftest_hashes() || !selftest_x25519())
		return -1;
	chosen = first;
	return 0;
}

const char *crypto_backend(void)
{
	return chosen->name;
}

const char *crypto_variant(size_t i)
{
	for (size_t k = 0; k < VARIANTS; k++)
		if (variants[k]->available() && i-- == 0)
			return variants[k]->name;
	return NULL;
}

int crypto_select(const char *name)
{
	for (size_t i = 0; i < VARIANTS; i++) {
		if (strcmp(variants[i]->name, name) || !variants[i]->available())
			continue;
		if (!selftest_aead(variants[i]))
			return -1;
		chosen = variants[i];
		return 0;
	}
	return -1;
}

void aead_seal_batch(struct aead_job *jobs, size_t n)
{
	chosen->seal_batch(jobs, n);
}

void aead_open_batch(struct aead_job *jobs, size_t n)
{
	chosen->open_batch(jobs, n);
}

void aead_seal(uint8_t *out, const uint8_t *in, size_t len, const uint8_t *ad, size_t ad_len,
	       const uint8_t nonce[12], const uint8_t key[AEAD_KEY_LEN])
{
	chosen->seal(out, in, len, ad, ad_len, nonce, key);
}

bool aead_open(uint8_t *out, const uint8_t *in, size_t len, const uint8_t *ad, size_t ad_len,
	       const uint8_t nonce[12], const uint8_t key[AEAD_KEY_LEN])
{
	if (len < AEAD_TAG_LEN)
		return false;
	return chosen->open(out, in, len - AEAD_TAG_LEN, ad, ad_len, nonce, key);
}
