# SPDX-License-Identifier: Apache-2.0
from libc.stdint cimport uint8_t


cdef int fuzz_aead(const uint8_t *data, size_t size) noexcept nogil
cdef int fuzz_blake2s(const uint8_t *data, size_t size) noexcept nogil
