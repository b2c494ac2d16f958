# SPDX-License-Identifier: Apache-2.0
"""The stack as a whole: making it, time, dispatch of packets, batches, events, handles."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memmove, memset

from cext.base.drops cimport drop
from cext.base.endian cimport load_be64
from cext.base.secret cimport secret_erase
from cext.netstack.flow cimport (
    flow_find, flow_table_create, flow_table_destroy, pool_init, random_u32, ring_create,
    ring_destroy, ring_pop, syn_index, syn_of, tcp_of, tcp_ready, udp_of,
)
from cext.netstack.icmp cimport (
    ICMP_ECHO_REPLY, ICMP_ECHO_REQUEST, ICMP_ERROR, icmp_kind, icmp_parse, icmp_refuse_tuple,
    icmp_time_exceeded,
)
from cext.netstack.ip cimport ip_addresses, ip_is_ours, ip_our_address
from cext.netstack.layout cimport (
    FLOW_INDEX_MAX, FLOW_SYN_REQUEST, FLOW_TCP, FLOW_UDP, NS_ADDRESSES_MAX, NS_BAD_HANDLE,
    NS_BAD_STATE, NS_BATCH_MAX, NS_EVENT_CANCELLED, NS_EVENT_CLOSED, NS_FULL, NS_INVALID, NS_IN_USE,
    NS_LISTENERS_MAX, NS_MAX_HEADERS, NS_NIL, NS_OK, NS_REASON_IDLE, NS_REASON_NONE,
    NS_REASON_RESET, NS_REASSEMBLED_MAX, NS_REFUSE_RESET, NS_REFUSE_SILENT, NS_SCRATCH_BYTES,
    NS_UDP_BUCKETS,
    QUEUED_EVENT, QUEUED_READY, SYN_ANSWERED, SYN_CANCELLED, SYN_DIALLING, SYN_FREE, TCP_FREE,
    TF_NAGLE, TF_ORPHAN, WHEEL_NEVER, address_is_v4, block, block_data, flow_handle, flow_tuple,
    icmp_error, netstack, ns_datagram, ns_event, ns_host, ns_limits, ns_listener, ns_packet,
    ns_space, reassembly, ref_index, ref_kind, slab_block, syn_request, tcp_flow, time_wait,
    udp_flow, udp_peer,
)
from cext.netstack.reassembly cimport reassembly_input, reassembly_poll, reassembly_poll_at
from cext.netstack.slab cimport slab_create, slab_destroy, slab_put_chain
from cext.netstack.tcp_input cimport tcp_icmp, tcp_input
from cext.netstack.tcp_listener cimport listener_accept, listener_refuse, listener_timer
from cext.netstack.tcp_output cimport tcp_output
from cext.netstack.tcp_receive cimport receive_copy, receive_flush, receive_resume
from cext.netstack.tcp_socket cimport (
    socket_abort, socket_close, socket_commit, socket_connect, socket_send, socket_shutdown,
    socket_space, socket_wake_starved,
)
from cext.netstack.tcp_state cimport tcp_handle, tcp_seen, time_wait_poll, time_wait_poll_at
from cext.netstack.tcp_timers cimport tcp_idle_start, tcp_timer
from cext.netstack.udp cimport (
    echo_input, udp_error, udp_free, udp_handle, udp_input, udp_open, udp_send, udp_timer,
)
from cext.netstack.wheel cimport wheel_create, wheel_destroy, wheel_next, wheel_pop
from cext.wire.checksum cimport checksum_add, checksum_valid
from cext.wire.ip cimport (
    IPV4_MIN_LEN, IPV4_TTL, IPV6_DESTINATION, IPV6_HOP_LIMIT, IPV6_SOURCE, IP_PROTOCOL_ICMP,
    IP_PROTOCOL_ICMPV6, IP_PROTOCOL_TCP, IP_PROTOCOL_UDP, TCP_MIN_LEN, ip_info, ip_parse,
)
from cext.wire.tcp cimport TCP_MAX_WINDOW_SCALE


cdef extern from "base/drops.h" nogil:
    enum:
        DROP_NS_BAD_CHECKSUM
        DROP_NS_BAD_FRAGMENT
        DROP_NS_BAD_HEADER
        DROP_NS_NOT_OURS
        DROP_NS_TTL_EXPIRED

cdef enum:
    BURST = 44  # packets of one flow in a row: 64 kB, what one UDP GSO send takes
    LEAST_BLOCKS = 64
    MIN_MTU = 576
    MAX_MTU = 9000
    MIN_BLOCK_PAYLOAD = 1280  # an ICMPv6 error


# -- life --
cdef void ns_default_limits(ns_limits *l, uint64_t ram_bytes, uint32_t mtu_bytes) noexcept nogil:
    cdef uint64_t share = ram_bytes // 16
    cdef uint32_t mb

    memset(l, 0, sizeof(ns_limits))
    if share < 1 << 20:
        share = 1 << 20
    elif share > 64 << 20:
        share = 64 << 20
    mb = <uint32_t> (share >> 20)
    l.slab_bytes = <uint32_t> share
    l.tcp_flows = 256 * mb
    l.udp_flows = 128 * mb
    l.time_waits = 256 * mb
    l.syn_requests = 256
    l.reassemblies = 16
    l.reassembly_blocks = <uint32_t> (share // 8 // 2048)
    l.answers = 512
    l.flow_rx_bytes = <uint32_t> (share // 2) if share < 12 << 20 else 6 << 20
    l.flow_tx_bytes = l.flow_rx_bytes
    l.mtu_bytes = mtu_bytes
    l.headroom_bytes = 32
    l.time_wait_ms = 60000
    l.dial_ms = 30000
    l.user_timeout_s = 300
    l.keepalive_s = 0
    l.udp_idle_s = 120
    l.dns_idle_s = 30
    l.min_rto_ms = 200
    l.delayed_ack_ms = 40
    l.icmp_errors_s = 200


cdef bint sensible(const ns_limits *l) noexcept nogil:
    return (
        MIN_MTU <= l.mtu_bytes <= MAX_MTU and l.headroom_bytes <= 256
        and 0 < l.tcp_flows < FLOW_INDEX_MAX and 0 < l.udp_flows < FLOW_INDEX_MAX
        and 0 < l.syn_requests < FLOW_INDEX_MAX and 0 < l.time_waits < FLOW_INDEX_MAX
        and 0 < l.reassemblies <= 1024 and l.min_rto_ms > 0
        and 2 * l.mtu_bytes <= l.flow_rx_bytes < 1 << 30
        and 2 * l.mtu_bytes <= l.flow_tx_bytes < 1 << 30)


cdef netstack *ns_create(const ns_limits *limits, const ns_host *host,
                         uint64_t now_ns) noexcept nogil:
    cdef netstack *s
    cdef uint32_t block_bytes, flows, payload
    cdef uint64_t key[6]

    if not sensible(limits) or host.random == NULL:
        return NULL
    s = <netstack *> calloc(1, sizeof(netstack))
    if s == NULL:
        return NULL
    s.limits = limits[0]
    s.host = host[0]
    set_time(s, now_ns)
    payload = limits.mtu_bytes - IPV4_MIN_LEN - TCP_MIN_LEN
    if payload < MIN_BLOCK_PAYLOAD:
        payload = MIN_BLOCK_PAYLOAD
    block_bytes = <uint32_t> sizeof(block) + limits.headroom_bytes + NS_MAX_HEADERS + payload
    flows = limits.tcp_flows + limits.udp_flows + limits.time_waits + limits.syn_requests
    pool_init(&s.tcp_pool, limits.tcp_flows)
    pool_init(&s.syn_pool, limits.syn_requests)
    pool_init(&s.time_wait_pool, limits.time_waits)
    pool_init(&s.udp_pool, limits.udp_flows)
    # Each slot is cleared when it is taken for the first time (pool_take).
    s.tcp = <tcp_flow *> malloc(<size_t> limits.tcp_flows * sizeof(tcp_flow))
    s.syn = <syn_request *> malloc(<size_t> limits.syn_requests * sizeof(syn_request))
    s.time_wait = <time_wait *> malloc(<size_t> limits.time_waits * sizeof(time_wait))
    s.udp = <udp_flow *> malloc(<size_t> limits.udp_flows * sizeof(udp_flow))
    s.udp_peer = <udp_peer *> malloc(<size_t> limits.udp_flows * sizeof(udp_peer))
    s.reassembly = <reassembly *> calloc(limits.reassemblies, sizeof(reassembly))
    s.reassembled = <uint8_t *> malloc(NS_REASSEMBLED_MAX + 1)
    s.scratch = <uint8_t *> malloc(
        <size_t> NS_BATCH_MAX * (limits.headroom_bytes + NS_SCRATCH_BYTES))
    if s.tcp == NULL or s.syn == NULL or s.time_wait == NULL or s.udp == NULL or \
            s.udp_peer == NULL or s.reassembly == NULL or s.reassembled == NULL or \
            s.scratch == NULL or \
            slab_create(&s.slab, limits.slab_bytes, block_bytes) < 0 or \
            s.slab.blocks < LEAST_BLOCKS or \
            wheel_create(&s.wheel, limits.tcp_flows + limits.syn_requests + limits.udp_flows,
                         s.now_ms64) < 0 or \
            flow_table_create(&s.table, flows) < 0 or \
            ring_create(&s.ready, limits.tcp_flows) < 0 or \
            ring_create(&s.events, limits.tcp_flows + limits.udp_flows
                        + limits.syn_requests) < 0:
        ns_destroy(s)
        return NULL
    s.tcp_age.oldest = s.tcp_age.newest = NS_NIL
    s.syn_age.oldest = s.syn_age.newest = NS_NIL
    s.time_wait_age.oldest = s.time_wait_age.newest = NS_NIL
    s.udp_peer_free = NS_NIL
    for flows in range(NS_UDP_BUCKETS):
        s.udp_bucket[flows] = NS_NIL
    s.answer_head = s.answer_tail = s.spent_head = NS_NIL
    s.reserved_head = s.reserved_handle = NS_NIL
    for flows in range(limits.reassemblies):
        s.reassembly[flows].head = NS_NIL
    s.host.random(s.host.context, key, sizeof(key))
    memcpy(s.table.key, key, 16)
    memcpy(s.isn_key, key + 2, 16)
    memcpy(s.cookie_key, key + 4, 16)
    s.next_id = random_u32(s)
    while limits.flow_rx_bytes >> s.rx_scale > 65535 and s.rx_scale < TCP_MAX_WINDOW_SCALE:
        s.rx_scale += 1
    return s


cdef int ns_set_mtu(netstack *s, uint32_t mtu_bytes) noexcept nogil:
    cdef uint32_t used = <uint32_t> sizeof(block) + s.limits.headroom_bytes + NS_MAX_HEADERS

    if not MIN_MTU <= mtu_bytes <= s.slab.block_bytes - used + IPV4_MIN_LEN + TCP_MIN_LEN:
        return NS_INVALID
    s.limits.mtu_bytes = mtu_bytes
    return NS_OK


cdef void ns_destroy(netstack *s) noexcept nogil:
    if s == NULL:
        return
    flow_table_destroy(&s.table)
    ring_destroy(&s.ready)
    ring_destroy(&s.events)
    wheel_destroy(&s.wheel)
    slab_destroy(&s.slab)
    free(s.tcp)
    free(s.syn)
    free(s.time_wait)
    free(s.udp)
    free(s.udp_peer)
    free(s.reassembly)
    free(s.reassembled)
    free(s.scratch)
    secret_erase(s.isn_key, 16)
    secret_erase(s.cookie_key, 16)
    free(s)


cdef int ns_add_address(netstack *s, const uint8_t *address) noexcept nogil:
    if ip_is_ours(s, address):
        return NS_OK
    if s.addresses >= NS_ADDRESSES_MAX:
        return NS_FULL
    memcpy(s.address[s.addresses], address, 16)
    s.addresses += 1
    return NS_OK


cdef int ns_remove_address(netstack *s, const uint8_t *address) noexcept nogil:
    cdef uint32_t i

    for i in range(s.addresses):
        if memcmp(s.address[i], address, 16) == 0:
            s.addresses -= 1
            memmove(s.address[i], s.address[s.addresses], 16)
            return NS_OK
    return NS_INVALID


# -- time --
cdef void set_time(netstack *s, uint64_t now_ns) noexcept nogil:
    cdef uint64_t now_us

    if now_ns <= s.now_ns:
        return
    s.now_ns = now_ns
    now_us = now_ns // 1000
    s.now_us = <uint32_t> now_us
    s.now_ms64 = now_us // 1000
    s.now_ms = <uint32_t> s.now_ms64


cdef void ns_poll(netstack *s, uint64_t now_ns) noexcept nogil:
    cdef uint32_t index

    set_time(s, now_ns)
    while True:
        index = wheel_pop(&s.wheel, s.now_ms64)
        if index == NS_NIL:
            break
        if index < s.limits.tcp_flows:
            tcp_timer(s, &s.tcp[index])
            continue
        index -= s.limits.tcp_flows
        if index < s.limits.syn_requests:
            listener_timer(s, &s.syn[index])
        else:
            udp_timer(s, &s.udp[index - s.limits.syn_requests])
    time_wait_poll(s)
    reassembly_poll(s)


cdef uint64_t ns_poll_at(netstack *s) noexcept nogil:
    cdef uint64_t due_ms, other_ms

    if s.answer_head != NS_NIL or s.ready.head != s.ready.tail:
        return s.now_ns
    due_ms = wheel_next(&s.wheel)
    other_ms = time_wait_poll_at(s)
    if other_ms < due_ms:
        due_ms = other_ms
    other_ms = reassembly_poll_at(s)
    if other_ms < due_ms:
        due_ms = other_ms
    if due_ms == WHEEL_NEVER:
        return WHEEL_NEVER
    due_ms *= 1000000
    return due_ms if due_ms > s.now_ns else s.now_ns


# -- packets in --
cdef void in_icmp(netstack *s, const uint8_t *packet, const ip_info *info,
                  uint32_t peer) noexcept nogil:
    cdef icmp_error error
    cdef icmp_kind kind = icmp_parse(s, packet, info, &error)

    if kind == ICMP_ECHO_REQUEST:
        echo_input(s, packet, info, True, peer)
    elif kind == ICMP_ECHO_REPLY:
        echo_input(s, packet, info, False, peer)
    elif kind == ICMP_ERROR:
        if error.protocol == IP_PROTOCOL_TCP:
            tcp_icmp(s, &error)
        else:
            udp_error(s, &error)


cdef inline bint is_unicast(const uint8_t *packet, const ip_info *info) noexcept nogil:
    """Whether a packet goes from one host to one host."""
    cdef const uint8_t *source = packet + info.addresses
    cdef const uint8_t *destination = source + info.address_len

    if info.version == 4:
        return source[0] != 0 and source[0] < 224 and destination[0] != 0 and \
            destination[0] < 224 and source[0] != 127 and destination[0] != 127
    # Not multicast, and not ::/96: unspecified, loopback, compatible.
    return source[0] != 0xff and destination[0] != 0xff and \
        (load_be64(source) | (load_be64(source + 8) >> 32)) != 0 and \
        (load_be64(destination) | (load_be64(destination + 8) >> 32)) != 0


cdef void in_packet(netstack *s, const uint8_t *packet, const ip_info *info,
                    uint32_t peer) noexcept nogil:
    cdef uint8_t source[16]
    cdef uint8_t destination[16]
    cdef uint8_t ttl

    if info.version == 6:
        # A mapped address inside IPv6 would name an IPv4 flow.
        if address_is_v4(packet + IPV6_SOURCE) or address_is_v4(packet + IPV6_DESTINATION):
            drop(&s.drops, DROP_NS_BAD_HEADER)
            return
        ttl = packet[<int> IPV6_HOP_LIMIT]
    else:
        ttl = packet[<int> IPV4_TTL]
    if ttl <= 1:
        ip_addresses(packet, info, source, destination)
        if not ip_is_ours(s, destination):
            drop(&s.drops, DROP_NS_TTL_EXPIRED)
            icmp_time_exceeded(s, packet, info.total_len, peer)
            return
    if info.protocol == IP_PROTOCOL_TCP:
        tcp_input(s, packet, info, peer)
    elif info.protocol == IP_PROTOCOL_UDP:
        udp_input(s, packet, info, peer)
    elif info.protocol == (IP_PROTOCOL_ICMP if info.version == 4 else IP_PROTOCOL_ICMPV6):
        in_icmp(s, packet, info, peer)
    else:
        drop(&s.drops, DROP_NS_NOT_OURS)


cdef void ns_input(netstack *s, uint64_t now_ns, const uint8_t *packet, uint32_t length,
                   uint32_t peer) noexcept nogil:
    cdef ip_info info

    set_time(s, now_ns)
    s.statistics.packets_in += 1
    s.statistics.bytes_in += length
    if not ip_parse(&info, packet, length) or not is_unicast(packet, &info):
        drop(&s.drops, DROP_NS_BAD_HEADER)
        return
    if info.version == 4 and not checksum_valid(checksum_add(0, packet, info.l4_offset)):
        drop(&s.drops, DROP_NS_BAD_CHECKSUM)
        return
    if info.fragment or info.protocol != IP_PROTOCOL_TCP:
        receive_flush(s)
    if info.fragment:
        length = reassembly_input(s, packet, &info, peer)
        if length == 0:
            return
        packet = s.reassembled
        # Fragments inside fragments are nobody's honest work.
        if not ip_parse(&info, packet, length) or info.fragment:
            drop(&s.drops, DROP_NS_BAD_FRAGMENT)
            return
        in_packet(s, packet, &info, peer)
        receive_flush(s)
        return
    in_packet(s, packet, &info, peer)


cdef void ns_input_end(netstack *s) noexcept nogil:
    receive_flush(s)


# -- packets out --
cdef uint32_t take_answers(netstack *s, ns_packet *out, uint32_t n) noexcept nogil:
    cdef uint32_t k = 0, index
    cdef block *b

    while k < n and s.answer_head != NS_NIL:
        index = s.answer_head
        b = slab_block(&s.slab, index)
        out[k].data = block_data(b)
        out[k].len = b.len
        out[k].handle = b.owner
        out[k].peer = b.peer
        k += 1
        s.answer_head = b.next
        if s.answer_head == NS_NIL:
            s.answer_tail = NS_NIL
        s.answers -= 1
        b.next = s.spent_head
        s.spent_head = index
    return k


cdef uint32_t ns_next_packets(netstack *s, uint64_t now_ns, ns_packet *out,
                              uint32_t n) noexcept nogil:
    cdef uint32_t k, index, burst, i
    cdef tcp_flow *t

    set_time(s, now_ns)
    slab_put_chain(&s.slab, s.spent_head)
    s.spent_head = NS_NIL
    s.scratch_used = 0
    if s.starved:
        socket_wake_starved(s)
    if n > NS_BATCH_MAX:
        n = NS_BATCH_MAX
    k = take_answers(s, out, n)
    while k < n:
        index = ring_pop(&s.ready)
        if index == NS_NIL:
            break
        t = &s.tcp[index]
        t.queued &= <uint8_t> ~QUEUED_READY
        burst = 0
        while k < n and burst < BURST and tcp_output(s, t, &out[k]):
            k += 1
            burst += 1
        if k == n or burst == BURST:
            tcp_ready(s, t)
    i = k
    while i > 0:
        i -= 1
        s.statistics.bytes_out += out[i].len
        out[i].run = 0
        if i + 1 < k and out[i].handle == out[i + 1].handle and out[i].handle != NS_NIL and \
                out[i].len == out[i + 1].len:
            out[i].run = out[i + 1].run + 1
    s.statistics.packets_out += k
    return k


# -- events --
cdef bint event_of_tcp(netstack *s, tcp_flow *t, ns_event *out) noexcept nogil:
    t.queued &= <uint8_t> ~QUEUED_EVENT
    if t.events == 0 or t.state == TCP_FREE or t.flags & TF_ORPHAN:
        return False
    out.handle = tcp_handle(s, t)
    out.user = t.user
    out.events = t.events
    out.reason = t.error if t.events & NS_EVENT_CLOSED else <uint16_t> NS_REASON_NONE
    t.events = 0
    tcp_seen(s, t)
    return True


cdef bint event_of_udp(netstack *s, udp_flow *u, ns_event *out) noexcept nogil:
    u.queued &= <uint8_t> ~QUEUED_EVENT
    if u.events == 0 or not u.taken:
        return False
    out.handle = udp_handle(s, u)
    out.user = u.user
    out.events = u.events
    out.reason = <uint16_t> (NS_REASON_IDLE if u.events & NS_EVENT_CLOSED else NS_REASON_NONE)
    u.events = 0
    return True


cdef bint event_of_syn(netstack *s, syn_request *r, ns_event *out) noexcept nogil:
    r.queued &= <uint8_t> ~QUEUED_EVENT
    if r.events == 0 or r.state == SYN_FREE:
        return False
    out.handle = flow_handle(FLOW_SYN_REQUEST, syn_index(s, r), r.generation)
    out.user = 0
    out.events = r.events
    out.reason = <uint16_t> (NS_REASON_RESET if r.events & NS_EVENT_CANCELLED
                             else NS_REASON_NONE)
    r.events = 0
    return True


cdef bint ns_next_event(netstack *s, ns_event *out) noexcept nogil:
    cdef uint32_t ref
    cdef bint found

    while True:
        ref = ring_pop(&s.events)
        if ref == NS_NIL:
            return False
        if ref_kind(ref) == FLOW_TCP:
            found = event_of_tcp(s, &s.tcp[ref_index(ref)], out)
        elif ref_kind(ref) == FLOW_UDP:
            found = event_of_udp(s, &s.udp[ref_index(ref)], out)
        else:
            found = event_of_syn(s, &s.syn[ref_index(ref)], out)
        if found:
            return True


# -- opening --
cdef int ns_listen(netstack *s, uint32_t protocol, const uint8_t *local, uint16_t port,
                   uint16_t backlog, uint64_t user, uint32_t receive_space) noexcept nogil:
    cdef uint32_t i, free_slot = NS_NIL
    cdef ns_listener *l
    cdef uint8_t address[16]

    memset(address, 0, 16)
    if local != NULL:
        memcpy(address, local, 16)
    if port == 0 or (protocol != IP_PROTOCOL_TCP and protocol != IP_PROTOCOL_UDP):
        return NS_INVALID
    for i in range(s.listeners):
        l = &s.listener[i]
        if l.port == 0:
            free_slot = i
        elif l.port == port and l.protocol == protocol and memcmp(l.local, address, 16) == 0:
            return NS_IN_USE
    if free_slot == NS_NIL:
        if s.listeners >= NS_LISTENERS_MAX:
            return NS_FULL
        free_slot = s.listeners
        s.listeners += 1
    l = &s.listener[free_slot]
    memcpy(l.local, address, 16)
    l.user = user
    l.receive_space = receive_space
    l.backlog = backlog
    l.waiting = 0
    l.port = port
    l.protocol = <uint8_t> protocol
    return <int> free_slot


cdef int ns_unlisten(netstack *s, uint32_t listener) noexcept nogil:
    cdef uint32_t index = s.syn_age.oldest, following

    if listener >= s.listeners or s.listener[listener].port == 0:
        return NS_INVALID
    while index != NS_NIL:
        following = s.syn[index].newer
        if s.syn[index].state == SYN_ANSWERED and s.syn[index].listener == listener:
            listener_refuse(s, &s.syn[index], NS_REFUSE_RESET)
        index = following
    s.listener[listener].port = 0
    return NS_OK


cdef int ns_connect(netstack *s, const flow_tuple *tuple, uint32_t peer, uint64_t user,
                    uint32_t receive_space, uint32_t *handle) noexcept nogil:
    return socket_connect(s, tuple, peer, user, receive_space, handle)


cdef int ns_accept(netstack *s, uint32_t request, uint64_t user, uint32_t receive_space,
                   uint32_t *handle) noexcept nogil:
    cdef syn_request *r = syn_of(s, request)
    cdef tcp_flow *t

    if r == NULL:
        return NS_BAD_HANDLE
    if r.state != SYN_DIALLING:
        return NS_BAD_STATE
    t = listener_accept(s, r, user, receive_space)
    if t == NULL:
        return NS_FULL
    handle[0] = tcp_handle(s, t)
    return NS_OK


cdef int ns_refuse(netstack *s, uint32_t request, uint32_t refusal) noexcept nogil:
    cdef syn_request *r = syn_of(s, request)

    if r == NULL:
        return NS_BAD_HANDLE
    if r.state == SYN_ANSWERED:
        return NS_BAD_STATE
    listener_refuse(s, r, <uint32_t> NS_REFUSE_SILENT if r.state == SYN_CANCELLED else refusal)
    return NS_OK


cdef int ns_open_datagram(netstack *s, const flow_tuple *tuple, uint32_t protocol, uint32_t peer,
                          uint64_t user, uint32_t *handle) noexcept nogil:
    cdef flow_tuple wanted = tuple[0]
    cdef uint8_t zero[16]
    cdef const uint8_t *ours
    cdef udp_flow *u
    cdef uint32_t tries = 0
    cdef bint any_port

    memset(zero, 0, 16)
    if memcmp(wanted.local, zero, 16) == 0:
        ours = ip_our_address(s, wanted.remote)
        if ours == NULL:
            return NS_INVALID
        memcpy(wanted.local, ours, 16)
    if address_is_v4(wanted.local) != address_is_v4(wanted.remote):
        return NS_INVALID
    if protocol == IP_PROTOCOL_UDP:
        any_port = wanted.local_port == 0
        if wanted.remote_port == 0:
            return NS_INVALID
    elif protocol == IP_PROTOCOL_ICMP or protocol == IP_PROTOCOL_ICMPV6:
        any_port = wanted.remote_port == 0
        wanted.local_port = 0
    else:
        return NS_INVALID
    while True:
        if any_port and protocol == IP_PROTOCOL_UDP:
            wanted.local_port = <uint16_t> (32768 + random_u32(s) % 28232)
        elif any_port:
            wanted.remote_port = <uint16_t> random_u32(s)
        if flow_find(s, &wanted, protocol) == NS_NIL:
            break
        tries += 1
        if not any_port or tries >= 64:
            return NS_IN_USE
    u = udp_open(s, &wanted, protocol, peer, False)
    if u == NULL:
        return NS_FULL
    u.user = user
    handle[0] = udp_handle(s, u)
    return NS_OK


# -- using --
cdef int ns_tuple(netstack *s, uint32_t handle, flow_tuple *out) noexcept nogil:
    cdef tcp_flow *t = tcp_of(s, handle)
    cdef udp_flow *u = udp_of(s, handle)
    cdef syn_request *r = syn_of(s, handle)

    if t != NULL:
        out[0] = t.tuple
    elif u != NULL:
        out[0] = u.tuple
    elif r != NULL:
        out[0] = r.tuple
    else:
        return NS_BAD_HANDLE
    return NS_OK


cdef int ns_set_user(netstack *s, uint32_t handle, uint64_t user) noexcept nogil:
    cdef tcp_flow *t = tcp_of(s, handle)
    cdef udp_flow *u = udp_of(s, handle)

    if t != NULL:
        t.user = user
    elif u != NULL:
        u.user = user
    else:
        return NS_BAD_HANDLE
    return NS_OK


cdef int ns_set_receive_space(netstack *s, uint32_t handle, uint32_t space) noexcept nogil:
    cdef tcp_flow *t = tcp_of(s, handle)

    if t == NULL:
        return NS_BAD_HANDLE
    t.rcv_space = space
    receive_resume(s, t)
    return NS_OK


cdef int ns_set_user_timeout(netstack *s, uint32_t handle, uint16_t seconds) noexcept nogil:
    cdef tcp_flow *t = tcp_of(s, handle)

    if t == NULL:
        return NS_BAD_HANDLE
    t.user_timeout_s = seconds
    return NS_OK


cdef int ns_set_keepalive(netstack *s, uint32_t handle, uint16_t seconds) noexcept nogil:
    cdef tcp_flow *t = tcp_of(s, handle)

    if t == NULL:
        return NS_BAD_HANDLE
    t.keepalive_s = seconds
    tcp_idle_start(s, t)
    return NS_OK


cdef int ns_set_nagle(netstack *s, uint32_t handle, bint on) noexcept nogil:
    cdef tcp_flow *t = tcp_of(s, handle)

    if t == NULL:
        return NS_BAD_HANDLE
    if on:
        t.flags |= TF_NAGLE
    else:
        t.flags &= ~<uint32_t> TF_NAGLE
        tcp_ready(s, t)
    return NS_OK


cdef int ns_send_space(netstack *s, uint32_t handle, ns_space *out, uint32_t n) noexcept nogil:
    cdef tcp_flow *t = tcp_of(s, handle)

    return socket_space(s, t, handle, out, n) if t != NULL else NS_BAD_HANDLE


cdef int ns_send_commit(netstack *s, uint32_t handle, uint32_t length) noexcept nogil:
    cdef tcp_flow *t = tcp_of(s, handle)

    return socket_commit(s, t, handle, length) if t != NULL else NS_BAD_HANDLE


cdef int ns_send(netstack *s, uint32_t handle, const uint8_t *data,
                 uint32_t length) noexcept nogil:
    cdef tcp_flow *t = tcp_of(s, handle)

    return socket_send(s, t, handle, data, length) if t != NULL else NS_BAD_HANDLE


cdef int ns_recv(netstack *s, uint32_t handle, uint8_t *out, uint32_t length) noexcept nogil:
    cdef tcp_flow *t = tcp_of(s, handle)

    return <int> receive_copy(s, t, out, length) if t != NULL else NS_BAD_HANDLE


cdef int ns_send_datagram(netstack *s, uint32_t handle, const ns_datagram *d) noexcept nogil:
    cdef udp_flow *u = udp_of(s, handle)

    return udp_send(s, u, d) if u != NULL else NS_BAD_HANDLE


cdef int ns_refuse_datagram(netstack *s, uint32_t handle, uint32_t refusal) noexcept nogil:
    cdef udp_flow *u = udp_of(s, handle)

    if u == NULL:
        return NS_BAD_HANDLE
    icmp_refuse_tuple(s, &u.tuple, u.protocol, 0, refusal, u.peer)
    return NS_OK


# -- closing --
cdef int ns_shutdown(netstack *s, uint32_t handle) noexcept nogil:
    cdef tcp_flow *t = tcp_of(s, handle)

    return socket_shutdown(s, t) if t != NULL else NS_BAD_HANDLE


cdef int ns_close(netstack *s, uint32_t handle) noexcept nogil:
    cdef tcp_flow *t = tcp_of(s, handle)
    cdef udp_flow *u = udp_of(s, handle)

    if t != NULL:
        return socket_close(s, t)
    if u != NULL:
        udp_free(s, u)
        return NS_OK
    return NS_BAD_HANDLE


cdef int ns_abort(netstack *s, uint32_t handle) noexcept nogil:
    cdef tcp_flow *t = tcp_of(s, handle)

    return socket_abort(s, t) if t != NULL else ns_close(s, handle)
