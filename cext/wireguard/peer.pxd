# SPDX-License-Identifier: Apache-2.0
# What happens to one peer's state besides timers: lists, staged packets, endpoint, events.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cext.wire.endpoint cimport endpoint
from cext.wireguard.state cimport wg_device, wg_peer


# Lists (LIST_*): appending a peer that is on the list and removing one that is not
# change nothing.
cdef void peer_append(wg_device *dev, int kind, wg_peer *peer) noexcept nogil
cdef void peer_unlink(wg_device *dev, int kind, wg_peer *peer) noexcept nogil
# Ask wg_next_transmit() for WANT_* messages.
cdef void peer_want(wg_device *dev, wg_peer *peer, uint32_t wants) noexcept nogil

# Staged packets. Both removals take the oldest; `pop` returns the slot, which is
# free already but readable until the next push, or STAGED_NONE.
cdef void staged_push(wg_device *dev, wg_peer *peer, const uint8_t *packet,
                      uint32_t length) noexcept nogil
cdef uint32_t staged_pop(wg_device *dev, wg_peer *peer) noexcept nogil
cdef void staged_purge(wg_device *dev, wg_peer *peer) noexcept nogil

# Follow the peer to where an authenticated message came from.
cdef void peer_roam(wg_device *dev, uint64_t now_ns, wg_peer *peer,
                    const endpoint *source) noexcept nogil
# Forget the pending handshake.
cdef void peer_forget_handshake(wg_device *dev, wg_peer *peer) noexcept nogil

cdef void event_push(wg_device *dev, uint32_t kind, const wg_peer *peer, uint64_t unix_ns,
                     uint64_t duration_ns) noexcept nogil
# Wall clock for a moment of the monotonic one; 0 when the wall clock is not known.
cdef uint64_t unix_time(const wg_device *dev, uint64_t at_ns) noexcept nogil
