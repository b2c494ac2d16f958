# SPDX-License-Identifier: Apache-2.0
# Fuzz targets of the room; each aborts when an invariant is broken.
from libc.stdint cimport uint8_t


# One packet of any kind, to a stack that admits everything.
cdef int fuzz_packet(const uint8_t *data, size_t size) noexcept nogil
# TCP options and header alone.
cdef int fuzz_tcp_header(const uint8_t *data, size_t size) noexcept nogil
# A sequence of fragments.
cdef int fuzz_reassembly(const uint8_t *data, size_t size) noexcept nogil
# A connection under a sequence of segments, timers and wishes of the consumer.
cdef int fuzz_tcp(const uint8_t *data, size_t size) noexcept nogil
# Two stacks, a network that does its worst, and streams compared with what was written.
cdef int fuzz_tcp_pair(const uint8_t *data, size_t size) noexcept nogil
