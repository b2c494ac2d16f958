# SPDX-License-Identifier: Apache-2.0
"""The way out: inner packet -> route -> cut -> prepare -> seal -> send.

Datagrams to one peer are laid back to back, each with its header and tag, until
they no longer fit into one UDP_SEGMENT send: such a row is a run. Runs of several
peers share one area and one sendmmsg(2).

    packet  = one wg_route(), one look at its ECN
    segment = one wg_send_prepare(), written where it is going to be sent from
    area full, or nothing left to read -> outbound_flush()
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from cext.base.drops cimport drop_reason
from cext.crypto.crypto cimport AEAD_BATCH_MAX
from cext.engine.batch cimport seal_batch
from cext.engine.core cimport (
    DROP_ENGINE_NO_BUFFER,
    DROP_ENGINE_TOO_BIG,
    DROP_HOST_SEND_BUFFER_FULL,
    DROP_HOST_SEND_FAILED,
    ENGINE_MTU_MAX,
    EVENT_SOURCE_LOST,
    core_may_send_icmp,
    core_outer_tos,
    core_size_buffers,
    engine_core,
    event_put,
    outbound,
)
from cext.engine.gro cimport gro_batch
from cext.engine.gso cimport gso, gso_begin, gso_packet_len, gso_write
from cext.host.tun cimport tun_link, tun_look
from cext.host.udp cimport UDP_PAYLOAD_MAX, UDP_SEGMENTS_MAX, UDP_SEND_MAX, udp_run, udp_send
from cext.wire.endpoint cimport WT_AF_NONE
from cext.wire.ip cimport ip_icmp_too_big, ip_icmp_unreachable
from cext.wire.vnet cimport vnet_header
from cext.wireguard.device cimport (
    WG_HEADER_LEN,
    WG_OUT_READY,
    WG_OUT_STAGE,
    WG_TRAILER_LEN,
    wg_drops,
    wg_outbound,
    wg_peer,
    wg_peer_clear_source,
    wg_peer_endpoint,
    wg_peer_public_key,
    wg_transmit,
)
from cext.wireguard.send cimport (
    wg_next_staged,
    wg_next_transmit,
    wg_route,
    wg_send_done,
    wg_send_prepare,
    wg_stage,
)

cdef enum:
    ICMP_HOST_UNREACHABLE = 1
    ICMPV6_ADDRESS_UNREACHABLE = 3
    TRANSMITS_PER_TURN = 16
    # DSCP AF41, as the kernel module marks its handshake messages.
    HANDSHAKE_TOS = 0x88
    # IPv6 has 20 bytes more of header within the same 64 KiB.
    RUN_BYTES_MAX = UDP_PAYLOAD_MAX - 20


cdef void count(engine_core *core, drop_reason reason, uint64_t packets) noexcept nogil:
    wg_drops(core.device).count[<int>reason] += packets


# -- errors to the inner sender --

cdef void answer(engine_core *core, uint64_t now_ns, size_t length) noexcept nogil:
    cdef gro_batch *batch = &core.inbound.delivered
    # Never while the batch is in use: it is filled and delivered within one call.
    if length == 0 or batch.packet_count != 0:
        return
    batch.packets[0].data = core.icmp
    batch.packets[0].length = <uint32_t>length
    batch.packets[0].peer = 0
    batch.packet_count = 1
    if core.stack != NULL:
        core.stack.deliver(core.stack.context, now_ns, batch)
    if batch.packet_count and core.port != NULL:
        core.port.deliver(core.port.context, now_ns, batch)
    batch.packet_count = 0
    core.statistics.icmp_errors += 1


cdef void unreachable(engine_core *core, uint64_t now_ns, const uint8_t *packet,
                      uint32_t length) noexcept nogil:
    if core_may_send_icmp(core, now_ns):
        answer(core, now_ns, ip_icmp_unreachable(core.icmp, packet, length, NULL,
                                                 ICMP_HOST_UNREACHABLE,
                                                 ICMPV6_ADDRESS_UNREACHABLE))


cdef bint has_grown(engine_core *core, uint32_t length) noexcept nogil:
    """Return whether the device's MTU was raised to this length or more; take it over then.

    The host hands out no packet above its device's MTU: such a packet tells before any notice
    does that somebody changed it. An ICMP error would leave a path MTU in the host for minutes.
    """
    cdef tun_link link
    if tun_look(&core.tun, &link) or link.mtu < length or link.mtu > ENGINE_MTU_MAX:
        return False
    core.tun.mtu = link.mtu
    core_size_buffers(core, link.mtu)
    return True


cdef void too_big(engine_core *core, uint64_t now_ns, const uint8_t *packet,
                  uint32_t length) noexcept nogil:
    count(core, DROP_ENGINE_TOO_BIG, 1)
    if core_may_send_icmp(core, now_ns):
        answer(core, now_ns, ip_icmp_too_big(core.icmp, packet, length, NULL,
                                             <uint32_t>core.tun.mtu))


# -- runs --

cdef uint8_t *reserve(engine_core *core, uint64_t now_ns, uint32_t length) noexcept nogil:
    """Return room for one datagram of this much payload, its run and its job; or NULL."""
    cdef outbound *out = &core.out
    cdef uint32_t room = WG_HEADER_LEN + length + WG_TRAILER_LEN
    if (out.job_count == AEAD_BATCH_MAX):
        seal_batch(core, out.jobs, out.job_count)
        out.job_count = 0
    if out.used + room > out.area_size or out.run_count == UDP_SEND_MAX:
        outbound_flush(core, now_ns)
    if room > out.area_size:
        return NULL
    return out.area + out.used


cdef void append(engine_core *core, wg_peer *peer, const wg_outbound *ready, uint8_t *slot,
                 uint8_t tos) noexcept nogil:
    """Add the datagram at `slot`, which lies right behind the last one."""
    cdef outbound *out = &core.out
    cdef unsigned int last = out.run_count - 1
    cdef udp_run *run
    out.used += ready.length
    out.job_count += 1
    if out.open and out.peers[last] == peer:
        run = &out.runs[last]
        if (run.tos == tos and ready.length <= run.segment_len
                and run.length + ready.length <= RUN_BYTES_MAX
                and out.counts[last] < UDP_SEGMENTS_MAX):
            run.length += ready.length
            out.counts[last] += 1
            out.open = ready.length == run.segment_len
            return
    run = &out.runs[out.run_count]
    run.to = ready.endpoint[0]
    run.data = slot
    run.length = ready.length
    run.segment_len = ready.length
    run.tos = tos
    out.peers[out.run_count] = peer
    out.counts[out.run_count] = 1
    out.run_count += 1
    out.open = True


cdef void outbound_flush(engine_core *core, uint64_t now_ns) noexcept nogil:
    cdef outbound *out = &core.out
    cdef uint64_t failed = core.udp.statistics.send_failed
    cdef uint64_t full = core.udp.statistics.send_full
    cdef unsigned int i
    if out.run_count == 0:
        return
    if out.job_count:
        seal_batch(core, out.jobs, out.job_count)
    udp_send(&core.udp, out.runs, out.run_count)
    for i in range(out.run_count):
        # What did not leave cannot be answered: it must not start the wait for an answer.
        wg_send_done(core.device, now_ns, out.peers[i], out.counts[i], out.runs[i].length,
                     out.runs[i].error == 0)
        core.statistics.tx_packets += out.counts[i]
        core.statistics.tx_bytes += out.runs[i].length
    for i in range(out.run_count):
        if out.runs[i].source_lost:
            source_lost(core, out.peers[i])
    failed = core.udp.statistics.send_failed - failed
    full = core.udp.statistics.send_full - full
    count(core, DROP_HOST_SEND_BUFFER_FULL, full)
    count(core, DROP_HOST_SEND_FAILED, failed - full)
    out.run_count = 0
    out.job_count = 0
    out.used = 0
    out.open = False
    out.flushes += 1


cdef void source_lost(engine_core *core, wg_peer *peer) noexcept nogil:
    wg_peer_clear_source(core.device, peer)
    event_put(&core.events, EVENT_SOURCE_LOST, wg_peer_public_key(peer), 0)


# -- packets --

cdef void send_one(engine_core *core, uint64_t now_ns, wg_peer *peer, uint8_t *slot,
                   uint32_t length, uint8_t tos) noexcept nogil:
    cdef outbound *out = &core.out
    cdef wg_outbound ready
    cdef int verdict = wg_send_prepare(core.device, now_ns, peer, slot, length, core.tun.mtu,
                                       &ready, &out.jobs[out.job_count])
    if verdict == WG_OUT_READY:
        append(core, peer, &ready, slot, tos)
    elif verdict == WG_OUT_STAGE:
        wg_stage(core.device, now_ns, peer, slot + WG_HEADER_LEN, length)
    elif wg_peer_endpoint(peer).family == WT_AF_NONE:
        unreachable(core, now_ns, slot + WG_HEADER_LEN, length)


cdef void outbound_packet(engine_core *core, uint64_t now_ns, uint8_t *packet,
                          uint32_t length, const vnet_header *header) noexcept nogil:
    cdef gso cut
    cdef wg_peer *peer
    cdef uint8_t *slot
    cdef uint8_t tos
    cdef uint32_t i, size
    cdef drop_reason reason = gso_begin(&cut, packet, length, header)
    if <int>reason >= 0:
        count(core, reason, 1)
        return
    peer = wg_route(core.device, packet, length)
    if peer == NULL:
        unreachable(core, now_ns, packet, length)
        return
    tos = core_outer_tos(packet)
    for i in range(cut.segments):
        size = gso_packet_len(&cut, i)
        if size > core.tun.mtu and not has_grown(core, size):
            too_big(core, now_ns, packet, length)
            return
        slot = reserve(core, now_ns, size)
        if slot == NULL:
            count(core, DROP_ENGINE_NO_BUFFER, cut.segments - i)
            return
        gso_write(&cut, i, slot + WG_HEADER_LEN)
        send_one(core, now_ns, peer, slot, size, tos)


cdef void outbound_staged(engine_core *core, uint64_t now_ns) noexcept nogil:
    cdef wg_peer *peer = NULL
    cdef const uint8_t *packet = NULL
    cdef uint8_t *slot
    cdef uint32_t length = 0
    while wg_next_staged(core.device, now_ns, &peer, &packet, &length):
        slot = reserve(core, now_ns, length)
        if slot == NULL:
            count(core, DROP_ENGINE_NO_BUFFER, 1)
            continue
        memcpy(slot + WG_HEADER_LEN, packet, length)
        send_one(core, now_ns, peer, slot, length, core_outer_tos(packet))


cdef void send_transmits(engine_core *core, wg_transmit *messages,
                         unsigned int n) noexcept nogil:
    cdef udp_run runs[4]
    cdef uint64_t failed = core.udp.statistics.send_failed
    cdef unsigned int i
    memset(runs, 0, sizeof(runs))
    for i in range(n):
        runs[i].to = messages[i].to
        runs[i].data = messages[i].data
        runs[i].length = messages[i].length
        runs[i].segment_len = messages[i].length
        # A keepalive is a data message to anybody who watches.
        runs[i].tos = HANDSHAKE_TOS if messages[i].data[0] != 4 else 0
    udp_send(&core.udp, runs, n)
    for i in range(n):
        if runs[i].source_lost and messages[i].peer != NULL:
            source_lost(core, messages[i].peer)
    count(core, DROP_HOST_SEND_FAILED, core.udp.statistics.send_failed - failed)


cdef void outbound_transmits(engine_core *core, uint64_t now_ns) noexcept nogil:
    cdef wg_transmit messages[4]
    cdef unsigned int n = 0, _made
    # An initiation costs two Diffie-Hellmans: thousands of peers that begin at once must
    # not hold up data. What is left makes wg_poll_at() say "now".
    for _made in range(TRANSMITS_PER_TURN):
        if not wg_next_transmit(core.device, now_ns, &messages[n]):
            break
        n += 1
        if n == 4:
            send_transmits(core, messages, n)
            n = 0
    if n:
        send_transmits(core, messages, n)
