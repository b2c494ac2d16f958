# SPDX-License-Identifier: Apache-2.0
"""The netstack as the second inner port: its packets in and out of the tunnel.

    in    a batch -> what belongs to the stack's flows and ports -> ns_input(); without
          a first inner port everything, so that ping is answered and refusals are sent
    turn  sockets -> timers -> events -> packets, while the turn's flushes last
    out   ns_next_packets() -> outbound_packet(): routed and sealed like TUN's; equal
          segments of one flow lie back to back and leave as one UDP_SEGMENT run

An ICMP error about a packet that is being sent would re-enter the stack while it
hands out packets; one such error is kept until they are sent, others are lost.
"""

from libc.errno cimport EMSGSIZE
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport abort
from libc.string cimport memcmp, memcpy, memset

from cext.base.drops cimport DROP_REASON_COUNT, drop_counters
from cext.base.endian cimport load_be16
from cext.engine.core cimport OUT_TURN_FLUSHES, engine_core
from cext.engine.gro cimport gro_batch
from cext.engine.loop cimport TAG_RELAY
from cext.engine.outbound cimport outbound_packet
from cext.engine.relay cimport (
    relay_admit, relay_events, relay_listens, relay_sockets, relay_tcp_data,
    relay_tcp_parts,
)
from cext.engine.relay_table cimport (
    RELAY_NONE, relay, relay_create, relay_destroy, relay_memory_bytes,
)
from cext.engine.relay_udp cimport relay_datagram
from cext.host.clock cimport clock_now_ns, entropy_fill
from cext.host.loop cimport loop_forget, loop_watch
from cext.netstack.flow cimport flow_find
from cext.netstack.ip cimport ip_addresses, ip_is_ours
from cext.netstack.layout cimport (
    NS_BATCH_MAX, NS_NIL, NS_OK, flow_tuple, netstack, ns_host, ns_limits,
    ns_packet, syn_request, tcp_flow, time_wait, udp_flow,
)
from cext.netstack.stack cimport (
    ns_add_address, ns_create, ns_default_limits, ns_destroy, ns_input, ns_input_end,
    ns_next_packets, ns_poll, ns_poll_at, ns_remove_address, ns_set_mtu,
)
from cext.wire.ip cimport IP_PROTOCOL_TCP, IP_PROTOCOL_UDP, UDP_LEN, ip_info, ip_parse
from cext.wire.vnet cimport vnet_header


cdef enum:
    # ns_default_limits() gives a 16th of a machine's memory to the slab.
    RAM_PER_SLAB = 16
    SLAB_MIN = 1024 * 1024
    # Of what there is; tables take the rest.
    SLAB_PARTS = 5
    SLAB_OF = 8
    # The stack's limits; blocks are made for an MTU that may grow to this.
    STACK_MTU_MIN = 576
    STACK_MTU_MAX = 9000
    STACK_MTU_ROOM = 1500


# -- life --

cdef void fill_random(void *unused, void *out, uint32_t length) noexcept nogil:
    # The source was there at start; sequence numbers made of anything else must not be.
    if entropy_fill(out, length) < 0:
        abort()


cdef size_t stack_bytes(const ns_limits *l) noexcept nogil:
    """About what ns_create() reserves: slab, slots, their timers, tuples and rings."""
    cdef size_t flows = l.tcp_flows + l.udp_flows + l.time_waits + l.syn_requests
    return (l.slab_bytes + l.tcp_flows * sizeof(tcp_flow) + l.udp_flows * sizeof(udp_flow)
            + l.time_waits * sizeof(time_wait) + l.syn_requests * sizeof(syn_request)
            + flows * 64 + 65536 + 32768)


cdef relay *netport_create(engine_core *core, size_t available, uint32_t mtu) noexcept nogil:
    cdef ns_limits limits
    cdef ns_host host
    cdef relay *r
    cdef uint64_t slab = <uint64_t>available * SLAB_PARTS // SLAB_OF
    if slab < SLAB_MIN:
        return NULL
    mtu = min(max(mtu, <uint32_t>STACK_MTU_MIN), <uint32_t>STACK_MTU_MAX)
    ns_default_limits(&limits, slab * RAM_PER_SLAB, max(mtu, <uint32_t>STACK_MTU_ROOM))
    r = relay_create(&limits, &core.events)
    if r == NULL:
        return NULL
    memset(&host, 0, sizeof(host))
    host.context = r
    host.random = fill_random
    host.admit = relay_admit
    host.tcp_data = relay_tcp_data
    host.tcp_parts = relay_tcp_parts
    host.datagram = relay_datagram
    r.stack = ns_create(&limits, &host, clock_now_ns())
    if r.stack == NULL or netport_memory_bytes(r) > available:
        netport_destroy(r)
        return NULL
    ns_set_mtu(r.stack, mtu)
    return r


cdef void netport_destroy(relay *r) noexcept nogil:
    if r != NULL:
        ns_destroy(r.stack)
        relay_destroy(r)


cdef size_t netport_memory_bytes(const relay *r) noexcept nogil:
    return stack_bytes(&r.stack.limits) + relay_memory_bytes(r) if r != NULL else 0


cdef void netport_add_drops(const relay *r, drop_counters *into) noexcept nogil:
    cdef int i
    if r != NULL:
        for i in range(DROP_REASON_COUNT):
            into.count[i] += r.stack.drops.count[i]


# -- in --

cdef bint listens(const netstack *s, uint16_t port) noexcept nogil:
    cdef uint32_t i
    for i in range(s.listeners):
        if s.listener[i].port == port and s.listener[i].protocol == IP_PROTOCOL_UDP:
            return True
    return False


cdef bint is_ours(relay *r, const uint8_t *packet, uint32_t length) noexcept nogil:
    """Whether a packet is of a flow, or for a port, of the stack's.

    The host has the same addresses: its own packets must reach it. Fragments and ICMP
    are the host's.
    """
    cdef netstack *s = r.stack
    cdef ip_info info
    cdef flow_tuple tuple
    if not ip_parse(&info, packet, length) or info.fragment:
        return False
    if info.protocol != IP_PROTOCOL_TCP and info.protocol != IP_PROTOCOL_UDP:
        return False
    if info.total_len < <uint32_t>info.l4_offset + UDP_LEN:
        return False
    ip_addresses(packet, &info, tuple.remote, tuple.local)
    if not ip_is_ours(s, tuple.local):
        return False
    tuple.remote_port = load_be16(packet + info.l4_offset)
    tuple.local_port = load_be16(packet + info.l4_offset + 2)
    if flow_find(s, &tuple, info.protocol) != NS_NIL:
        return True
    if info.protocol == IP_PROTOCOL_TCP:
        return relay_listens(r, tuple.local_port)
    return listens(s, tuple.local_port)


cdef void take(relay *r, uint64_t now_ns, const uint8_t *packet, uint32_t length,
               uint32_t peer) noexcept nogil:
    if not r.sending:
        ns_input(r.stack, now_ns, packet, length, peer)
    elif length <= sizeof(r.deferred):
        memcpy(r.deferred, packet, length)
        r.deferred_len = length


cdef void deliver(void *context, uint64_t now_ns, gro_batch *batch) noexcept nogil:
    cdef engine_core *core = <engine_core *>context
    cdef relay *r = <relay *>core.relay
    cdef unsigned int i, left = 0
    for i in range(batch.packet_count):
        if core.port == NULL or is_ours(r, batch.packets[i].data, batch.packets[i].length):
            take(r, now_ns, batch.packets[i].data, batch.packets[i].length,
                 batch.packets[i].peer)
        else:
            batch.packets[left] = batch.packets[i]
            left += 1
    # Held payload lies in the batch's packets.
    ns_input_end(r.stack)
    batch.packet_count = left


# -- out --

cdef void send(engine_core *core, relay *r, uint64_t now_ns) noexcept nogil:
    cdef ns_packet packets[NS_BATCH_MAX]
    cdef vnet_header whole
    cdef uint32_t i, n
    memset(&whole, 0, sizeof(whole))
    while core.out.flushes < OUT_TURN_FLUSHES:
        n = ns_next_packets(r.stack, now_ns, packets, NS_BATCH_MAX)
        if n == 0:
            return
        r.sending = True
        for i in range(n):
            outbound_packet(core, now_ns, packets[i].data, packets[i].len, &whole)
        r.sending = False
        if r.deferred_len:
            ns_input(r.stack, now_ns, r.deferred, r.deferred_len, 0)
            ns_input_end(r.stack)
            r.deferred_len = 0


cdef bint pull(void *context, uint64_t now_ns) noexcept nogil:
    cdef engine_core *core = <engine_core *>context
    cdef relay *r = <relay *>core.relay
    cdef bint more
    ns_poll(r.stack, now_ns)
    relay_events(r)
    more = relay_sockets(r, core.stack_ready)
    core.stack_ready = False
    send(core, r, now_ns)
    # What sending woke, a dial without a route for example.
    relay_events(r)
    return more or r.ready_head != RELAY_NONE


cdef uint64_t poll_at(void *context) noexcept nogil:
    return ns_poll_at((<relay *>(<engine_core *>context).relay).stack)


# -- joining --

cdef int netport_attach(engine_core *core, relay *r) noexcept nogil:
    cdef int error = loop_watch(core.loop, r.set, TAG_RELAY, False)
    if error:
        return error
    core.relay = <void *>r
    core.stack_port.context = core
    core.stack_port.deliver = deliver
    core.stack_port.pull = pull
    core.stack_port.poll_at = poll_at
    core.stack = &core.stack_port
    return 0


cdef relay *netport_detach(engine_core *core) noexcept nogil:
    cdef relay *r = <relay *>core.relay
    if core.stack != NULL:
        loop_forget(core.loop, r.set)
    core.stack = NULL
    core.relay = NULL
    return r


cdef int netport_set_mtu(engine_core *core, uint32_t mtu) noexcept nogil:
    cdef netstack *s = (<relay *>core.relay).stack
    if mtu > <uint32_t>STACK_MTU_MAX or ns_set_mtu(s, max(mtu, <uint32_t>STACK_MTU_MIN)) != NS_OK:
        return -EMSGSIZE
    return 0


cdef bint is_among(const uint8_t *address, const uint8_t *addresses, uint32_t n) noexcept nogil:
    cdef uint32_t i
    for i in range(n):
        if memcmp(address, addresses + 16 * i, 16) == 0:
            return True
    return False


cdef int netport_set_addresses(engine_core *core, const uint8_t *addresses,
                               uint32_t count) noexcept nogil:
    cdef netstack *s = (<relay *>core.relay).stack
    cdef uint32_t i = 0
    while i < s.addresses:
        if is_among(s.address[i], addresses, count):
            i += 1
        else:
            ns_remove_address(s, s.address[i])
    for i in range(count):
        ns_add_address(s, addresses + 16 * i)
    return 0
