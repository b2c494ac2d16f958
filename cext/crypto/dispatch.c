/* SPDX-License-Identifier: Apache-2.0 */
/* Which implementation serves the AEAD on this CPU, and the proof that it is right. */
#include <stdlib.h>
#include <string.h>

#include "crypto/variant.h"

/* Fastest first; crypto_init() takes the first one that this CPU can run. */
const struct aead_variant *const aead_variants[] = {
#ifdef __x86_64__
	&aead_avx512ifma,
	&aead_avx2,
	/* OpenSSL has SSE assembly: faster than plain C here. */
#ifndef WT_CRYPTO_NO_OPENSSL
	&aead_openssl,
#endif
	&aead_portable,
#else
#ifdef WT_CRYPTO_NEON
	&aead_neon,
#endif
	&aead_portable,
#ifndef WT_CRYPTO_NO_OPENSSL
	&aead_openssl,
#endif
#endif
	NULL,
};

/*
 * NULL until the first use.  Each extension module that links this library has
 * its own copy, so none can count on another one's crypto_init().  Threads that
 * come here at the same time all choose alike.
 */
static const struct aead_variant *chosen;

static void choose(const struct aead_variant *v)
{
	__atomic_store_n(&chosen, v, __ATOMIC_RELEASE);
}

static const struct aead_variant *in_use(void)
{
	const struct aead_variant *v = __atomic_load_n(&chosen, __ATOMIC_ACQUIRE);

	if (__builtin_expect(v != NULL, 1))
		return v;
	/* A cipher that fails its known answers must not see a packet. */
	if (crypto_init())
		abort();
	return chosen;
}

int crypto_init(void)
{
	const struct aead_variant *first = NULL;

	for (size_t i = 0; aead_variants[i]; i++) {
		const struct aead_variant *v = aead_variants[i];

		if (!v->available())
			continue;
		/* The library too: long lone packets may be handed on to it. */
		if (!selftest_aead(v))
			return -1;
		if (!first)
			first = v;
	}
	if (!first || !selftest_hashes())
		return -1;
#ifndef WT_CRYPTO_NO_OPENSSL
	if (!selftest_x25519())
		return -1;
#endif
	choose(first);
	return 0;
}

const char *crypto_backend(void)
{
	return in_use()->name;
}

const char *crypto_variant(size_t i)
{
	for (size_t k = 0; aead_variants[k]; k++)
		if (aead_variants[k]->available() && i-- == 0)
			return aead_variants[k]->name;
	return NULL;
}

int crypto_select(const char *name)
{
	for (size_t i = 0; aead_variants[i]; i++) {
		if (strcmp(aead_variants[i]->name, name) || !aead_variants[i]->available())
			continue;
		if (!selftest_aead(aead_variants[i]))
			return -1;
		choose(aead_variants[i]);
		return 0;
	}
	return -1;
}

void aead_seal_batch(struct aead_job *jobs, size_t n)
{
	const struct aead_variant *v = in_use();

	v->seal_batch(v, jobs, n);
}

void aead_open_batch(struct aead_job *jobs, size_t n)
{
	const struct aead_variant *v = in_use();

	v->open_batch(v, jobs, n);
}

void aead_seal(uint8_t *out, const uint8_t *in, size_t len, const uint8_t *ad, size_t ad_len,
	       const uint8_t nonce[12], const uint8_t key[AEAD_KEY_LEN])
{
	const struct aead_variant *v = in_use();

	v->seal(v, out, in, len, ad, ad_len, nonce, key);
}

bool aead_open(uint8_t *out, const uint8_t *in, size_t len, const uint8_t *ad, size_t ad_len,
	       const uint8_t nonce[12], const uint8_t key[AEAD_KEY_LEN])
{
	const struct aead_variant *v = in_use();

	if (len < AEAD_TAG_LEN)
		return false;
	return v->open(v, out, in, len - AEAD_TAG_LEN, ad, ad_len, nonce, key);
}
