# SPDX-License-Identifier: Apache-2.0
# Each target is deterministic, leaves no memory behind and aborts on a broken invariant.
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t


cdef int fuzz_ip(const uint8_t *data, size_t size) noexcept nogil
