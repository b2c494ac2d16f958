# SPDX-License-Identifier: Apache-2.0
# Harnesses of the netstack's tests; not part of the firmware.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cext.netstack.layout cimport netstack, ns_host, ns_limits, ns_packet, wheel


# A byte stream that an application of the simulation sends and expects.
cdef struct app_flow:
    uint32_t handle
    uint32_t state
    uint64_t to_send
    uint64_t sent
    uint64_t received
    bint stalled
    bint peer_closed
    bint shut

cdef struct app:
    app_flow *flow
    uint32_t flows
    uint32_t capacity
    uint32_t open
    uint32_t finished
    uint32_t failed
    uint64_t server_bytes
    uint64_t received
    uint64_t mismatches
    uint32_t space
    uint32_t stall_permille
    uint32_t chunk

cdef struct wire_packet:
    uint64_t at_ns
    uint64_t order
    uint32_t length

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
    uint8_t *bytes


cdef class Stack:
    cdef:
        netstack *s
        ns_limits limits
        ns_host host
        app native
        bint is_native
        uint64_t random_state
        uint64_t now_ns
        public dict received
        public list datagrams
        public list errors
        public object admit
        public object take

    cdef uint64_t next_random(self) noexcept nogil
    cdef void app_events(self) noexcept nogil
    cdef void app_push(self, app_flow *f) noexcept nogil
    cdef uint32_t app_new(self, uint32_t handle, uint64_t to_send) noexcept nogil
    cdef void app_resume(self) noexcept nogil
    cdef bint app_stalls(self) noexcept nogil


cdef class Wheel:
    cdef wheel w


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


# 0, or the number of the first invariant that a flow breaks.
cdef int stack_check(netstack *s) noexcept nogil
