# SPDX-License-Identifier: Apache-2.0
# Two stacks and the links between them; not part of the firmware.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cext.netstack.layout cimport ns_packet
from cext.netstack.testing cimport Stack


cdef struct wire_packet:
    uint64_t at_ns
    uint64_t order
    uint32_t length
    uint8_t *data

cdef struct link:
    uint64_t delay_ns
    uint64_t jitter_ns
    uint64_t rate_bit_s
    uint64_t queue_bytes
    uint64_t free_at_ns
    uint64_t order
    uint32_t loss_ppm
    uint32_t duplicate_ppm
    uint32_t reorder_ppm
    uint32_t corrupt_ppm
    uint64_t reorder_ns
    uint64_t sent
    uint64_t lost
    uint64_t overflowed
    uint32_t n
    uint32_t capacity
    uint32_t *heap
    uint32_t *spare
    uint32_t spares
    wire_packet *packet


cdef class Network:
    cdef:
        readonly Stack a
        readonly Stack b
        link ab
        link ba
        uint64_t random_state
        readonly uint64_t now_ns
        uint64_t steps

    cdef void carry(self, link *l, const ns_packet *p) noexcept nogil
    cdef void deliver(self, link *l, Stack to) noexcept nogil
    cdef void flush(self, Stack source, link *l) noexcept nogil
    cdef int step(self) noexcept nogil
