# SPDX-License-Identifier: Apache-2.0
from libc.stdint cimport uint8_t, uint64_t

from cext.wireguard.state cimport wg_device, wg_peer


cdef class Device:
    cdef wg_device *dev
    cdef uint64_t random_state
    cdef object __weakref__

    cdef wg_peer *peer(self, bytes public_key) except NULL
    cdef object seal(self, uint64_t now_ns, wg_peer *peer, const uint8_t *packet,
                     size_t length, size_t mtu_bytes)
