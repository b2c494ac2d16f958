# SPDX-License-Identifier: Apache-2.0
# Each target is deterministic, leaves no memory behind and aborts on a broken invariant.
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t


cdef int fuzz_gso(const uint8_t *data, size_t size) noexcept nogil
cdef int fuzz_gro(const uint8_t *data, size_t size) noexcept nogil
cdef int fuzz_body(const uint8_t *data, size_t size) noexcept nogil
cdef int fuzz_relay(const uint8_t *data, size_t size) noexcept nogil
