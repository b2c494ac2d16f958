# SPDX-License-Identifier: Apache-2.0
"""UDP conversations and echo identifiers, one small flow each.

Theory of operation
-------------------
A flow is made by the first datagram from the tunnel that a listener or
host.admit() lets in (NS_EVENT_OPENED), or by ns_open_datagram(). Datagrams go
to host.datagram() at once; nothing is queued. Silence in both directions for
idle_s ends it: NS_EVENT_CLOSED, and the slot is free again once the consumer
has called ns_close().

So that there is a free slot when one is wanted, a flow is told to end as soon as fewer
than a 64th are left: that which was idle longest of the peer that has most of them. Who
opens one has that done to himself unless another has at least two more, so no peer ends
flows of one that has as few as he has: neither fills the table nor sweeps the others out.

Endpoint-independent mapping (RFC 4787) is the consumer's: it may use one host
socket for all flows of one tunnel address and port.

    taken:  FREE -> ACTIVE (we opened it) | PASSIVE (the tunnel did) -> ENDED -> FREE
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memset

from cext.base.drops cimport drop
from cext.base.endian cimport load_be16, store_be16
from cext.netstack.flow cimport (
    age_append, age_remove, flow_find, flow_insert, flow_remove, pool_put, pool_take, udp_event,
    udp_index,
)
from cext.netstack.icmp cimport icmp_refuse, icmp_send_echo
from cext.netstack.ip cimport ip_addresses, ip_is_ours, ip_pseudo, ip_send
from cext.netstack.layout cimport (
    FLOW_GENERATION_MASK, FLOW_UDP, NS_DIAL, NS_EVENT_CLOSED, NS_EVENT_OPENED, NS_FULL, NS_INVALID,
    NS_NIL, NS_OK, NS_REASSEMBLED_MAX, NS_REFUSE_PORT, NS_REFUSE_PROHIBITED, NS_REFUSE_SILENT,
    NS_REJECT, NS_UDP_BUCKETS, flow_handle, flow_ref, flow_tuple, icmp_error, netstack,
    ns_datagram, ns_listener, ref_index, udp_flow, udp_peer,
)
from cext.netstack.wheel cimport wheel_arm, wheel_cancel
from cext.wire.checksum cimport checksum_add, checksum_store_udp, checksum_valid
from cext.wire.ip cimport (
    ICMP_LEN, IPV4_TTL, IPV6_HOP_LIMIT, IPV6_LEN, IP_PROTOCOL_ICMP, IP_PROTOCOL_ICMPV6,
    IP_PROTOCOL_UDP, UDP_CHECKSUM, UDP_LEN, UDP_LENGTH, ip_info,
)


cdef extern from "base/drops.h" nogil:
    enum:
        DROP_NS_BAD_CHECKSUM
        DROP_NS_BAD_HEADER
        DROP_NS_DENIED
        DROP_NS_FLOW_TABLE_FULL
        DROP_NS_NO_LISTENER

cdef enum:
    FREE = 0
    ACTIVE = 1
    PASSIVE = 2
    ENDED = 3
    DNS_PORT = 53


cdef uint32_t udp_handle(const netstack *s, const udp_flow *u) noexcept nogil:
    return flow_handle(FLOW_UDP, udp_index(s, u), u.generation)


cdef inline uint32_t timer_of(const netstack *s, const udp_flow *u) noexcept nogil:
    return s.limits.tcp_flows + s.limits.syn_requests + udp_index(s, u)


# -- whose they are --
cdef inline uint32_t *bucket_of(netstack *s, uint32_t peer) noexcept nogil:
    return &s.udp_bucket[(peer ^ peer >> 6 ^ peer >> 12) % NS_UDP_BUCKETS]


cdef udp_peer *owner_find(netstack *s, uint32_t peer) noexcept nogil:
    """NULL for who has no flow."""
    cdef uint32_t at = bucket_of(s, peer)[0]

    while at != NS_NIL:
        if s.udp_peer[at].peer == peer:
            return &s.udp_peer[at]
        at = s.udp_peer[at].next
    return NULL


cdef udp_peer *owner_make(netstack *s, uint32_t peer) noexcept nogil:
    cdef uint32_t *bucket = bucket_of(s, peer)
    cdef uint32_t at = s.udp_peer_free
    cdef udp_peer *owner

    if at != NS_NIL:
        s.udp_peer_free = s.udp_peer[at].next
    else:
        at = s.udp_peer_fresh
        s.udp_peer_fresh += 1
    owner = &s.udp_peer[at]
    owner.peer = peer
    owner.count = 0
    owner.age.oldest = owner.age.newest = NS_NIL
    owner.next = bucket[0]
    bucket[0] = at
    return owner


cdef void owner_forget(netstack *s, udp_peer *owner) noexcept nogil:
    cdef uint32_t index = <uint32_t> (owner - s.udp_peer)
    cdef uint32_t *at = bucket_of(s, owner.peer)

    while at[0] != index:
        at = &s.udp_peer[at[0]].next
    at[0] = owner.next
    owner.next = s.udp_peer_free
    s.udp_peer_free = index


cdef void own(netstack *s, udp_flow *u) noexcept nogil:
    cdef udp_peer *owner = owner_find(s, u.peer)

    if owner == NULL:
        owner = owner_make(s, u.peer)
    owner.count += 1
    s.udp_live += 1
    age_append(s, &owner.age, FLOW_UDP, udp_index(s, u))


cdef void disown(netstack *s, udp_flow *u) noexcept nogil:
    cdef udp_peer *owner = owner_find(s, u.peer)

    age_remove(s, &owner.age, FLOW_UDP, udp_index(s, u))
    s.udp_live -= 1
    owner.count -= 1
    if owner.count == 0:
        owner_forget(s, owner)


cdef inline uint32_t idle_ms(const netstack *s, const udp_peer *owner) noexcept nogil:
    return s.now_ms - s.udp[owner.age.oldest].last_ms


cdef udp_peer *owner_largest(netstack *s) noexcept nogil:
    """Of those that have as many, who was idle longer."""
    cdef udp_peer *largest = NULL
    cdef udp_peer *owner
    cdef uint32_t i

    for i in range(s.udp_peer_fresh):
        owner = &s.udp_peer[i]
        if owner.count and (largest == NULL or owner.count > largest.count or (
                owner.count == largest.count and idle_ms(s, owner) > idle_ms(s, largest))):
            largest = owner
    return largest


cdef void make_room(netstack *s, uint32_t peer) noexcept nogil:
    cdef udp_peer *owner
    cdef udp_peer *largest

    if s.udp_pool.count - s.udp_pool.used >= s.udp_pool.count // 64 + 1:
        return
    owner = owner_find(s, peer)
    largest = owner_largest(s)
    if largest != NULL and largest.count > (owner.count if owner != NULL else 0) + 1:
        owner = largest
    if owner != NULL:
        s.statistics.evicted += 1
        end_flow(s, &s.udp[owner.age.oldest])


# -- life --
cdef void end_flow(netstack *s, udp_flow *u) noexcept nogil:
    """Nothing passes any more; the consumer gives the slot back."""
    flow_remove(s, &u.tuple, u.protocol, flow_ref(FLOW_UDP, udp_index(s, u)))
    disown(s, u)
    wheel_cancel(&s.wheel, timer_of(s, u))
    u.taken = ENDED
    udp_event(s, u, NS_EVENT_CLOSED)


cdef void touch(netstack *s, udp_flow *u) noexcept nogil:
    """The flow is in use; the list by age is kept to about a second."""
    cdef udp_peer *owner

    if s.now_ms - u.last_ms >= 1000:
        u.last_ms = s.now_ms
        owner = owner_find(s, u.peer)
        age_remove(s, &owner.age, FLOW_UDP, udp_index(s, u))
        age_append(s, &owner.age, FLOW_UDP, udp_index(s, u))


cdef udp_flow *udp_open(netstack *s, const flow_tuple *tuple, uint32_t protocol, uint32_t peer,
                        bint passive) noexcept nogil:
    cdef uint32_t index = pool_take(s, &s.udp_pool, FLOW_UDP)
    cdef uint16_t generation
    cdef uint8_t queued
    cdef udp_flow *u

    make_room(s, peer)
    if index == NS_NIL:
        drop(&s.drops, DROP_NS_FLOW_TABLE_FULL)
        return NULL
    u = &s.udp[index]
    generation = u.generation
    queued = u.queued
    memset(u, 0, sizeof(udp_flow))
    u.generation = generation
    u.queued = queued
    u.tuple = tuple[0]
    u.peer = peer
    u.protocol = <uint8_t> protocol
    u.taken = PASSIVE if passive else ACTIVE
    u.last_ms = s.now_ms
    if protocol == IP_PROTOCOL_UDP and (tuple.local_port == DNS_PORT
                                        or tuple.remote_port == DNS_PORT):
        u.idle_s = <uint16_t> s.limits.dns_idle_s
    else:
        u.idle_s = <uint16_t> s.limits.udp_idle_s
    flow_insert(s, &u.tuple, protocol, flow_ref(FLOW_UDP, index))
    own(s, u)
    wheel_arm(&s.wheel, timer_of(s, u), s.now_ms64 + <uint64_t> u.idle_s * 1000)
    s.statistics.opened += 1
    return u


cdef void udp_free(netstack *s, udp_flow *u) noexcept nogil:
    if u.taken != ENDED:
        end_flow(s, u)
    u.taken = FREE
    u.events = 0
    u.generation = (u.generation + 1) & FLOW_GENERATION_MASK
    pool_put(s, &s.udp_pool, FLOW_UDP, udp_index(s, u))
    s.statistics.closed += 1


cdef void udp_timer(netstack *s, udp_flow *u) noexcept nogil:
    cdef uint32_t silent_ms = s.now_ms - u.last_ms, idle_ms = <uint32_t> u.idle_s * 1000

    if silent_ms < idle_ms:
        wheel_arm(&s.wheel, timer_of(s, u), s.now_ms64 + (idle_ms - silent_ms))
    else:
        end_flow(s, u)


cdef bint listens(netstack *s, const flow_tuple *tuple, uint64_t *user) noexcept nogil:
    """Whether a port of ours is open for these datagrams."""
    cdef uint32_t i
    cdef ns_listener *l
    cdef uint8_t any_address[16]

    memset(any_address, 0, 16)
    for i in range(s.listeners):
        l = &s.listener[i]
        if l.port == tuple.local_port and l.port != 0 and l.protocol == IP_PROTOCOL_UDP and (
                memcmp(l.local, any_address, 16) == 0
                or memcmp(l.local, tuple.local, 16) == 0):
            user[0] = l.user
            return True
    return False


cdef udp_flow *admit(netstack *s, const flow_tuple *tuple, uint32_t protocol,
                     const uint8_t *packet, const ip_info *info, uint32_t peer) noexcept nogil:
    """Make a flow for a first datagram, or say why not."""
    cdef bint ours = ip_is_ours(s, tuple.local)
    cdef uint64_t user = 0
    cdef int verdict
    cdef udp_flow *u

    if not (ours and protocol == IP_PROTOCOL_UDP and listens(s, tuple, &user)):
        if s.host.admit == NULL:
            verdict = NS_REJECT if ours else -1
        else:
            verdict = s.host.admit(s.host.context, tuple, protocol, peer)
        if verdict != NS_DIAL:
            drop(&s.drops, DROP_NS_NO_LISTENER if ours else DROP_NS_DENIED)
            if verdict == NS_REJECT:
                icmp_refuse(s, packet, info.total_len,
                            NS_REFUSE_PORT if ours else NS_REFUSE_PROHIBITED, peer)
            return NULL
    u = udp_open(s, tuple, protocol, peer, True)
    if u != NULL:
        u.user = user
        udp_event(s, u, NS_EVENT_OPENED)
    return u


cdef void deliver(netstack *s, udp_flow *u, const uint8_t *packet, const ip_info *info,
                  const uint8_t *data, uint32_t length, uint16_t sequence) noexcept nogil:
    cdef ns_datagram d

    touch(s, u)
    u.ttl = packet[<int> IPV4_TTL] if info.version == 4 else packet[<int> IPV6_HOP_LIMIT]
    d.data = data
    d.len = length
    d.sequence = sequence
    d.ttl = u.ttl
    if s.host.datagram != NULL:
        s.host.datagram(s.host.context, udp_handle(s, u), u.user, &d)


cdef void udp_input(netstack *s, const uint8_t *packet, const ip_info *info,
                    uint32_t peer) noexcept nogil:
    cdef const uint8_t *p = packet + info.l4_offset
    cdef uint32_t room = info.total_len - info.l4_offset, length, ref
    cdef flow_tuple tuple
    cdef udp_flow *u

    if room < UDP_LEN:
        drop(&s.drops, DROP_NS_BAD_HEADER)
        return
    length = load_be16(p + UDP_LENGTH)
    if length < UDP_LEN or length > room:
        drop(&s.drops, DROP_NS_BAD_HEADER)
        return
    ip_addresses(packet, info, tuple.remote, tuple.local)
    tuple.remote_port = load_be16(p)
    tuple.local_port = load_be16(p + 2)
    # RFC 8200 section 8.1: only IPv4 may leave the checksum out.
    if load_be16(p + UDP_CHECKSUM) == 0:
        if info.version == 6:
            drop(&s.drops, DROP_NS_BAD_CHECKSUM)
            return
    elif not checksum_valid(checksum_add(
            ip_pseudo(tuple.remote, tuple.local, IP_PROTOCOL_UDP, length), p, length)):
        drop(&s.drops, DROP_NS_BAD_CHECKSUM)
        return
    if tuple.remote_port == 0 or tuple.local_port == 0:
        drop(&s.drops, DROP_NS_BAD_HEADER)
        return
    ref = flow_find(s, &tuple, IP_PROTOCOL_UDP)
    if ref != NS_NIL:
        u = &s.udp[ref_index(ref)]
    else:
        u = admit(s, &tuple, IP_PROTOCOL_UDP, packet, info, peer)
        if u == NULL:
            return
    deliver(s, u, packet, info, p + UDP_LEN, length - UDP_LEN, 0)


cdef void echo_input(netstack *s, const uint8_t *packet, const ip_info *info, bint request,
                     uint32_t peer) noexcept nogil:
    cdef const uint8_t *p = packet + info.l4_offset
    cdef uint32_t length = info.total_len - info.l4_offset - ICMP_LEN, ref
    cdef uint32_t protocol = IP_PROTOCOL_ICMP if info.version == 4 else IP_PROTOCOL_ICMPV6
    cdef uint16_t sequence = load_be16(p + 6)
    cdef flow_tuple tuple
    cdef udp_flow *u

    ip_addresses(packet, info, tuple.remote, tuple.local)
    tuple.local_port = 0
    tuple.remote_port = load_be16(p + 4)
    if request and ip_is_ours(s, tuple.local):
        icmp_send_echo(s, &tuple, False, sequence, p + ICMP_LEN, length, 0, NS_NIL, peer)
        return
    ref = flow_find(s, &tuple, protocol)
    if ref != NS_NIL:
        u = &s.udp[ref_index(ref)]
        # A request belongs to what the tunnel opened, a reply to what we did.
        if (u.taken == PASSIVE) != request:
            drop(&s.drops, DROP_NS_NO_LISTENER)
            return
    elif not request:
        drop(&s.drops, DROP_NS_NO_LISTENER)
        return
    else:
        u = admit(s, &tuple, protocol, packet, info, peer)
        if u == NULL:
            return
    deliver(s, u, packet, info, p + ICMP_LEN, length, sequence)


cdef void udp_error(netstack *s, const icmp_error *error) noexcept nogil:
    cdef uint32_t ref = flow_find(s, &error.tuple, error.protocol)
    cdef udp_flow *u

    if ref == NS_NIL or error.refusal == NS_REFUSE_SILENT or s.host.datagram_error == NULL:
        return
    u = &s.udp[ref_index(ref)]
    s.host.datagram_error(s.host.context, udp_handle(s, u), u.user, error.refusal)


cdef int udp_send(netstack *s, udp_flow *u, const ns_datagram *d) noexcept nogil:
    cdef uint8_t head[8]
    cdef uint64_t total
    cdef uint32_t length = d.len + UDP_LEN
    cdef bint sent

    if u.taken == ENDED:
        return NS_INVALID
    if d.len > NS_REASSEMBLED_MAX - IPV6_LEN - UDP_LEN:
        return NS_INVALID
    touch(s, u)
    if u.protocol != IP_PROTOCOL_UDP:
        sent = icmp_send_echo(s, &u.tuple, u.taken == ACTIVE, d.sequence, d.data, d.len, d.ttl,
                              udp_handle(s, u), u.peer)
        return NS_OK if sent else NS_FULL
    store_be16(head, u.tuple.local_port)
    store_be16(head + 2, u.tuple.remote_port)
    store_be16(head + UDP_LENGTH, <uint16_t> length)
    store_be16(head + UDP_CHECKSUM, 0)
    total = ip_pseudo(u.tuple.local, u.tuple.remote, IP_PROTOCOL_UDP, length)
    checksum_store_udp(head + UDP_CHECKSUM,
                       checksum_add(checksum_add(total, head, 8), d.data, d.len))
    sent = ip_send(s, u.tuple.local, u.tuple.remote, IP_PROTOCOL_UDP, head, d.data, d.len, d.ttl,
                   udp_handle(s, u), u.peer)
    return NS_OK if sent else NS_FULL


# -- checking --
cdef int udp_check(netstack *s) noexcept nogil:
    cdef uint32_t i, at, index, before, flows, live = 0
    cdef udp_peer *owner

    for i in range(NS_UDP_BUCKETS):
        at = s.udp_bucket[i]
        while at != NS_NIL:
            owner = &s.udp_peer[at]
            flows = 0
            before = NS_NIL
            index = owner.age.oldest
            while index != NS_NIL:
                if s.udp[index].peer != owner.peer or s.udp[index].older != before or \
                        s.udp[index].taken == ENDED or s.udp[index].taken == FREE:
                    return 30
                before = index
                index = s.udp[index].newer
                flows += 1
            if flows == 0 or flows != owner.count or before != owner.age.newest:
                return 31
            live += flows
            at = owner.next
    return 0 if live == s.udp_live and live <= s.udp_pool.used else 32
