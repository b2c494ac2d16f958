# SPDX-License-Identifier: Apache-2.0
"""A peer's lists, staged packets, endpoint and events.

Staged packets lie in one pool of the device: slots of equal size in a free list. A
peer keeps at most WG_MAX_STAGED_PER_PEER of them; its oldest makes room for a new
one, so that after an outage the newest traffic goes first. When the pool is empty a
peer can only replace a packet of its own, so one unreachable peer cannot push out
what waits for another.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from cext.base.drops cimport drop
from cext.base.secret cimport secret_erase
from cext.wire.endpoint cimport endpoint
from cext.wireguard.index_table cimport index_table_remove
from cext.wireguard.state cimport (
    LIST_READY,
    LIST_TRANSMIT,
    STAGED_NONE,
    WG_EVENT_ENDPOINT,
    WG_MAX_STAGED_PER_PEER,
    ring_at,
    ring_pop,
    staged_at,
    wg_device,
    wg_event,
    wg_link,
    wg_list,
    wg_peer,
    wg_staged,
)


cdef extern from "base/drops.h" nogil:
    enum:
        DROP_WG_STAGED_EXPIRED
        DROP_WG_STAGED_FULL


cdef void peer_append(wg_device *dev, int kind, wg_peer *peer) noexcept nogil:
    cdef wg_list *list_ = &dev.lists[kind]
    cdef wg_link *link = &peer.links[kind]

    if link.linked:
        return
    link.linked = True
    link.next = NULL
    link.previous = list_.last
    if list_.last != NULL:
        list_.last.links[kind].next = peer
    else:
        list_.first = peer
    list_.last = peer


cdef void peer_unlink(wg_device *dev, int kind, wg_peer *peer) noexcept nogil:
    cdef wg_list *list_ = &dev.lists[kind]
    cdef wg_link *link = &peer.links[kind]

    if not link.linked:
        return
    if link.previous != NULL:
        link.previous.links[kind].next = link.next
    else:
        list_.first = link.next
    if link.next != NULL:
        link.next.links[kind].previous = link.previous
    else:
        list_.last = link.previous
    link.linked = False
    link.next = NULL
    link.previous = NULL


cdef void peer_want(wg_device *dev, wg_peer *peer, uint32_t wants) noexcept nogil:
    peer.wants |= wants
    peer_append(dev, LIST_TRANSMIT, peer)


cdef void staged_push(wg_device *dev, wg_peer *peer, const uint8_t *packet,
                      uint32_t length) noexcept nogil:
    cdef uint32_t slot
    cdef wg_staged *staged

    if length > dev.limits.staged_packet_bytes:
        drop(&dev.drops, DROP_WG_STAGED_FULL)
        return
    if peer.staged_count >= WG_MAX_STAGED_PER_PEER or dev.staged_free == STAGED_NONE:
        drop(&dev.drops, DROP_WG_STAGED_FULL)
        if staged_pop(dev, peer) == STAGED_NONE:
            return
    slot = dev.staged_free
    staged = staged_at(dev, slot)
    dev.staged_free = staged.next
    staged.next = STAGED_NONE
    staged.length = length
    memcpy(staged + 1, packet, length)
    if peer.staged_last != STAGED_NONE:
        staged_at(dev, peer.staged_last).next = slot
    else:
        peer.staged_first = slot
    peer.staged_last = slot
    peer.staged_count += 1


cdef uint32_t staged_pop(wg_device *dev, wg_peer *peer) noexcept nogil:
    cdef uint32_t slot = peer.staged_first
    cdef wg_staged *staged

    if slot == STAGED_NONE:
        return slot
    staged = staged_at(dev, slot)
    peer.staged_first = staged.next
    if staged.next == STAGED_NONE:
        peer.staged_last = STAGED_NONE
    peer.staged_count -= 1
    staged.next = dev.staged_free
    dev.staged_free = slot
    return slot


cdef void staged_purge(wg_device *dev, wg_peer *peer) noexcept nogil:
    while staged_pop(dev, peer) != STAGED_NONE:
        drop(&dev.drops, DROP_WG_STAGED_EXPIRED)
    peer_unlink(dev, LIST_READY, peer)


cdef void peer_roam(wg_device *dev, uint64_t now_ns, wg_peer *peer,
                    const endpoint *source) noexcept nogil:
    cdef bint moved

    if memcmp(&peer.endpoint, source, sizeof(endpoint)) == 0:
        return
    moved = (peer.endpoint.family != source.family or peer.endpoint.port != source.port
             or peer.endpoint.scope_id != source.scope_id
             or memcmp(peer.endpoint.address, source.address, sizeof(source.address)) != 0)
    peer.endpoint = source[0]
    if moved:
        event_push(dev, WG_EVENT_ENDPOINT, peer, unix_time(dev, now_ns), 0)


cdef void peer_forget_handshake(wg_device *dev, wg_peer *peer) noexcept nogil:
    index_table_remove(&dev.indices, peer.handshake.local_index)
    secret_erase(&peer.handshake, sizeof(peer.handshake))


cdef void event_push(wg_device *dev, uint32_t kind, const wg_peer *peer, uint64_t unix_ns,
                     uint64_t duration_ns) noexcept nogil:
    cdef wg_event *event

    # The oldest event makes room: what is true now matters more.
    if dev.event_ring.count == dev.event_ring.capacity:
        ring_pop(&dev.event_ring)
    event = &dev.events[ring_at(&dev.event_ring, dev.event_ring.count)]
    dev.event_ring.count += 1
    event.kind = kind
    event.unix_ns = unix_ns
    event.duration_ns = duration_ns
    if peer != NULL:
        memcpy(event.public_key, peer.remote.public_key, sizeof(event.public_key))
    else:
        memset(event.public_key, 0, sizeof(event.public_key))


cdef uint64_t unix_time(const wg_device *dev, uint64_t at_ns) noexcept nogil:
    # Unsigned arithmetic: right for moments before the clock was set as well.
    return dev.unix_ns + (at_ns - dev.unix_at_ns) if dev.unix_ns else 0
