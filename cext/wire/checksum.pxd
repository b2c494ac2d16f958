# SPDX-License-Identifier: Apache-2.0
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from "wire/checksum.h" nogil:
    uint64_t checksum_add(uint64_t sum, const void *p, size_t length)
    uint64_t checksum_add_portable(uint64_t sum, const void *p, size_t length)
    bint checksum_is_wide()
    uint64_t checksum_copy(uint64_t sum, void *to, const void *source, size_t length)
    uint64_t checksum_word(uint64_t sum, uint16_t value)
    uint16_t checksum_fold(uint64_t sum)
    bint checksum_valid(uint64_t sum)
    void checksum_store(void *field, uint64_t sum)
    void checksum_store_udp(void *field, uint64_t sum)
    void checksum_store_partial(void *field, uint64_t sum)
    uint64_t checksum_pseudo(const void *addresses, size_t address_len, uint8_t protocol,
                             uint32_t length)
