# SPDX-License-Identifier: Apache-2.0
# A stack under test; not part of the firmware.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cext.netstack.layout cimport netstack, ns_host, ns_limits


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


cdef class Stack:
    cdef:
        netstack *s
        ns_limits limits
        ns_host host
        app native
        bint is_native
        uint64_t random_state
        uint64_t now_ns
        uint64_t parts_calls
        public dict received
        public list datagrams
        public list errors
        public object admit
        public object take

    cdef uint64_t next_random(self) noexcept nogil
    cdef void count_parts(self) noexcept nogil
    cdef void app_events(self) noexcept nogil
    cdef void app_push(self, app_flow *f) noexcept nogil
    cdef uint32_t app_new(self, uint32_t handle, uint64_t to_send) noexcept nogil
    cdef void app_resume(self) noexcept nogil
    cdef bint app_stalls(self) noexcept nogil


# 0, or the number of the first invariant that a flow breaks.
cdef int stack_check(netstack *s) noexcept nogil

# The next of the generator that every choice of a test comes from.
cdef inline uint64_t splitmix(uint64_t *state) noexcept nogil:
    cdef uint64_t z

    state[0] += 0x9e3779b97f4a7c15u
    z = state[0]
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu
    return z ^ (z >> 31)
