/* SPDX-License-Identifier: Apache-2.0 */
/* What one implementation of the AEAD offers to the dispatcher; private to this room. */
#ifndef WT_CRYPTO_VARIANT_H
#define WT_CRYPTO_VARIANT_H

#include "crypto/crypto.h"

#define AEAD_NONCE_LEN 12

struct lane_ops;

/**
 * struct aead_variant - One way to do ChaCha20-Poly1305
 * @name:	As crypto_select() and crypto_backend() spell it
 * @available:	Whether this CPU and this build can run it
 * @seal_batch:	See aead_seal_batch()
 * @open_batch:	See aead_open_batch()
 * @seal:	See aead_seal()
 * @open:	See aead_open(), with the length of the plaintext
 * @ops:	What the driver in lanes.c calls; NULL where the driver is not used
 *
 * The functions get the variant itself, so that all that use the driver share
 * its functions and differ in @ops only.
 */
struct aead_variant {
	const char *name;
	bool (*available)(void);
	void (*seal_batch)(const struct aead_variant *v, struct aead_job *jobs, size_t n);
	void (*open_batch)(const struct aead_variant *v, struct aead_job *jobs, size_t n);
	void (*seal)(const struct aead_variant *v, uint8_t *out, const uint8_t *in, size_t len,
		     const uint8_t *ad, size_t ad_len, const uint8_t *nonce, const uint8_t *key);
	bool (*open)(const struct aead_variant *v, uint8_t *out, const uint8_t *in, size_t len,
		     const uint8_t *ad, size_t ad_len, const uint8_t *nonce, const uint8_t *key);
	const struct lane_ops *ops;
};

#ifndef WT_CRYPTO_NO_OPENSSL
extern const struct aead_variant aead_openssl;
#endif
#ifdef __x86_64__
extern const struct aead_variant aead_avx512ifma;
extern const struct aead_variant aead_avx2;
#endif
/* AArch64 always has NEON; an ARMv7 CPU says so at run time. */
#if (defined(__aarch64__) || (defined(__arm__) && __ARM_ARCH >= 7)) && \
	__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define WT_CRYPTO_NEON
extern const struct aead_variant aead_neon;
#endif
extern const struct aead_variant aead_portable;

/* All variants of this build, in the order of preference; ends with NULL. */
extern const struct aead_variant *const aead_variants[];

/* The first half of XChaCha20: 32 bytes of subkey from a key and 16 bytes of nonce. */
void hchacha20(uint8_t out[32], const uint8_t nonce[16], const uint8_t key[AEAD_KEY_LEN]);

/* Known answers, one set for each variant: true when all are right. */
bool selftest_aead(const struct aead_variant *v);
bool selftest_hashes(void);
bool selftest_x25519(void);

#endif /* WT_CRYPTO_VARIANT_H */
