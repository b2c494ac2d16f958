# SPDX-License-Identifier: Apache-2.0
"""The way in: receive -> prepare -> open -> finish in order -> inner port.

A received buffer holds datagrams of one sender back to back. They are decrypted
where they lie; what the inner port gets points into the buffers, so one round is
delivered completely before the next receive call.
"""

from libc.stdint cimport uint32_t, uint64_t

from cext.crypto.crypto cimport AEAD_BATCH_MAX
from cext.engine.batch cimport open_batch
from cext.engine.core cimport (
    DROP_ENGINE_NO_INNER_PORT,
    DROP_HOST_TRUNCATED,
    EVENT_SOCKET_ERROR,
    core_take_congestion,
    engine_core,
    event_put,
    inbound,
)
from cext.engine.gro cimport GRO_PACKETS_MAX, gro_batch
from cext.host.features cimport HOST_MMSG
from cext.host.udp cimport udp_buffer, udp_family, udp_receive
from cext.wireguard.device cimport (
    WG_IN_DELIVER,
    WG_IN_OPEN,
    wg_drops,
    wg_inbound,
    wg_peer_number,
)
from cext.wireguard.receive cimport wg_receive_finish, wg_receive_prepare

cdef enum:
    ECN_CE = 3


cdef void deliver(engine_core *core, uint64_t now_ns) noexcept nogil:
    """Hand over what is complete: to the stack what is its own, to the host the rest."""
    cdef gro_batch *batch = &core.inbound.delivered
    if batch.packet_count and core.stack != NULL:
        core.stack.deliver(core.stack.context, now_ns, batch)
    if batch.packet_count == 0:
        return
    if core.port != NULL:
        core.port.deliver(core.port.context, now_ns, batch)
    else:
        wg_drops(core.device).count[<int>DROP_ENGINE_NO_INNER_PORT] += batch.packet_count
    batch.packet_count = 0


cdef void finish(engine_core *core, uint64_t now_ns) noexcept nogil:
    """Open what was prepared; keep the order of arrival."""
    cdef inbound *held = &core.inbound
    cdef gro_batch *batch = &held.delivered
    cdef wg_inbound *packet
    cdef unsigned int i
    if held.count == 0:
        return
    open_batch(core, held.jobs, held.count)
    for i in range(held.count):
        packet = &held.packets[i]
        if wg_receive_finish(core.device, now_ns, packet) != WG_IN_DELIVER:
            continue
        if held.tos[i] & ECN_CE == ECN_CE:
            core_take_congestion(packet.payload)
        core.statistics.rx_packets += 1
        core.statistics.rx_bytes += packet.length
        batch.packets[batch.packet_count].data = packet.payload
        batch.packets[batch.packet_count].length = packet.length
        batch.packets[batch.packet_count].peer = wg_peer_number(packet.peer)
        batch.packet_count += 1
        if batch.packet_count == GRO_PACKETS_MAX:
            deliver(core, now_ns)
    held.count = 0


cdef void take_buffer(engine_core *core, uint64_t now_ns, udp_buffer *buffer) noexcept nogil:
    cdef inbound *held = &core.inbound
    cdef uint32_t at = 0, size
    while at < buffer.length:
        size = min(buffer.segment_len, buffer.length - at)
        if wg_receive_prepare(core.device, now_ns, buffer.data + at, size, &buffer.source,
                              &held.packets[held.count],
                              &held.jobs[held.count]) == WG_IN_OPEN:
            held.tos[held.count] = buffer.tos
            held.count += 1
            if held.count == AEAD_BATCH_MAX:
                finish(core, now_ns)
        at += size


cdef bint inbound_round(engine_core *core, uint64_t now_ns, int family) noexcept nogil:
    cdef inbound *held = &core.inbound
    cdef uint64_t truncated = core.udp.statistics.truncated
    cdef int i
    cdef int n = udp_receive(&core.udp, <udp_family>family, held.buffers, held.buffer_count)
    if n < 0:
        event_put(&core.events, EVENT_SOCKET_ERROR, NULL, <uint64_t>-n)
        return False
    for i in range(n):
        take_buffer(core, now_ns, &held.buffers[i])
    finish(core, now_ns)
    deliver(core, now_ns)
    wg_drops(core.device).count[<int>DROP_HOST_TRUNCATED] += (
        core.udp.statistics.truncated - truncated)
    # A buffer to spare says that nothing is left: another call would only hear so.
    return n > 0 and (<unsigned int>n == held.buffer_count or not core.udp.features & HOST_MMSG)
