/* SPDX-License-Identifier: Apache-2.0 */
/* The loops of `make bench-aead`: aead.py times them, aead_foreign.py counts instructions. */
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#ifdef WITH_SODIUM
#include <sodium.h>
#endif

#include "base/endian.h"
#include "crypto/crypto.h"

#define BATCH 40
#define SAMPLE_NS 1500000

static const size_t sizes[] = { 64, 256, 1420, 16384 };

static uint8_t key[32];
static uint8_t *plain, *sealed, *opened;
static size_t len, stride;
static uint64_t counter;
static EVP_CIPHER_CTX *evp;

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void fail(const char *what)
{
	fprintf(stderr, "aead_bench: %s\n", what);
	exit(1);
}

/* Packet i of a batch always has counter i when it is to be opened. */
static void ours(bool seal, size_t n)
{
	struct aead_job jobs[BATCH];

	for (size_t i = 0; i < BATCH; i += n) {
		for (size_t k = 0; k < n; k++) {
			size_t at = (i + k) * stride;

			jobs[k].key = key;
			jobs[k].counter = seal ? counter++ : i + k;
			jobs[k].in = (seal ? plain : sealed) + at;
			jobs[k].out = opened + at;
			jobs[k].len = (uint32_t)len;
		}
		if (seal) {
			aead_seal_batch(jobs, n);
			continue;
		}
		aead_open_batch(jobs, n);
		for (size_t k = 0; k < n; k++)
			if (!jobs[k].ok)
				fail("open refused a good packet");
	}
}

static void library_openssl(bool seal)
{
	uint8_t nonce[12] = { 0 };
	int n;

	for (size_t i = 0; i < BATCH; i++) {
		size_t at = i * stride;

		store_le64(nonce + 4, seal ? counter++ : i);
		if (seal) {
			if (!EVP_EncryptInit_ex(evp, NULL, NULL, NULL, nonce) ||
			    !EVP_EncryptUpdate(evp, opened + at, &n, plain + at, (int)len) ||
			    !EVP_EncryptFinal_ex(evp, opened + at + len, &n) ||
			    !EVP_CIPHER_CTX_ctrl(evp, EVP_CTRL_AEAD_GET_TAG, 16, opened + at + len))
				fail("EVP seal");
		} else if (!EVP_DecryptInit_ex(evp, NULL, NULL, NULL, nonce) ||
			   !EVP_CIPHER_CTX_ctrl(evp, EVP_CTRL_AEAD_SET_TAG, 16, sealed + at + len) ||
			   !EVP_DecryptUpdate(evp, opened + at, &n, sealed + at, (int)len) ||
			   !EVP_DecryptFinal_ex(evp, opened + at + len, &n)) {
			fail("EVP open");
		}
	}
}

#ifdef WITH_SODIUM
static void library_sodium(bool seal)
{
	uint8_t nonce[12] = { 0 };

	for (size_t i = 0; i < BATCH; i++) {
		size_t at = i * stride;

		store_le64(nonce + 4, seal ? counter++ : i);
		if (seal)
			crypto_aead_chacha20poly1305_ietf_encrypt(opened + at, NULL, plain + at, len,
								  NULL, 0, NULL, nonce, key);
		else if (crypto_aead_chacha20poly1305_ietf_decrypt(opened + at, NULL, NULL,
								   sealed + at, len + 16, NULL, 0,
								   nonce, key))
			fail("sodium open");
	}
}
#endif

#ifdef WITH_LIBCRYPTO_CORE
/* What EVP calls at the bottom; only a static libcrypto lets us name them. */
void ChaCha20_ctr32(unsigned char *out, const unsigned char *in, size_t len,
		    const unsigned int k[8], const unsigned int c[4]);
void Poly1305_Init(void *state, const unsigned char k[32]);
void Poly1305_Update(void *state, const unsigned char *in, size_t len);
void Poly1305_Final(void *state, unsigned char mac[16]);
size_t Poly1305_ctx_size(void);

/* The least that libcrypto can do for a packet: no context, no parameters, no checks. */
static void library_core(bool seal)
{
	static const uint8_t zeros[64];
	static uint64_t state[64];
	unsigned int k[8], c[4] = { 0 };
	uint8_t block0[64], lengths[16], tag[16];

	if (Poly1305_ctx_size() > sizeof(state))
		fail("libcrypto's Poly1305 state grew");
	for (int i = 0; i < 8; i++)
		k[i] = load_le32(key + 4 * i);
	for (size_t i = 0; i < BATCH; i++) {
		uint8_t *out = opened + i * stride, *in = (seal ? plain : sealed) + i * stride;
		const uint8_t *text = seal ? out : in;
		uint64_t nonce = seal ? counter++ : i;

		c[2] = (unsigned int)nonce;
		c[3] = (unsigned int)(nonce >> 32);
		c[0] = 0;
		ChaCha20_ctr32(block0, zeros, sizeof(block0), k, c);
		c[0] = 1;
		Poly1305_Init(state, block0);
		if (seal)
			ChaCha20_ctr32(out, in, len, k, c);
		Poly1305_Update(state, text, len);
		Poly1305_Update(state, zeros, -len % 16);
		store_le64(lengths, 0);
		store_le64(lengths + 8, len);
		Poly1305_Update(state, lengths, sizeof(lengths));
		Poly1305_Final(state, tag);
		if (seal)
			memcpy(out + len, tag, sizeof(tag));
		else if (CRYPTO_memcmp(tag, in + len, sizeof(tag)))
			fail("libcrypto's core refused a good packet");
		else
			ChaCha20_ctr32(out, in, len, k, c);
	}
}
#endif

static void once(const char *who, bool seal, size_t n)
{
	if (!strcmp(who, "EVP"))
		library_openssl(seal);
#ifdef WITH_LIBCRYPTO_CORE
	else if (!strcmp(who, "core"))
		library_core(seal);
#endif
#ifdef WITH_SODIUM
	else if (!strcmp(who, "libsodium"))
		library_sodium(seal);
#endif
	else
		ours(seal, n);
}

static bool is_library(const char *who)
{
	return !strcmp(who, "EVP") || !strcmp(who, "libsodium") || !strcmp(who, "core");
}

static void choose(const char *who, bool seal)
{
	if (!strcmp(who, "EVP"))
		EVP_CipherInit_ex(evp, NULL, NULL, key, NULL, seal);
	else if (!is_library(who) && crypto_select(who))
		fail("no such variant");
}

static void sample(const char *who, bool seal, size_t n)
{
	uint64_t start, spent, passes = 0;

	choose(who, seal);
	once(who, seal, n);
	start = now_ns();
	do {
		once(who, seal, n);
		passes++;
		spent = now_ns() - start;
	} while (spent < SAMPLE_NS);
	printf("%s %s %zu %zu %.2f\n", who, seal ? "seal" : "open", n, len,
	       (double)spent / (double)(passes * BATCH));
}

static void x25519_samples(void)
{
	uint8_t secret[32] = { 9 }, point[32], out[32];
	uint64_t start = now_ns(), n = 0;

	x25519_public(point, secret);
	do {
		x25519(out, secret, point);
		n++;
	} while (now_ns() - start < 4 * SAMPLE_NS);
	printf("x25519 shared 1 32 %.2f\n", (double)(now_ns() - start) / (double)n);
}

static void blake2s_samples(void)
{
	uint8_t message[148] = { 1 }, mac[16];
	uint64_t start = now_ns(), n = 0;
	size_t used;
	EVP_MAC *mac_type = EVP_MAC_fetch(NULL, "BLAKE2SMAC", NULL);
	EVP_MAC_CTX *c = EVP_MAC_CTX_new(mac_type);

	/* The clock costs as much as a MAC: look at it rarely. */
	do {
		blake2s(mac, sizeof(mac), message, 116, key, 32);
		n++;
	} while (n % 64 || now_ns() - start < SAMPLE_NS);
	printf("ours mac1 1 116 %.2f\n", (double)(now_ns() - start) / (double)n);
	start = now_ns();
	n = 0;
	do {
		size_t out_len = 16;
		OSSL_PARAM params[] = { OSSL_PARAM_construct_size_t("size", &out_len),
					OSSL_PARAM_construct_end() };

		EVP_MAC_init(c, key, 32, params);
		EVP_MAC_update(c, message, 116);
		EVP_MAC_final(c, mac, &used, sizeof(mac));
		n++;
	} while (n % 64 || now_ns() - start < SAMPLE_NS);
	printf("EVP mac1 1 116 %.2f\n", (double)(now_ns() - start) / (double)n);
	EVP_MAC_CTX_free(c);
	EVP_MAC_free(mac_type);
}

/* Sealed packets of @bytes each, for opening. */
static void set_size(size_t bytes)
{
	struct aead_job jobs[BATCH];

	len = bytes;
	stride = len + 32;
	for (size_t i = 0; i < BATCH; i++)
		jobs[i] = (struct aead_job){ .key = key, .counter = i, .in = plain + i * stride,
					     .out = sealed + i * stride, .len = (uint32_t)len };
	aead_seal_batch(jobs, BATCH);
}

/* What is to be counted from outside: @passes over the batch, and nothing printed. */
static int count(char **argv)
{
	const char *who = argv[0];
	bool seal = !strcmp(argv[1], "seal");
	size_t n = (size_t)atoi(argv[2]);

	set_size((size_t)atoi(argv[3]));
	choose(who, seal);
	for (int passes = atoi(argv[4]); passes; passes--)
		once(who, seal, n);
	return 0;
}

/*
 * argv: rounds, then the contenders;
 * or "count", contender, seal or open, packets in a call, bytes, passes
 */
int main(int argc, char **argv)
{
	size_t room = BATCH * (16384 + 32) + 64;
	int rounds = argc > 1 ? atoi(argv[1]) : 5;

	plain = calloc(3, room);
	evp = EVP_CIPHER_CTX_new();
	if (!plain || !evp || !EVP_CipherInit_ex(evp, EVP_chacha20_poly1305(), NULL, NULL, NULL, 1))
		fail("out of memory");
	sealed = plain + room;
	opened = sealed + room;
	for (size_t i = 0; i < sizeof(key); i++)
		key[i] = (uint8_t)(7 * i + 1);
	for (size_t i = 0; i < room; i++)
		plain[i] = (uint8_t)(i * 11);
#ifdef WITH_SODIUM
	if (sodium_init() < 0)
		fail("sodium_init");
#endif
	if (crypto_init())
		fail("a known answer failed");
	if (argc == 7 && !strcmp(argv[1], "count"))
		return count(argv + 2);
	for (int round = 0; round < rounds; round++) {
		for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
			set_size(sizes[s]);
			for (int i = 2; i < argc; i++) {
				for (int open = 0; open < 2; open++) {
					sample(argv[i], !open, 1);
					if (!is_library(argv[i]))
						sample(argv[i], !open, BATCH);
				}
			}
		}
		x25519_samples();
		blake2s_samples();
	}
	return 0;
}
