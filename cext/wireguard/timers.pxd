# SPDX-License-Identifier: Apache-2.0
# When a device wants to be woken, and the moments that timers depend on.
from libc.stdint cimport uint32_t, uint64_t

from cext.wireguard.state cimport wg_device, wg_peer


# When the device wants its next turn: 0 while handshakes, staged packets or messages of
# its own wait to be taken, else when to call wg_advance(); WG_NEVER when nothing is
# pending. May be early, is never late.
cdef uint64_t wg_poll_at(const wg_device *dev) noexcept nogil
# Run what is due, release removed peers. Then drain wg_next_transmit().
cdef void wg_advance(wg_device *dev, uint64_t now_ns) noexcept nogil

# -- for this room --
# Called after an authenticated packet with an inner packet was sent, or received.
cdef void timers_data_sent(wg_device *dev, uint64_t now_ns, wg_peer *peer) noexcept nogil
cdef void timers_data_received(wg_device *dev, uint64_t now_ns, wg_peer *peer) noexcept nogil
# Called after any authenticated packet was sent, or received: keepalives and
# handshakes too; and after either of both.
cdef void timers_any_sent(wg_peer *peer) noexcept nogil
cdef void timers_any_received(wg_peer *peer) noexcept nogil
cdef void timers_any_traversal(wg_device *dev, uint64_t now_ns, wg_peer *peer) noexcept nogil
# Called after an initiation was sent.
cdef void timers_handshake_initiated(wg_device *dev, uint64_t now_ns,
                                     wg_peer *peer) noexcept nogil
# Called when a session was confirmed: a response came, or the first packet of next.
cdef void timers_handshake_complete(wg_device *dev, uint64_t now_ns, wg_peer *peer,
                                    uint64_t duration_ns) noexcept nogil
# Called when keys were derived.
cdef void timers_session_derived(wg_device *dev, uint64_t now_ns, wg_peer *peer) noexcept nogil
# Called after sending, and after receiving, a transport packet.
cdef void timers_keep_key_fresh_sending(wg_device *dev, uint64_t now_ns,
                                        wg_peer *peer) noexcept nogil
cdef void timers_keep_key_fresh_receiving(wg_device *dev, uint64_t now_ns,
                                          wg_peer *peer) noexcept nogil

# Ask for an initiation. What asks for the first time resets the count of tries.
cdef void request_handshake(wg_device *dev, uint64_t now_ns, wg_peer *peer,
                            bint is_retry) noexcept nogil
cdef void request_keepalive(wg_device *dev, uint64_t now_ns, wg_peer *peer) noexcept nogil

# Room for `peers` in the heap; 0, or -1 without memory.
cdef int timers_reserve(wg_device *dev, uint32_t peers) noexcept nogil
cdef void timers_init_peer(wg_peer *peer) noexcept nogil
# All off, and out of the heap.
cdef void timers_stop(wg_device *dev, wg_peer *peer) noexcept nogil
