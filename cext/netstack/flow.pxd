# SPDX-License-Identifier: Apache-2.0
# Finding flows, taking and returning their slots, lists by age, rings of references.
from libc.stdint cimport int32_t, uint32_t

from cext.netstack.layout cimport (
    age_list, flow_table, flow_tuple, netstack, pool, ref_ring, syn_request, tcp_flow, udp_flow,
)


# -- table --
cdef int flow_table_create(flow_table *table, uint32_t flows) noexcept nogil
cdef void flow_table_destroy(flow_table *table) noexcept nogil
# The reference, or NS_NIL. `protocol` is the IP protocol number.
cdef uint32_t flow_find(const netstack *s, const flow_tuple *tuple,
                        uint32_t protocol) noexcept nogil
# The caller knows that the tuple is not there.
cdef void flow_insert(netstack *s, const flow_tuple *tuple, uint32_t protocol,
                      uint32_t ref) noexcept nogil
cdef void flow_remove(netstack *s, const flow_tuple *tuple, uint32_t protocol,
                      uint32_t ref) noexcept nogil
# The same tuple, now held by another kind.
cdef void flow_replace(netstack *s, const flow_tuple *tuple, uint32_t protocol, uint32_t old,
                       uint32_t new) noexcept nogil

# -- slots --
cdef void pool_init(pool *p, uint32_t count) noexcept nogil
cdef uint32_t pool_take(netstack *s, pool *p, uint32_t kind) noexcept nogil
cdef void pool_put(netstack *s, pool *p, uint32_t kind, uint32_t index) noexcept nogil
cdef void age_append(netstack *s, age_list *ages, uint32_t kind, uint32_t index) noexcept nogil
cdef void age_remove(netstack *s, age_list *ages, uint32_t kind, uint32_t index) noexcept nogil
# The slot that a handle names, or NULL when it is of another kind, stale or free.
cdef tcp_flow *tcp_of(netstack *s, uint32_t handle) noexcept nogil
cdef syn_request *syn_of(netstack *s, uint32_t handle) noexcept nogil
cdef udp_flow *udp_of(netstack *s, uint32_t handle) noexcept nogil

# -- rings --
cdef int ring_create(ref_ring *ring, uint32_t refs) noexcept nogil
cdef void ring_destroy(ref_ring *ring) noexcept nogil
cdef void ring_push(ref_ring *ring, uint32_t ref) noexcept nogil
cdef uint32_t ring_pop(ref_ring *ring) noexcept nogil
# Let ns_next_packets() look at a flow.
cdef void tcp_ready(netstack *s, tcp_flow *t) noexcept nogil
# Raise events of a flow; a flow stands in the ring at most once.
cdef void tcp_event(netstack *s, tcp_flow *t, uint32_t events) noexcept nogil
cdef void syn_event(netstack *s, syn_request *r, uint32_t events) noexcept nogil
cdef void udp_event(netstack *s, udp_flow *u, uint32_t events) noexcept nogil


# -- numbers --
cdef inline uint32_t tcp_index(const netstack *s, const tcp_flow *t) noexcept nogil:
    return <uint32_t> (t - s.tcp)


cdef inline uint32_t syn_index(const netstack *s, const syn_request *r) noexcept nogil:
    return <uint32_t> (r - s.syn)


cdef inline uint32_t udp_index(const netstack *s, const udp_flow *u) noexcept nogil:
    return <uint32_t> (u - s.udp)


cdef inline uint32_t random_u32(const netstack *s) noexcept nogil:
    cdef uint32_t value = 0

    s.host.random(s.host.context, &value, sizeof(value))
    return value


# A time or a sequence number in 32 bits lies at or after another.
cdef inline bint at_or_after(uint32_t a, uint32_t b) noexcept nogil:
    return <int32_t> (a - b) >= 0
