# SPDX-License-Identifier: Apache-2.0
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from cext.wire.endpoint cimport endpoint


cdef extern from "host/udp.h" nogil:
    enum:
        UDP_PAYLOAD_MAX
        UDP_SEGMENTS_MAX
        UDP_RECEIVE_MAX
        UDP_SEND_MAX

    ctypedef enum udp_family "enum udp_family":
        UDP_V4
        UDP_V6
        UDP_FAMILIES

    struct udp_statistics:
        uint64_t receive_calls
        uint64_t receive_buffers
        uint64_t send_calls
        uint64_t send_waits
        uint64_t send_failed
        uint64_t send_full
        uint64_t truncated

    struct udp_port:
        int fd[2]
        uint16_t port
        uint32_t features
        uint32_t fwmark
        char interface[16]
        int buffer_bytes
        udp_statistics statistics

    struct udp_buffer:
        uint8_t *data
        uint32_t capacity
        uint32_t length "len"
        uint32_t segment_len
        uint8_t tos
        endpoint source "from"

    struct udp_run:
        endpoint to
        uint8_t *data
        uint32_t length "len"
        uint32_t segment_len
        uint8_t tos
        bint source_lost
        int error

    void udp_init(udp_port *u, uint32_t features)
    int udp_open(udp_port *u, uint16_t port)
    void udp_close(udp_port *u)
    int udp_set_fwmark(udp_port *u, uint32_t mark)
    int udp_set_interface(udp_port *u, const char *name)
    int udp_receive(udp_port *u, udp_family family, udp_buffer *buffers, unsigned int n)
    void udp_send(udp_port *u, udp_run *runs, unsigned int n)
