# SPDX-License-Identifier: Apache-2.0
"""The flow table, the pools behind it and the rings that flows stand in; see flow.h."""

from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset

from cext.netstack.layout cimport (
    FLOW_SYN_REQUEST, FLOW_TCP, FLOW_TIME_WAIT, FLOW_UDP, NS_NIL, QUEUED_EVENT, QUEUED_READY,
    SYN_FREE, TCP_FREE, address_is_v4, age_list, flow_ref, flow_slot, flow_table, flow_tuple,
    handle_generation, netstack, pool, ref_index, ref_kind, ref_ring, siphash, syn_request,
    tcp_flow, time_wait, udp_flow,
)


# -- table --
cdef int flow_table_create(flow_table *table, uint32_t flows) noexcept nogil:
    cdef uint32_t slots = 16

    while slots < 2 * flows:
        slots *= 2
    table.slot = <flow_slot *> malloc(<size_t> slots * sizeof(flow_slot))
    if table.slot == NULL:
        return -1
    memset(table.slot, 0xff, <size_t> slots * sizeof(flow_slot))
    table.mask = slots - 1
    table.used = 0
    return 0


cdef void flow_table_destroy(flow_table *table) noexcept nogil:
    free(table.slot)
    table.slot = NULL


cdef inline uint32_t hash_tuple(const netstack *s, const flow_tuple *tuple,
                                uint32_t protocol) noexcept nogil:
    cdef uint8_t text[37]

    if address_is_v4(tuple.local):
        memcpy(text, tuple.local + 12, 4)
        memcpy(text + 4, tuple.remote + 12, 4)
        memcpy(text + 8, &tuple.local_port, 4)
        text[12] = <uint8_t> protocol
        return <uint32_t> siphash(s.table.key, text, 13, 1, 3)
    memcpy(text, tuple, 36)
    text[36] = <uint8_t> protocol
    return <uint32_t> siphash(s.table.key, text, 37, 1, 3)


cdef inline const flow_tuple *tuple_of(const netstack *s, uint32_t ref,
                                       uint32_t protocol) noexcept nogil:
    """The tuple behind a reference, NULL when it is of another protocol."""
    cdef uint32_t kind = ref_kind(ref), index = ref_index(ref)

    if kind == FLOW_UDP:
        return &s.udp[index].tuple if s.udp[index].protocol == protocol else NULL
    if protocol != 6:
        return NULL
    if kind == FLOW_TCP:
        return &s.tcp[index].tuple
    if kind == FLOW_SYN_REQUEST:
        return &s.syn[index].tuple
    return &s.time_wait[index].tuple


cdef uint32_t flow_find(const netstack *s, const flow_tuple *tuple,
                        uint32_t protocol) noexcept nogil:
    cdef uint32_t hashed = hash_tuple(s, tuple, protocol)
    cdef uint32_t at = hashed & s.table.mask
    cdef const flow_slot *slot
    cdef const flow_tuple *other

    while True:
        slot = &s.table.slot[at]
        if slot.ref == NS_NIL:
            return NS_NIL
        if slot.hash == hashed:
            other = tuple_of(s, slot.ref, protocol)
            if other != NULL and memcmp(other, tuple, sizeof(flow_tuple)) == 0:
                return slot.ref
        at = (at + 1) & s.table.mask


cdef void flow_insert(netstack *s, const flow_tuple *tuple, uint32_t protocol,
                      uint32_t ref) noexcept nogil:
    cdef uint32_t hashed = hash_tuple(s, tuple, protocol)
    cdef uint32_t at = hashed & s.table.mask

    while s.table.slot[at].ref != NS_NIL:
        at = (at + 1) & s.table.mask
    s.table.slot[at].hash = hashed
    s.table.slot[at].ref = ref
    s.table.used += 1


cdef inline flow_slot *slot_of(netstack *s, const flow_tuple *tuple, uint32_t protocol,
                               uint32_t ref) noexcept nogil:
    cdef uint32_t at = hash_tuple(s, tuple, protocol) & s.table.mask

    while s.table.slot[at].ref != ref:
        if s.table.slot[at].ref == NS_NIL:
            return NULL
        at = (at + 1) & s.table.mask
    return &s.table.slot[at]


cdef void flow_remove(netstack *s, const flow_tuple *tuple, uint32_t protocol,
                      uint32_t ref) noexcept nogil:
    cdef flow_slot *slot = slot_of(s, tuple, protocol, ref)
    cdef uint32_t hole, at, home

    if slot == NULL:
        return
    hole = at = <uint32_t> (slot - s.table.slot)
    # Move back whoever would no longer be found past the hole.
    while True:
        at = (at + 1) & s.table.mask
        if s.table.slot[at].ref == NS_NIL:
            break
        home = s.table.slot[at].hash & s.table.mask
        if ((at - home) & s.table.mask) >= ((at - hole) & s.table.mask):
            s.table.slot[hole] = s.table.slot[at]
            hole = at
    s.table.slot[hole].ref = NS_NIL
    s.table.used -= 1


cdef void flow_replace(netstack *s, const flow_tuple *tuple, uint32_t protocol, uint32_t old,
                       uint32_t new) noexcept nogil:
    cdef flow_slot *slot = slot_of(s, tuple, protocol, old)

    if slot != NULL:
        slot.ref = new


# -- slots --
cdef inline uint32_t *links_of(netstack *s, uint32_t kind, uint32_t index) noexcept nogil:
    """`older` of a slot; `newer` stands right behind it in each kind."""
    if kind == FLOW_TCP:
        return &s.tcp[index].older
    if kind == FLOW_SYN_REQUEST:
        return &s.syn[index].older
    if kind == FLOW_TIME_WAIT:
        return &s.time_wait[index].older
    return &s.udp[index].older


cdef void pool_init(pool *p, uint32_t count) noexcept nogil:
    p.free_head = NS_NIL
    p.fresh = 0
    p.used = 0
    p.count = count


cdef void clear_fresh(netstack *s, uint32_t kind, uint32_t index) noexcept nogil:
    if kind == FLOW_TCP:
        memset(&s.tcp[index], 0, sizeof(tcp_flow))
    elif kind == FLOW_SYN_REQUEST:
        memset(&s.syn[index], 0, sizeof(syn_request))
    elif kind == FLOW_TIME_WAIT:
        memset(&s.time_wait[index], 0, sizeof(time_wait))
    else:
        memset(&s.udp[index], 0, sizeof(udp_flow))


cdef uint32_t pool_take(netstack *s, pool *p, uint32_t kind) noexcept nogil:
    """Take a slot, NS_NIL when none is left; one that was never taken is cleared here, not before:
    what no connection needs is not resident, and costs no time at the start."""
    cdef uint32_t index

    if p.free_head != NS_NIL:
        index = p.free_head
        p.free_head = links_of(s, kind, index)[0]
    elif p.fresh < p.count:
        index = p.fresh
        p.fresh += 1
        clear_fresh(s, kind, index)
    else:
        return NS_NIL
    p.used += 1
    return index


cdef void pool_put(netstack *s, pool *p, uint32_t kind, uint32_t index) noexcept nogil:
    links_of(s, kind, index)[0] = p.free_head
    p.free_head = index
    p.used -= 1


cdef void age_append(netstack *s, age_list *ages, uint32_t kind, uint32_t index) noexcept nogil:
    cdef uint32_t *links = links_of(s, kind, index)

    links[0] = ages.newest
    links[1] = NS_NIL
    if ages.newest != NS_NIL:
        links_of(s, kind, ages.newest)[1] = index
    else:
        ages.oldest = index
    ages.newest = index


cdef void age_remove(netstack *s, age_list *ages, uint32_t kind, uint32_t index) noexcept nogil:
    cdef uint32_t *links = links_of(s, kind, index)

    if links[0] != NS_NIL:
        links_of(s, kind, links[0])[1] = links[1]
    else:
        ages.oldest = links[1]
    if links[1] != NS_NIL:
        links_of(s, kind, links[1])[0] = links[0]
    else:
        ages.newest = links[0]


cdef tcp_flow *tcp_of(netstack *s, uint32_t handle) noexcept nogil:
    cdef uint32_t index = ref_index(handle)
    cdef tcp_flow *t

    if ref_kind(handle) != FLOW_TCP or index >= s.tcp_pool.fresh:
        return NULL
    t = &s.tcp[index]
    if t.state == TCP_FREE or t.generation != handle_generation(handle):
        return NULL
    return t


cdef syn_request *syn_of(netstack *s, uint32_t handle) noexcept nogil:
    cdef uint32_t index = ref_index(handle)
    cdef syn_request *r

    if ref_kind(handle) != FLOW_SYN_REQUEST or index >= s.syn_pool.fresh:
        return NULL
    r = &s.syn[index]
    if r.state == SYN_FREE or r.generation != handle_generation(handle):
        return NULL
    return r


cdef udp_flow *udp_of(netstack *s, uint32_t handle) noexcept nogil:
    cdef uint32_t index = ref_index(handle)
    cdef udp_flow *u

    if ref_kind(handle) != FLOW_UDP or index >= s.udp_pool.fresh:
        return NULL
    u = &s.udp[index]
    if not u.taken or u.generation != handle_generation(handle):
        return NULL
    return u


# -- rings --
cdef int ring_create(ref_ring *ring, uint32_t refs) noexcept nogil:
    cdef uint32_t slots = 16

    while slots < refs:
        slots *= 2
    ring.ref = <uint32_t *> calloc(slots, sizeof(uint32_t))
    ring.mask = slots - 1
    ring.head = ring.tail = 0
    return 0 if ring.ref != NULL else -1


cdef void ring_destroy(ref_ring *ring) noexcept nogil:
    free(ring.ref)
    ring.ref = NULL


cdef void ring_push(ref_ring *ring, uint32_t ref) noexcept nogil:
    ring.ref[ring.tail & ring.mask] = ref
    ring.tail += 1


cdef uint32_t ring_pop(ref_ring *ring) noexcept nogil:
    cdef uint32_t ref

    if ring.head == ring.tail:
        return NS_NIL
    ref = ring.ref[ring.head & ring.mask]
    ring.head += 1
    return ref


cdef void tcp_ready(netstack *s, tcp_flow *t) noexcept nogil:
    if not t.queued & QUEUED_READY:
        t.queued |= QUEUED_READY
        ring_push(&s.ready, <uint32_t> (t - s.tcp))


cdef void tcp_event(netstack *s, tcp_flow *t, uint32_t events) noexcept nogil:
    t.events |= <uint8_t> events
    if not t.queued & QUEUED_EVENT:
        t.queued |= QUEUED_EVENT
        ring_push(&s.events, flow_ref(FLOW_TCP, <uint32_t> (t - s.tcp)))


cdef void syn_event(netstack *s, syn_request *r, uint32_t events) noexcept nogil:
    r.events |= <uint8_t> events
    if not r.queued & QUEUED_EVENT:
        r.queued |= QUEUED_EVENT
        ring_push(&s.events, flow_ref(FLOW_SYN_REQUEST, <uint32_t> (r - s.syn)))


cdef void udp_event(netstack *s, udp_flow *u, uint32_t events) noexcept nogil:
    u.events |= <uint8_t> events
    if not u.queued & QUEUED_EVENT:
        u.queued |= QUEUED_EVENT
        ring_push(&s.events, flow_ref(FLOW_UDP, <uint32_t> (u - s.udp)))
