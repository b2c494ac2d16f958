# SPDX-License-Identifier: Apache-2.0
from libc.stdint cimport uint8_t, uint16_t


cdef extern from "wire/vnet.h" nogil:
    enum:
        VNET_HEADER_LEN
        VNET_NEEDS_CHECKSUM
        VNET_DATA_VALID
        VNET_GSO_NONE
        VNET_GSO_TCPV4
        VNET_GSO_TCPV6
        VNET_GSO_UDP_L4
        VNET_GSO_ECN

    struct vnet_header:
        uint8_t flags
        uint8_t gso_type
        uint16_t header_len
        uint16_t segment_len
        uint16_t checksum_start
        uint16_t checksum_offset
