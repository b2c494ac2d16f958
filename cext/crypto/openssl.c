/* SPDX-License-Identifier: Apache-2.0 */
/* ChaCha20-Poly1305 and X25519 by OpenSSL's libcrypto. */
#ifndef WT_CRYPTO_NO_OPENSSL
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <stdlib.h>
#include <threads.h>

#include "base/endian.h"
#include "base/secret.h"
#include "crypto/variant.h"

/**
 * DOC: Theory of operation - contexts
 *
 * Fetching an algorithm and allocating a context cost more than a packet, so
 * each thread makes one context at its first packet and keeps it; threads.h
 * frees it when the thread ends (it works in a static musl executable, too).
 * The context is given an all-zero key after each call: a session's key lives
 * no longer here than in its keypair.
 *
 * EVP writes plaintext before it has seen the tag.  The seam promises the
 * opposite, so that opening goes through a scratch buffer: packets that fit are
 * copied out after the tag was found right, longer ones are decrypted again.
 */
#define SCRATCH_LEN 2048

static once_flag context_once = ONCE_FLAG_INIT;
static tss_t context_key;
static bool context_key_valid;
static _Thread_local EVP_CIPHER_CTX *context;

static void context_free(void *p)
{
	EVP_CIPHER_CTX_free(p);
}

static void context_key_create(void)
{
	context_key_valid = tss_create(&context_key, context_free) == thrd_success;
}

/*
 * The calling thread's context.  There is no packet to drop and no error to
 * return from a seal, and none may leave in the clear: without memory for 500
 * bytes at a thread's first packet the process ends.
 */
static EVP_CIPHER_CTX *context_get(void)
{
	EVP_CIPHER_CTX *c = context;

	if (c)
		return c;
	call_once(&context_once, context_key_create);
	c = EVP_CIPHER_CTX_new();
	if (!c || !EVP_CipherInit_ex(c, EVP_chacha20_poly1305(), NULL, NULL, NULL, 1))
		abort();
	if (context_key_valid)
		tss_set(context_key, c);
	context = c;
	return c;
}

static void context_forget(EVP_CIPHER_CTX *c)
{
	static const uint8_t zero[AEAD_KEY_LEN];

	EVP_CipherInit_ex(c, NULL, NULL, zero, NULL, 1);
}

static bool begin(EVP_CIPHER_CTX *c, const uint8_t *ad, size_t ad_len, const uint8_t *nonce,
		  const uint8_t *key, int seal)
{
	int n;

	if (!EVP_CipherInit_ex(c, NULL, NULL, key, nonce, seal))
		return false;
	return !ad_len || EVP_CipherUpdate(c, NULL, &n, ad, (int)ad_len);
}

static void seal_with(EVP_CIPHER_CTX *c, uint8_t *out, const uint8_t *in, size_t len,
		      const uint8_t *ad, size_t ad_len, const uint8_t *nonce, const uint8_t *key)
{
	int n;

	/* An empty update would end the associated data's phase without a message. */
	if (!begin(c, ad, ad_len, nonce, key, 1) ||
	    (len && !EVP_EncryptUpdate(c, out, &n, in, (int)len)) ||
	    !EVP_EncryptFinal_ex(c, out + len, &n) ||
	    !EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_GET_TAG, AEAD_TAG_LEN, out + len))
		abort();
}

static bool open_with(EVP_CIPHER_CTX *c, uint8_t *out, const uint8_t *in, size_t len,
		      const uint8_t *ad, size_t ad_len, const uint8_t *nonce, const uint8_t *key)
{
	uint8_t scratch[SCRATCH_LEN];
	uint8_t tag[AEAD_TAG_LEN];
	size_t done, part;
	bool ok;
	int n;

	memcpy(tag, in + len, AEAD_TAG_LEN);
	ok = begin(c, ad, ad_len, nonce, key, 0);
	for (done = 0; ok && done < len; done += part) {
		part = len - done < SCRATCH_LEN ? len - done : SCRATCH_LEN;
		ok = EVP_DecryptUpdate(c, scratch, &n, in + done, (int)part);
	}
	ok = ok && EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_SET_TAG, AEAD_TAG_LEN, tag) &&
	     EVP_DecryptFinal_ex(c, scratch, &n);
	if (ok && len <= SCRATCH_LEN)
		memcpy(out, scratch, len);
	else if (ok)
		ok = begin(c, NULL, 0, nonce, key, 0) &&
		     EVP_DecryptUpdate(c, out, &n, in, (int)len);
	secret_erase(scratch, len < SCRATCH_LEN ? len : SCRATCH_LEN);
	return ok;
}

static void openssl_seal(const struct aead_variant *v, uint8_t *out, const uint8_t *in, size_t len,
			 const uint8_t *ad, size_t ad_len, const uint8_t *nonce, const uint8_t *key)
{
	EVP_CIPHER_CTX *c = context_get();

	(void)v;
	seal_with(c, out, in, len, ad, ad_len, nonce, key);
	context_forget(c);
}

static bool openssl_open(const struct aead_variant *v, uint8_t *out, const uint8_t *in, size_t len,
			 const uint8_t *ad, size_t ad_len, const uint8_t *nonce, const uint8_t *key)
{
	EVP_CIPHER_CTX *c = context_get();
	bool ok = open_with(c, out, in, len, ad, ad_len, nonce, key);

	(void)v;
	context_forget(c);
	return ok;
}

static void openssl_seal_batch(const struct aead_variant *v, struct aead_job *jobs, size_t n)
{
	EVP_CIPHER_CTX *c = context_get();
	uint8_t nonce[AEAD_NONCE_LEN] = { 0 };

	(void)v;
	for (size_t i = 0; i < n; i++) {
		struct aead_job *j = &jobs[i];

		store_le64(nonce + 4, j->counter);
		seal_with(c, j->out, j->in, j->len, NULL, 0, nonce, j->key);
	}
	context_forget(c);
}

static void openssl_open_batch(const struct aead_variant *v, struct aead_job *jobs, size_t n)
{
	EVP_CIPHER_CTX *c = context_get();
	uint8_t nonce[AEAD_NONCE_LEN] = { 0 };

	(void)v;
	for (size_t i = 0; i < n; i++) {
		struct aead_job *j = &jobs[i];

		store_le64(nonce + 4, j->counter);
		j->ok = open_with(c, j->out, j->in, j->len, NULL, 0, nonce, j->key);
	}
	context_forget(c);
}

static bool openssl_available(void)
{
	return true;
}

const struct aead_variant aead_openssl = {
	.name = "openssl",
	.available = openssl_available,
	.seal_batch = openssl_seal_batch,
	.open_batch = openssl_open_batch,
	.seal = openssl_seal,
	.open = openssl_open,
};

/*
 * A private key as EVP wants it.  EVP_PKEY_new_raw_private_key() would compute
 * the public key as well, which costs as much as the Diffie-Hellman does and is
 * not used by it: any 32 bytes stand in for it.
 */
static EVP_PKEY *private_key(const uint8_t *secret, const uint8_t *stand_in)
{
	EVP_PKEY_CTX *c = EVP_PKEY_CTX_new_from_name(NULL, "X25519", NULL);
	EVP_PKEY *key = NULL;
	OSSL_PARAM params[] = {
		OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PRIV_KEY, (void *)(uintptr_t)secret,
						  X25519_LEN),
		OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PUB_KEY,
						  (void *)(uintptr_t)stand_in, X25519_LEN),
		OSSL_PARAM_construct_end(),
	};

	if (!c || EVP_PKEY_fromdata_init(c) <= 0 ||
	    EVP_PKEY_fromdata(c, &key, EVP_PKEY_KEYPAIR, params) <= 0)
		key = NULL;
	EVP_PKEY_CTX_free(c);
	return key;
}

bool x25519(uint8_t out[X25519_LEN], const uint8_t secret[X25519_LEN],
	    const uint8_t point[X25519_LEN])
{
	EVP_PKEY *own = private_key(secret, point);
	EVP_PKEY *peer = EVP_PKEY_new_raw_public_key(EVP_PKEY_X25519, NULL, point, X25519_LEN);
	EVP_PKEY_CTX *c = own ? EVP_PKEY_CTX_new(own, NULL) : NULL;
	uint8_t shared[X25519_LEN] = { 0 };
	static const uint8_t zero[X25519_LEN];
	size_t len = sizeof(shared);
	bool ok;

	ok = c && peer && EVP_PKEY_derive_init(c) > 0 && EVP_PKEY_derive_set_peer(c, peer) > 0 &&
	     EVP_PKEY_derive(c, shared, &len) > 0 && len == sizeof(shared) &&
	     !secret_equal(shared, zero, sizeof(shared));
	/* Newer releases refuse a low-order point themselves: the result is the same. */
	if (!ok)
		memset(shared, 0, sizeof(shared));
	memcpy(out, shared, sizeof(shared));
	secret_erase(shared, sizeof(shared));
	EVP_PKEY_CTX_free(c);
	EVP_PKEY_free(peer);
	EVP_PKEY_free(own);
	return ok;
}

void x25519_public(uint8_t out[X25519_LEN], const uint8_t secret[X25519_LEN])
{
	EVP_PKEY *own = EVP_PKEY_new_raw_private_key(EVP_PKEY_X25519, NULL, secret, X25519_LEN);
	size_t len = X25519_LEN;

	/* Without memory; zeros would be taken for a key. */
	if (!own || !EVP_PKEY_get_raw_public_key(own, out, &len))
		abort();
	EVP_PKEY_free(own);
}

bool selftest_x25519(void)
{
	/* RFC 7748 section 6.1 */
	static const uint8_t alice[X25519_LEN] = {
		0x77, 0x07, 0x6d, 0x0a, 0x73, 0x18, 0xa5, 0x7d, 0x3c, 0x16, 0xc1,
		0x72, 0x51, 0xb2, 0x66, 0x45, 0xdf, 0x4c, 0x2f, 0x87, 0xeb, 0xc0,
		0x99, 0x2a, 0xb1, 0x77, 0xfb, 0xa5, 0x1d, 0xb9, 0x2c, 0x2a,
	};
	static const uint8_t bob_public[X25519_LEN] = {
		0xde, 0x9e, 0xdb, 0x7d, 0x7b, 0x7d, 0xc1, 0xb4, 0xd3, 0x5b, 0x61,
		0xc2, 0xec, 0xe4, 0x35, 0x37, 0x3f, 0x83, 0x43, 0xc8, 0x5b, 0x78,
		0x67, 0x4d, 0xad, 0xfc, 0x7e, 0x14, 0x6f, 0x88, 0x2b, 0x4f,
	};
	static const uint8_t expected[X25519_LEN] = {
		0x4a, 0x5d, 0x9d, 0x5b, 0xa4, 0xce, 0x2d, 0xe1, 0x72, 0x8e, 0x3b,
		0xf4, 0x80, 0x35, 0x0f, 0x25, 0xe0, 0x7e, 0x21, 0xc9, 0x47, 0xd1,
		0x9e, 0x33, 0x76, 0xf0, 0x9b, 0x3c, 0x1e, 0x16, 0x17, 0x42,
	};
	static const uint8_t low_order[X25519_LEN];
	uint8_t out[X25519_LEN];

	return x25519(out, alice, bob_public) && !memcmp(out, expected, sizeof(out)) &&
	       !x25519(out, alice, low_order);
}

/* FIPS 197 appendix C: key bytes 0, 1, 2 and so on, this plaintext; encryption and back. */
static bool selftest_aes(const EVP_CIPHER *cipher, const uint8_t answer[16])
{
	static const uint8_t plain[16] = {
		0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa,
		0xbb, 0xcc, 0xdd, 0xee, 0xff,
	};
	EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
	uint8_t key[32], out[32];
	bool ok = c != NULL;
	int n;

	for (size_t i = 0; i < sizeof(key); i++)
		key[i] = (uint8_t)i;
	ok = ok && EVP_CipherInit_ex(c, cipher, NULL, key, NULL, 1) &&
	     EVP_CipherUpdate(c, out, &n, plain, sizeof(plain)) && n == sizeof(plain) &&
	     !memcmp(out, answer, sizeof(plain));
	ok = ok && EVP_CipherInit_ex(c, cipher, NULL, key, NULL, 0) &&
	     EVP_CIPHER_CTX_set_padding(c, 0) &&
	     EVP_CipherUpdate(c, out, &n, answer, sizeof(plain)) && n == sizeof(plain) &&
	     !memcmp(out, plain, sizeof(plain));
	EVP_CIPHER_CTX_free(c);
	return ok;
}

/* Test case 2 of the GCM specification: key, nonce and block of zeros. */
static bool selftest_gcm(void)
{
	static const uint8_t zero[16], answer[32] = {
		0x03, 0x88, 0xda, 0xce, 0x60, 0xb6, 0xa3, 0x92, 0xf3, 0x28, 0xc2,
		0xb9, 0x71, 0xb2, 0xfe, 0x78, 0xab, 0x6e, 0x47, 0xd4, 0x2c, 0xec,
		0x13, 0xbd, 0xf5, 0x3a, 0x67, 0xb2, 0x12, 0x57, 0xbd, 0xdf,
	};
	EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
	uint8_t out[32];
	int n;
	bool ok = c && EVP_EncryptInit_ex(c, EVP_aes_128_gcm(), NULL, zero, zero) &&
		  EVP_EncryptUpdate(c, out, &n, zero, sizeof(zero)) && n == sizeof(zero) &&
		  EVP_EncryptFinal_ex(c, out + 16, &n) &&
		  EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_GET_TAG, 16, out + 16) &&
		  !memcmp(out, answer, sizeof(answer));

	EVP_CIPHER_CTX_free(c);
	return ok;
}

/* More than a block of either, made with Python's hashlib. */
static bool selftest_digest(const EVP_MD *type, const uint8_t *answer)
{
	uint8_t in[200], out[EVP_MAX_MD_SIZE];
	unsigned int len = 0;

	for (size_t i = 0; i < sizeof(in); i++)
		in[i] = (uint8_t)i;
	return EVP_Digest(in, sizeof(in), out, &len, type, NULL) &&
	       !memcmp(out, answer, (size_t)EVP_MD_get_size(type));
}

/* 3^(p - 1) is 1 modulo the prime p = 2^521 - 1 (Fermat): 521 squarings, all right. */
static bool selftest_bignum(void)
{
	BN_CTX *c = BN_CTX_new();
	BIGNUM *p = BN_new(), *e = BN_new(), *r = BN_new();
	bool ok = c && p && e && r && BN_set_bit(p, 521) && BN_sub_word(p, 1) && BN_copy(e, p) &&
		  BN_sub_word(e, 1) && BN_set_word(r, 3) && BN_mod_exp(r, r, e, p, c) &&
		  BN_is_one(r);

	BN_free(r);
	BN_free(e);
	BN_free(p);
	BN_CTX_free(c);
	return ok;
}

const char *selftest_library(void)
{
	static const uint8_t aes128[16] = {
		0x69, 0xc4, 0xe0, 0xd8, 0x6a, 0x7b, 0x04, 0x30, 0xd8, 0xcd, 0xb7,
		0x80, 0x70, 0xb4, 0xc5, 0x5a,
	};
	static const uint8_t aes256[16] = {
		0x8e, 0xa2, 0xb7, 0xca, 0x51, 0x67, 0x45, 0xbf, 0xea, 0xfc, 0x49,
		0x90, 0x4b, 0x49, 0x60, 0x89,
	};
	static const uint8_t sha256[32] = {
		0x19, 0x01, 0xda, 0x1c, 0x9f, 0x69, 0x9b, 0x48, 0xf6, 0xb2, 0x63,
		0x6e, 0x65, 0xcb, 0xf7, 0x3a, 0xbf, 0x99, 0xd0, 0x44, 0x1e, 0xf6,
		0x7f, 0x5c, 0x54, 0x0a, 0x42, 0xf7, 0x05, 0x1d, 0xec, 0x6f,
	};
	static const uint8_t sha512[64] = {
		0x98, 0x60, 0x58, 0xe9, 0x89, 0x5e, 0x2c, 0x2a, 0xb8, 0xf9, 0xe8,
		0xcb, 0xdf, 0x80, 0x1d, 0xb1, 0x2a, 0x44, 0x84, 0x2a, 0x56, 0xa9,
		0x1d, 0x5a, 0x4e, 0x87, 0xb1, 0xfc, 0x98, 0xb2, 0x93, 0x72, 0x2c,
		0x46, 0x64, 0x14, 0x2e, 0x42, 0xc3, 0xc5, 0x51, 0xff, 0x89, 0x86,
		0x46, 0x26, 0x8c, 0xd9, 0x2b, 0x84, 0xed, 0x23, 0x0b, 0x8c, 0x94,
		0xbe, 0xd7, 0x79, 0x8d, 0x4f, 0x27, 0xcd, 0x74, 0x65,
	};

	if (!selftest_aes(EVP_aes_128_ecb(), aes128))
		return "AES-128";
	if (!selftest_aes(EVP_aes_256_ecb(), aes256))
		return "AES-256";
	if (!selftest_gcm())
		return "AES-128-GCM";
	if (!selftest_digest(EVP_sha256(), sha256))
		return "SHA-256";
	if (!selftest_digest(EVP_sha512(), sha512))
		return "SHA-512";
	return selftest_bignum() ? NULL : "modular exponentiation";
}
#endif /* WT_CRYPTO_NO_OPENSSL */
