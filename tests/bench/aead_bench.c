/* SPDX-License-Identifier: Apache-2.0 */
/* The timing loops of `make bench-aead`: prints one sample a line, aead.py does the rest. */
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

static void once(const char *who, bool seal, size_t n)
{
	if (!strcmp(who, "EVP"))
		library_openssl(seal);
#ifdef WITH_SODIUM
	else if (!strcmp(who, "libsodium"))
		library_sodium(seal);
#endif
	else
		ours(seal, n);
}

static void sample(const char *who, bool seal, size_t n)
{
	uint64_t start, spent, passes = 0;

	if (!strcmp(who, "EVP"))
		EVP_CipherInit_ex(evp, NULL, NULL, key, NULL, seal);
	else if (strcmp(who, "libsodium") && crypto_select(who))
		fail("no such variant");
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

/* argv: rounds, then the contenders */
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
	for (int round = 0; round < rounds; round++) {
		for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
			struct aead_job jobs[BATCH];

			len = sizes[s];
			stride = len + 32;
			for (size_t i = 0; i < BATCH; i++)
				jobs[i] = (struct aead_job){ .key = key, .counter = i,
							     .in = plain + i * stride,
							     .out = sealed + i * stride,
							     .len = (uint32_t)len };
			aead_seal_batch(jobs, BATCH);
			for (int i = 2; i < argc; i++) {
				bool library = !strcmp(argv[i], "EVP") || !strcmp(argv[i], "libsodium");

				for (int open = 0; open < 2; open++) {
					sample(argv[i], !open, 1);
					if (!library)
						sample(argv[i], !open, BATCH);
				}
			}
		}
		x25519_samples();
		blake2s_samples();
	}
	return 0;
}
