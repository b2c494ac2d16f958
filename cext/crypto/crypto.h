/* SPDX-License-Identifier: Apache-2.0 */
/* The one seam between the protocol and cryptographic code. */
#ifndef WT_CRYPTO_CRYPTO_H
#define WT_CRYPTO_CRYPTO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define AEAD_KEY_LEN 32
#define AEAD_TAG_LEN 16
#define AEAD_BATCH_MAX 128
#define XAEAD_NONCE_LEN 24
#define X25519_LEN 32
#define BLAKE2S_LEN 32

/**
 * struct aead_job - One packet of a batch
 * @key:	32 bytes; jobs of one batch may have different keys
 * @counter:	Nonce: 4 zero bytes, then this as 64-bit little endian
 * @in:		Seal: @len bytes of plaintext.  Open: @len bytes of ciphertext
 *		followed by the tag
 * @out:	Seal: gets @len bytes of ciphertext, the 16-byte tag behind them.
 *		Open: gets @len bytes of plaintext, only after the tag was found
 *		right.  Either equal to @in or not overlapping it
 * @len:	Bytes of plaintext, without the tag; 0 is legal
 * @ok:		Open: set to whether the tag was right.  When it was not, @out is
 *		left as it was (never plaintext)
 *
 * No associated data: WireGuard's transport packets have none.
 */
struct aead_job {
	const uint8_t *key;
	uint64_t counter;
	const uint8_t *in;
	uint8_t *out;
	uint32_t len;
	bool ok;
};

/** aead_seal_batch() - Seal @n <= AEAD_BATCH_MAX jobs; any mix of keys and lengths */
void aead_seal_batch(struct aead_job *jobs, size_t n);

/** aead_open_batch() - Authenticate, then decrypt, @n <= AEAD_BATCH_MAX jobs */
void aead_open_batch(struct aead_job *jobs, size_t n);

/* RFC 8439 with associated data; out may equal in; seal writes len + 16 bytes. */
void aead_seal(uint8_t *out, const uint8_t *in, size_t len, const uint8_t *ad, size_t ad_len,
	       const uint8_t nonce[12], const uint8_t key[AEAD_KEY_LEN]);
/* len counts the tag; returns false and writes nothing when the tag is wrong. */
bool aead_open(uint8_t *out, const uint8_t *in, size_t len, const uint8_t *ad, size_t ad_len,
	       const uint8_t nonce[12], const uint8_t key[AEAD_KEY_LEN]);

/* draft-irtf-cfrg-xchacha-03, the cookie reply's AEAD. */
void xaead_seal(uint8_t *out, const uint8_t *in, size_t len, const uint8_t *ad, size_t ad_len,
		const uint8_t nonce[XAEAD_NONCE_LEN], const uint8_t key[AEAD_KEY_LEN]);
bool xaead_open(uint8_t *out, const uint8_t *in, size_t len, const uint8_t *ad, size_t ad_len,
		const uint8_t nonce[XAEAD_NONCE_LEN], const uint8_t key[AEAD_KEY_LEN]);

/* RFC 7748.  False when the result is all zero (low-order point): emit nothing then. */
bool x25519(uint8_t out[X25519_LEN], const uint8_t secret[X25519_LEN],
	    const uint8_t point[X25519_LEN]);
void x25519_public(uint8_t out[X25519_LEN], const uint8_t secret[X25519_LEN]);

/* RFC 7693; key may be NULL with key_len 0; 1 <= out_len <= 32, key_len <= 32. */
struct blake2s_state {
	uint32_t h[8], t[2];
	uint32_t filled, out_len;
	uint8_t block[64];
};
void blake2s_init(struct blake2s_state *s, size_t out_len, const uint8_t *key, size_t key_len);
void blake2s_update(struct blake2s_state *s, const uint8_t *in, size_t len);
void blake2s_final(struct blake2s_state *s, uint8_t *out);
void blake2s(uint8_t *out, size_t out_len, const uint8_t *in, size_t len, const uint8_t *key,
	     size_t key_len);
/* HMAC-BLAKE2s (RFC 2104), 32 bytes. */
void hmac_blake2s(uint8_t out[BLAKE2S_LEN], const uint8_t *key, size_t key_len, const uint8_t *in,
		  size_t len);
/* Noise HKDF / WireGuard KDF_n: writes n (1 to 3) outputs of 32 bytes each. */
void kdf(uint8_t *out, unsigned int n, const uint8_t chaining_key[BLAKE2S_LEN], const uint8_t *in,
	 size_t len);

/** crypto_init() - Choose the variant for this CPU, run known answers; else the first use does
 *
 * Return: 0, or -1 when a known answer failed (then nothing of ours may start)
 */
int crypto_init(void);

#ifndef WT_CRYPTO_NO_OPENSSL
/** selftest_library() - Known answers of what TLS takes from OpenSSL: AES, GCM, SHA-2, bignums
 *
 * For a finished executable to be asked; crypto_init() covers what the tunnel uses.
 *
 * Return: NULL, or what came out wrong
 */
const char *selftest_library(void);
#endif

/** crypto_backend() - What crypto_init() chose, e.g. "avx512ifma", "neon", "portable" */
const char *crypto_backend(void);

/** crypto_select() - For tests and benchmarks: force a variant by name ("openssl" too)
 *
 * Return: 0, or -1 when this CPU or build lacks it
 */
int crypto_select(const char *name);

/** crypto_variant() - Name of the @i-th variant that this CPU runs, fastest first; or NULL */
const char *crypto_variant(size_t i);

#endif /* WT_CRYPTO_CRYPTO_H */
