# SPDX-License-Identifier: Apache-2.0
from libc.stdint cimport uint8_t, uint32_t

from cext.crypto.crypto cimport aead_job


cdef extern from "crypto/lanes.h" nogil:
    enum:
        CHACHA_BLOCK
        LANES_MAX

    struct block_group:
        uint32_t counter[16]
        uint32_t nonce[3][16]
        const uint8_t *key[16]
        const uint8_t *data "in"[16]
        uint8_t *out[16]
        uint32_t len[16]
        unsigned int n
        bint one_key

    struct poly1305:
        pass

    struct lane_ops:
        unsigned int blocks
        unsigned int run
        unsigned int packets
        size_t long_blocks
        void (*xor_group)(const block_group *g) noexcept nogil
        void (*xor_run)(const uint8_t *key, const uint32_t *nonce, uint32_t counter,
                        const uint8_t *data, uint8_t *out, size_t blocks) noexcept nogil
        void (*poly_long)(poly1305 *p, const uint8_t *data, size_t blocks) noexcept nogil

    struct aead_variant:
        const char *name
        bint (*available)() noexcept nogil
        void (*seal_batch)(const aead_variant *v, aead_job *jobs, size_t n) noexcept nogil
        void (*open_batch)(const aead_variant *v, aead_job *jobs, size_t n) noexcept nogil
        void (*seal)(const aead_variant *v, uint8_t *out, const uint8_t *data, size_t length,
                     const uint8_t *ad, size_t ad_len, const uint8_t *nonce, const uint8_t *key) noexcept nogil
        bint (*open)(const aead_variant *v, uint8_t *out, const uint8_t *data, size_t length,
                     const uint8_t *ad, size_t ad_len, const uint8_t *nonce, const uint8_t *key) noexcept nogil
        const lane_ops *ops

    const aead_variant *const aead_variants[1]  # ends with NULL

    void hchacha20(uint8_t *out, const uint8_t *nonce, const uint8_t *key)
    void poly1305_init(poly1305 *p, const uint8_t *key)
    void poly1305_blocks(poly1305 *p, const uint8_t *data, size_t blocks, unsigned int top)
    void poly1305_final(poly1305 *p, uint8_t *tag)
