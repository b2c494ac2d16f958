# SPDX-License-Identifier: Apache-2.0
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cext.wire.vnet cimport vnet_header


cdef extern from "host/tun.h" nogil:
    enum:
        TUN_HEADROOM
        TUN_PACKET_MAX

    ctypedef enum tun_kind "enum tun_kind":
        TUN_NONE
        TUN_DEVICE
        TUN_SOCKET

    struct iovec:
        void *iov_base
        size_t iov_len

    struct tun_statistics:
        uint64_t reads
        uint64_t writes

    struct tun:
        tun_kind kind
        int fd
        uint32_t ifindex
        uint32_t mtu
        uint32_t features
        char name[16]
        tun_statistics statistics

    struct tun_link:
        uint32_t ifindex
        uint32_t mtu
        bint is_up

    void tun_init(tun *t)
    int tun_open(tun *t, const char *name, uint32_t mtu, int netns_fd, uint32_t wanted)
    int tun_attach(tun *t, int fd, uint32_t mtu, uint32_t wanted)
    int tun_attach_socket(tun *t, int fd, uint32_t mtu)
    void tun_close(tun *t)
    int tun_set_mtu(tun *t, uint32_t mtu)
    int tun_look(tun *t, tun_link *link)
    int tun_read(tun *t, uint8_t *packet, uint32_t capacity, vnet_header *header)
    int tun_write(tun *t, const vnet_header *header, iovec *vectors, unsigned int n)
