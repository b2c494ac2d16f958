# SPDX-License-Identifier: Apache-2.0
from libc.stdint cimport uint8_t, uint16_t, uint32_t

from cext.host.tun cimport iovec
from cext.wire.vnet cimport vnet_header


cdef extern from "engine/gro.h" nogil:
    enum:
        GRO_PACKETS_MAX
        GRO_VECTORS_MAX
        GRO_NONE

    struct gro_packet:
        uint8_t *data
        uint16_t length "len"
        uint16_t next
        uint32_t peer

    struct gro_group:
        uint16_t first
        uint16_t last
        uint16_t count
        uint16_t segment_len
        uint32_t bytes

    struct gro_batch:
        gro_packet packets[256]
        gro_group groups[256]
        uint16_t packet_count
        uint16_t group_count

    void gro_coalesce(gro_batch *b, bint tcp, bint udp)
    unsigned int gro_vectors(gro_batch *b, unsigned int i, vnet_header *header, iovec *vectors)
