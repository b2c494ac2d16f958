# SPDX-License-Identifier: Apache-2.0
# The fuzz target of the relay; fuzz.pyx gives it its name.
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t


cdef int run_relay(const uint8_t *data, size_t size) noexcept nogil
