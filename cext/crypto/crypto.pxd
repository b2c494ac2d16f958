# SPDX-License-Identifier: Apache-2.0
from libc.stdint cimport uint8_t, uint32_t, uint64_t


cdef extern from "crypto/crypto.h" nogil:
    enum:
        AEAD_KEY_LEN
        AEAD_TAG_LEN
        AEAD_BATCH_MAX
        XAEAD_NONCE_LEN
        X25519_LEN
        BLAKE2S_LEN

    struct aead_job:
        const uint8_t *key
        uint64_t counter
        const uint8_t *data "in"
        uint8_t *out
        uint32_t len
        bint ok

    struct blake2s_state:
        pass

    void aead_seal_batch(aead_job *jobs, size_t n)
    void aead_open_batch(aead_job *jobs, size_t n)
    void aead_seal(uint8_t *out, const uint8_t *data, size_t length, const uint8_t *ad,
                   size_t ad_len, const uint8_t *nonce, const uint8_t *key)
    bint aead_open(uint8_t *out, const uint8_t *data, size_t length, const uint8_t *ad,
                   size_t ad_len, const uint8_t *nonce, const uint8_t *key)
    void xaead_seal(uint8_t *out, const uint8_t *data, size_t length, const uint8_t *ad,
                    size_t ad_len, const uint8_t *nonce, const uint8_t *key)
    bint xaead_open(uint8_t *out, const uint8_t *data, size_t length, const uint8_t *ad,
                    size_t ad_len, const uint8_t *nonce, const uint8_t *key)
    bint x25519(uint8_t *out, const uint8_t *secret, const uint8_t *point)
    void x25519_public(uint8_t *out, const uint8_t *secret)
    void blake2s_init(blake2s_state *s, size_t out_len, const uint8_t *key, size_t key_len)
    void blake2s_update(blake2s_state *s, const uint8_t *data, size_t length)
    void blake2s_final(blake2s_state *s, uint8_t *out)
    void blake2s(uint8_t *out, size_t out_len, const uint8_t *data, size_t length,
                 const uint8_t *key, size_t key_len)
    void hmac_blake2s(uint8_t *out, const uint8_t *key, size_t key_len, const uint8_t *data,
                      size_t length)
    void kdf(uint8_t *out, unsigned int n, const uint8_t *chaining_key, const uint8_t *data,
             size_t length)
    int crypto_init()
    const char *selftest_library()
    const char *crypto_backend()
    int crypto_select(const char *name)
    const char *crypto_variant(size_t i)
