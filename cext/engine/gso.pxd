# SPDX-License-Identifier: Apache-2.0
from libc.stdint cimport uint8_t, uint32_t

from cext.base.drops cimport drop_reason
from cext.wire.vnet cimport vnet_header


cdef extern from "engine/gso.h" nogil:
    enum:
        GSO_WHOLE
        GSO_TCP
        GSO_UDP

    struct gso:
        uint8_t *packet
        uint32_t length "len"
        int kind
        uint32_t header_len
        uint32_t l4_offset
        uint32_t segment_len
        uint32_t segments

    drop_reason gso_begin(gso *g, uint8_t *packet, uint32_t length, const vnet_header *header)
    uint32_t gso_packet_len(const gso *g, uint32_t i)
    void gso_write(const gso *g, uint32_t i, uint8_t *out)
