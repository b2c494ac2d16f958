# SPDX-License-Identifier: Apache-2.0
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cext.host.tun cimport iovec
from cext.wire.endpoint cimport endpoint


cdef extern from "host/stream.h" nogil:
    enum:
        STREAM_READABLE
        STREAM_WRITABLE
        STREAM_FAILED
        STREAM_EVENTS_MAX

    struct stream_event:
        uint64_t tag
        uint32_t flags

    int stream_set_open(int *set)
    void stream_set_close(int *set)
    int stream_watch(int set, int fd, uint64_t tag)
    int stream_wait(int set, stream_event *events)
    int stream_prepare(int fd)
    int stream_connect(const endpoint *to)
    int stream_error(int fd)
    int stream_read(int fd, const iovec *parts, unsigned int n)
    int stream_send(int fd, const uint8_t *data, uint32_t length)
    int stream_send_parts(int fd, const iovec *parts, unsigned int n)
    void stream_shutdown(int fd)
    void stream_close(int fd)
    void stream_reset(int fd)
    int datagram_bind(const endpoint *local)
    int datagram_connect(const endpoint *to)
    int datagram_port(int fd)
    int datagram_send(int fd, const endpoint *to, const uint8_t *data, uint32_t length)
    int datagram_receive(int fd, endpoint *source, uint8_t *data, uint32_t capacity)
