# SPDX-License-Identifier: Apache-2.0
from libc.stdint cimport uint8_t, uint16_t, uint32_t


cdef extern from "wire/endpoint.h" nogil:
    enum:
        WT_AF_NONE
        WT_AF_INET
        WT_AF_INET6

    struct endpoint:
        uint8_t family
        uint8_t source_known
        uint16_t port
        uint32_t scope_id
        uint32_t source_ifindex
        uint8_t address[16]
        uint8_t source[16]
