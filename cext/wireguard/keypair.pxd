# SPDX-License-Identifier: Apache-2.0
# Moving sessions through current, previous and next; the theory is in keypair.h.
from libc.stdint cimport uint32_t, uint64_t

from cext.wireguard.constants cimport REJECT_AFTER_MESSAGES, REJECT_AFTER_TIME_NS
from cext.wireguard.state cimport noise_keys, wg_device, wg_keypair, wg_peer


# Make a finished handshake a session: current for the initiator, next for the
# responder. `local_index` is the handshake's (initiator) or 0 to draw one.
cdef wg_keypair *keypair_begin(wg_device *dev, uint64_t now_ns, wg_peer *peer, bint initiator,
                               uint32_t local_index) noexcept nogil
cdef void keypair_set_keys(wg_keypair *keypair, const noise_keys *keys,
                           uint32_t remote_index) noexcept nogil
# The first packet of `next` came: it becomes current. False when it is another one.
cdef bint keypair_confirm(wg_device *dev, wg_peer *peer, wg_keypair *keypair) noexcept nogil
cdef void keypair_forget(wg_device *dev, wg_keypair **which) noexcept nogil
cdef void keypair_forget_all(wg_device *dev, wg_peer *peer) noexcept nogil


# The session that can send now, or NULL.
cdef inline wg_keypair *keypair_for_sending(const wg_peer *peer,
                                            uint64_t now_ns) noexcept nogil:
    cdef wg_keypair *keypair = peer.current

    if (keypair == NULL or not keypair.can_send
            or now_ns - keypair.created_ns >= REJECT_AFTER_TIME_NS
            or keypair.send_counter >= REJECT_AFTER_MESSAGES):
        return NULL
    return keypair
