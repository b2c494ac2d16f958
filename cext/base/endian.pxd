# SPDX-License-Identifier: Apache-2.0
from libc.stdint cimport uint16_t, uint32_t, uint64_t


cdef extern from "base/endian.h" nogil:
    uint16_t load_le16(const void *p)
    uint32_t load_le32(const void *p)
    uint64_t load_le64(const void *p)
    uint16_t load_be16(const void *p)
    uint32_t load_be32(const void *p)
    uint64_t load_be64(const void *p)
    void store_le16(void *p, uint16_t v)
    void store_le32(void *p, uint32_t v)
    void store_le64(void *p, uint64_t v)
    void store_be16(void *p, uint16_t v)
    void store_be32(void *p, uint32_t v)
    void store_be64(void *p, uint64_t v)
