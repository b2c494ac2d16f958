# SPDX-License-Identifier: Apache-2.0
# Inner packets out, and what the device itself sends; the theory is in device.h.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cext.crypto.crypto cimport aead_job
from cext.wireguard.state cimport wg_device, wg_outbound, wg_peer, wg_transmit


# The peer that an IP packet belongs to by its destination. NULL: counted.
cdef wg_peer *wg_route(wg_device *dev, const uint8_t *packet, size_t length) noexcept nogil
# `buffer`: WG_HEADER_LEN bytes of room, `length` bytes of packet, WG_TRAILER_LEN
# bytes of room; any alignment. Writes header and padding (to 16, never past
# `mtu_bytes` of inner packet; 0 is no MTU) and fills the job, which seals in place.
# WG_OUT_STAGE leaves the buffer as it was.
cdef int wg_send_prepare(wg_device *dev, uint64_t now_ns, wg_peer *peer, uint8_t *buffer,
                         size_t length, size_t mtu_bytes, wg_outbound *outbound,
                         aead_job *job) noexcept nogil
# After sending to one peer: `packets` datagrams of together `length` bytes of UDP
# payload, of which at least one had an inner packet if `had_data`.
cdef void wg_send_done(wg_device *dev, uint64_t now_ns, wg_peer *peer, uint32_t packets,
                       uint64_t length, bint had_data) noexcept nogil
# Keep a copy until a session is there, and ask for a handshake. The oldest packet
# of the peer makes room; what cannot be kept is counted.
cdef void wg_stage(wg_device *dev, uint64_t now_ns, wg_peer *peer, const uint8_t *packet,
                   size_t length) noexcept nogil
# The next packet that waited and now can go: give it to wg_send_prepare() for
# `peer`. `packet` is readable until the next wg_stage() or wg_next_staged().
cdef bint wg_next_staged(wg_device *dev, uint64_t now_ns, wg_peer **peer,
                         const uint8_t **packet, uint32_t *length) noexcept nogil
# Handshakes, cookie replies and keepalives. Timers and counters are already
# updated: do not call wg_send_done() for these.
cdef bint wg_next_transmit(wg_device *dev, uint64_t now_ns,
                           wg_transmit *transmit) noexcept nogil
