# SPDX-License-Identifier: Apache-2.0
"""Sessions of a peer: which of the three slots is current, previous and next."""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy

from cext.base.secret cimport secret_erase
from cext.wireguard.index_table cimport (
    index_table_insert,
    index_table_lookup,
    index_table_remove,
)
from cext.wireguard.state cimport index_entry, noise_keys, wg_device, wg_keypair, wg_peer


cdef void keypair_forget(wg_device *dev, wg_keypair **which) noexcept nogil:
    if which[0] == NULL:
        return
    index_table_remove(&dev.indices, which[0].local_index)
    secret_erase(which[0], sizeof(wg_keypair))
    which[0] = NULL


cdef void keypair_forget_all(wg_device *dev, wg_peer *peer) noexcept nogil:
    keypair_forget(dev, &peer.current)
    keypair_forget(dev, &peer.previous)
    keypair_forget(dev, &peer.next)


cdef void make_room(wg_device *dev, wg_peer *peer, bint initiator) noexcept nogil:
    """Move the sessions along; afterwards at least one slot is free."""
    keypair_forget(dev, &peer.previous)
    if not initiator:
        keypair_forget(dev, &peer.next)
    elif peer.next != NULL:
        # It stays receivable: the peer may have begun to use it already.
        keypair_forget(dev, &peer.current)
        peer.previous = peer.next
        peer.next = NULL
    else:
        peer.previous = peer.current
        peer.current = NULL


cdef wg_keypair *keypair_begin(wg_device *dev, uint64_t now_ns, wg_peer *peer, bint initiator,
                               uint32_t local_index) noexcept nogil:
    cdef index_entry *entry
    cdef wg_keypair *keypair
    cdef uint32_t slot = 0

    make_room(dev, peer, initiator)
    while peer.keypairs[slot].local_index != 0:
        slot += 1
    keypair = &peer.keypairs[slot]
    if local_index != 0:
        entry = index_table_lookup(&dev.indices, local_index)
        entry.slot = slot
    else:
        local_index = index_table_insert(dev, peer, slot)
    keypair.local_index = local_index
    keypair.created_ns = now_ns
    keypair.initiator = initiator
    if initiator:
        peer.current = keypair
    else:
        peer.next = keypair
    return keypair


cdef void keypair_set_keys(wg_keypair *keypair, const noise_keys *keys,
                           uint32_t remote_index) noexcept nogil:
    memcpy(keypair.send_key, keys.send, 32)
    memcpy(keypair.receive_key, keys.receive, 32)
    keypair.remote_index = remote_index
    keypair.can_send = True
    keypair.can_receive = True


cdef bint keypair_confirm(wg_device *dev, wg_peer *peer, wg_keypair *keypair) noexcept nogil:
    if keypair != peer.next:
        return False
    keypair_forget(dev, &peer.previous)
    peer.previous = peer.current
    peer.current = peer.next
    peer.next = NULL
    return True
