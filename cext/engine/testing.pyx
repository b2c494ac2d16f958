# SPDX-License-Identifier: Apache-2.0
# cython: warn.undeclared=False
"""Segmentation and coalescing for tests; not part of the firmware executable."""

from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize

from cext.base.drops cimport drop_reason, drop_reason_name
from cext.engine.core cimport (
    core_outer_tos,
    core_take_congestion,
    engine_event,
    event_put,
    event_ring,
    event_take,
)
from cext.engine.gro cimport (
    GRO_PACKETS_MAX,
    GRO_VECTORS_MAX,
    gro_batch,
    gro_coalesce,
    gro_vectors,
)
from cext.engine.gso cimport gso, gso_begin, gso_packet_len, gso_write
from cext.host.loop cimport wake_close, wake_open
from cext.host.tun cimport iovec
from cext.wire.vnet cimport vnet_header


cdef int fill(vnet_header *header, tuple values) except -1:
    (header.flags, header.gso_type, header.header_len, header.segment_len,
     header.checksum_start, header.checksum_offset) = values
    return 0


def segment(bytes packet, tuple header):
    """Cut a super-packet; return the packets, or the name of a drop reason."""
    cdef vnet_header vnet
    cdef gso cut
    cdef drop_reason reason
    cdef uint8_t *memory = <uint8_t *>malloc(len(packet) + 1)
    cdef uint32_t i
    cdef bytes out
    try:
        fill(&vnet, header)
        memcpy(memory, PyBytes_AS_STRING(packet), len(packet))
        reason = gso_begin(&cut, memory, len(packet), &vnet)
        if <int>reason >= 0:
            return drop_reason_name(reason).decode()
        packets = []
        for i in range(cut.segments):
            out = PyBytes_FromStringAndSize(NULL, gso_packet_len(&cut, i))
            gso_write(&cut, i, <uint8_t *>PyBytes_AS_STRING(out))
            packets.append(out)
        return packets
    finally:
        free(memory)


def coalesce(list packets, bint tcp=True, bint udp=True):
    """Join packets; return a list of (vnet header, packet, packets in it)."""
    cdef gro_batch *batch = <gro_batch *>malloc(sizeof(gro_batch))
    cdef iovec *vectors = <iovec *>malloc(GRO_VECTORS_MAX * sizeof(iovec))
    cdef vnet_header header
    cdef unsigned int i, j, n
    cdef bytes packet
    if len(packets) > GRO_PACKETS_MAX:
        raise ValueError(f"packets: at most {GRO_PACKETS_MAX}")
    try:
        batch.packet_count = 0
        for packet in packets:
            # Off by one on purpose: nothing may rely on alignment.
            memory = <size_t>malloc(len(packet) + 1)
            batch.packets[batch.packet_count].data = <uint8_t *>memory + 1
            batch.packets[batch.packet_count].length = len(packet)
            memcpy(<uint8_t *>memory + 1, PyBytes_AS_STRING(packet), len(packet))
            batch.packet_count += 1
        gro_coalesce(batch, tcp, udp)
        joined = []
        for i in range(batch.group_count):
            n = gro_vectors(batch, i, &header, vectors)
            parts = [(<char *>vectors[j].iov_base)[:vectors[j].iov_len] for j in range(1, n)]
            joined.append((
                (header.flags, header.gso_type, header.header_len, header.segment_len,
                 header.checksum_start, header.checksum_offset),
                b"".join(parts),
                batch.groups[i].count,
            ))
        return joined
    finally:
        for i in range(batch.packet_count):
            free(batch.packets[i].data - 1)
        free(vectors)
        free(batch)


def put_events(list kinds):
    """Put events into a ring that nobody empties; return the kinds that found room."""
    cdef event_ring *ring = <event_ring *>calloc(1, sizeof(event_ring))
    cdef engine_event event
    if ring == NULL:
        raise MemoryError
    wake_open(&ring.wake)
    try:
        for kind in kinds:
            event_put(ring, kind, NULL, 0)
        found = []
        while event_take(ring, &event):
            found.append(event.kind)
        assert ring.lost == len(kinds) - len(found)
        return found
    finally:
        wake_close(&ring.wake)
        free(ring)


def outer_tos(bytes packet):
    """Return the outer TOS for an inner packet."""
    return core_outer_tos(<const uint8_t *>PyBytes_AS_STRING(packet))


def take_congestion(bytes packet):
    """Return the packet with an outer CE mark carried inside."""
    cdef bytearray copy = bytearray(packet)
    core_take_congestion(<uint8_t *><char *>copy)
    return bytes(copy)
