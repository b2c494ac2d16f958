# SPDX-License-Identifier: Apache-2.0
"""Life, configuration and observation of a WireGuard device.

The flow through this room, with the module that does each step:

  datagram in   receive   length, type            drop what is no message of ours
                receive   transport data: receiver index -> keypair -> AEAD job
                          (the caller opens the jobs of a batch together)
                receive   tag, replay window, roaming, confirmation of `next`
                timers    keepalive owed, rekey due
                receive   inner length, allowed IPs -> deliver
                cookie    handshake message: MAC1, then MAC2 when under load
                receive   queue; wg_process_handshakes(): noise -> keypair -> timers
  packet out    send      allowed IPs -> peer -> keypair, counter, padding, AEAD job
                          (the caller seals the jobs of a batch together and sends)
                peer      or staged until a handshake is done
                timers    silence to be noticed, rekey due
  by itself     timers    what is due asks a peer for an initiation or a keepalive
                send      wg_next_transmit() makes them one at a time, when they leave

A peer is found in three ways: by public key (the hash table below), by session index
(index_table), by inner address (allowed_ips). It is on the list of all peers, and on
LIST_TRANSMIT or LIST_READY while it has something for the caller.

Modules call downwards only: receive -> device, send -> timers -> peer, keypair ->
noise, cookie, ratelimiter, allowed_ips, index_table, replay.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from cext.base.drops cimport drop_counters
from cext.base.endian cimport load_le64
from cext.base.secret cimport secret_equal, secret_erase
from cext.wire.endpoint cimport WT_AF_NONE, endpoint
from cext.wireguard.allowed_ips cimport (
    allowed_ips_bytes,
    allowed_ips_init,
    allowed_ips_insert,
    allowed_ips_prefix,
    allowed_ips_release,
    allowed_ips_remove,
    allowed_ips_remove_owner,
)
from cext.wireguard.constants cimport NS_PER_SECOND
from cext.wireguard.cookie cimport cookie_keys
from cext.wireguard.index_table cimport index_table_release, index_table_reserve
from cext.wireguard.keypair cimport keypair_for_sending, keypair_forget_all
from cext.wireguard.noise cimport (
    noise_begin,
    noise_is_meant,
    noise_make_ahead,
    noise_mean,
    noise_set_identity,
    noise_set_remote,
    noise_unmean,
)
from cext.wireguard.peer cimport (
    peer_append,
    peer_forget_handshake,
    peer_unlink,
    staged_purge,
    unix_time,
)
from cext.wireguard.ratelimiter cimport (
    ratelimiter_bytes,
    ratelimiter_init,
    ratelimiter_release,
)
from cext.wireguard.state cimport (
    ALLOWED_IPS_NONE,
    LIST_ALL,
    LIST_TRANSMIT,
    NOISE_EPHEMERALS,
    STAGED_NONE,
    TIMER_PERSISTENT_KEEPALIVE,
    WG_ERROR_LIMIT,
    WG_ERROR_NO_MEMORY,
    WG_ERROR_OWN_KEY,
    WG_EVENT_TIMESTAMP_FLOOR,
    WG_KEY_LEN,
    WG_NEVER,
    index_entry,
    ring_at,
    ring_pop,
    staged_at,
    wg_device,
    wg_event,
    wg_limits,
    wg_peer,
    wg_peer_status,
    wg_prefix,
    wg_queued,
    wg_random_fn,
    wg_staged,
    wg_transmit,
)
from cext.wireguard.timers cimport (
    request_handshake,
    request_keepalive,
    timers_any_traversal,
    timers_init_peer,
    timers_reserve,
    timers_stop,
)


# -- life --

cdef void default(uint32_t *value, uint32_t otherwise) noexcept nogil:
    if value[0] == 0:
        value[0] = otherwise


cdef void complete(wg_limits *limits) noexcept nogil:
    default(&limits.max_peers, 65536)
    default(&limits.max_allowed_ips, 262144)
    default(&limits.max_staged_packets, 256)
    default(&limits.staged_packet_bytes, 1500)
    default(&limits.handshake_queue, 256)
    default(&limits.handshake_rate, 200)
    default(&limits.ratelimiter_entries, 4096)
    default(&limits.outbox, 256)
    default(&limits.events, 256)
    if limits.floor_step_ns == 0:
        limits.floor_step_ns = 4 * 3600 * NS_PER_SECOND


cdef void *reserve(wg_device *dev, size_t count, size_t size) noexcept nogil:
    dev.bytes += count * size
    return calloc(count, size)


cdef bint reserve_pools(wg_device *dev) noexcept nogil:
    cdef wg_limits *limits = &dev.limits
    cdef size_t packet = sizeof(wg_staged) + limits.staged_packet_bytes

    # Slots keep the alignment of their heads.
    dev.staged_slot_bytes = (packet + 7) & ~<size_t>7
    dev.staged_pool = <uint8_t *>reserve(dev, limits.max_staged_packets,
                                         dev.staged_slot_bytes)
    dev.queue = <wg_queued *>reserve(dev, limits.handshake_queue, sizeof(wg_queued))
    dev.outbox = <wg_transmit *>reserve(dev, limits.outbox, sizeof(wg_transmit))
    dev.events = <wg_event *>reserve(dev, limits.events, sizeof(wg_event))
    return (dev.staged_pool != NULL and dev.queue != NULL and dev.outbox != NULL
            and dev.events != NULL
            and ratelimiter_init(&dev.ratelimiter, limits.ratelimiter_entries) == 0
            and reserve_peers(dev, 1) == 0)


cdef wg_device *wg_device_create(const wg_limits *limits, wg_random_fn random,
                                 void *random_ctx) noexcept nogil:
    cdef wg_device *dev = <wg_device *>calloc(1, sizeof(wg_device))
    cdef uint32_t slot

    if dev == NULL:
        return NULL
    if limits != NULL:
        dev.limits = limits[0]
    complete(&dev.limits)
    dev.random = random
    dev.random_ctx = random_ctx
    allowed_ips_init(&dev.allowed_ips, dev.limits.max_allowed_ips)
    if not reserve_pools(dev):
        wg_device_destroy(dev)
        return NULL
    for slot in range(dev.limits.max_staged_packets):
        staged_at(dev, slot).next = slot + 1
    staged_at(dev, dev.limits.max_staged_packets - 1).next = STAGED_NONE
    dev.queue_ring.capacity = dev.limits.handshake_queue
    dev.outbox_ring.capacity = dev.limits.outbox
    dev.event_ring.capacity = dev.limits.events
    dev.load_cost_ns = NS_PER_SECOND // dev.limits.handshake_rate
    dev.load_queue = (dev.limits.handshake_queue + 7) // 8
    random(random_ctx, <uint8_t *>&dev.jitter, sizeof(dev.jitter))
    dev.jitter |= 1  # the generator never leaves 0
    random(random_ctx, <uint8_t *>&dev.peer_hash_key, sizeof(dev.peer_hash_key))
    random(random_ctx, dev.ratelimiter.hash_key, sizeof(dev.ratelimiter.hash_key))
    noise_begin(&dev.initial)
    return dev


cdef void wg_device_destroy(wg_device *dev) noexcept nogil:
    cdef wg_peer *peer

    if dev == NULL:
        return
    wg_peer_remove_all(dev)
    while dev.dead != NULL:
        peer = dev.dead
        dev.dead = peer.links[LIST_ALL].next
        free(peer)
    if dev.staged_pool != NULL:
        secret_erase(dev.staged_pool,
                     dev.limits.max_staged_packets * dev.staged_slot_bytes)
    free(dev.staged_pool)
    free(dev.queue)
    free(dev.outbox)
    free(dev.events)
    free(dev.peer_slots)
    free(dev.heap)
    ratelimiter_release(&dev.ratelimiter)
    allowed_ips_release(&dev.allowed_ips)
    index_table_release(&dev.indices)
    secret_erase(dev, sizeof(dev[0]))
    free(dev)


cdef void forget_sessions(wg_device *dev, wg_peer *peer) noexcept nogil:
    peer_forget_handshake(dev, peer)
    keypair_forget_all(dev, peer)
    peer_unlink(dev, LIST_TRANSMIT, peer)
    peer.wants = 0
    peer.last_handshake_sent_ns = 0


cdef void forget_messages(wg_device *dev) noexcept nogil:
    while dev.queue_ring.count:
        ring_pop(&dev.queue_ring)
    while dev.outbox_ring.count:
        ring_pop(&dev.outbox_ring)


cdef void wg_device_up(wg_device *dev, uint64_t now_ns) noexcept nogil:
    cdef wg_peer *peer = dev.lists[LIST_ALL].first

    if dev.up:
        return
    dev.up = True
    while peer != NULL:
        if peer.keepalive_s:
            request_keepalive(dev, now_ns, peer)
            timers_any_traversal(dev, now_ns, peer)
        peer = peer.links[LIST_ALL].next


cdef void wg_device_down(wg_device *dev) noexcept nogil:
    cdef wg_peer *peer = dev.lists[LIST_ALL].first

    dev.up = False
    secret_erase(&dev.ahead, sizeof(dev.ahead))
    forget_messages(dev)
    while peer != NULL:
        staged_purge(dev, peer)
        forget_sessions(dev, peer)
        timers_stop(dev, peer)
        peer = peer.links[LIST_ALL].next


# -- ahead of need --

cdef wg_peer *next_initiation(wg_device *dev) noexcept nogil:
    """Who may soon get an initiation, where peers are as few as a client has."""
    cdef wg_peer *peer = dev.lists[LIST_ALL].first
    cdef uint8_t zero[32]

    if dev.peer_count > NOISE_EPHEMERALS // 2:
        return NULL
    memset(zero, 0, sizeof(zero))
    while peer != NULL:
        if (peer.endpoint.family != WT_AF_NONE
                and (peer.current == NULL or peer.current.initiator)
                and not noise_is_meant(&dev.ahead, &peer.remote)
                and not secret_equal(peer.remote.static_static, zero, sizeof(zero))):
            return peer
        peer = peer.links[LIST_ALL].next
    return NULL


cdef bint wg_wants_ahead(wg_device *dev) noexcept nogil:
    if not dev.up or not dev.identity.known or dev.peer_count == 0:
        return False
    return dev.ahead.count < NOISE_EPHEMERALS or next_initiation(dev) != NULL


cdef void wg_make_ahead(wg_device *dev) noexcept nogil:
    cdef wg_peer *peer

    if not wg_wants_ahead(dev):
        return
    peer = next_initiation(dev)
    if peer == NULL or not noise_mean(&dev.ahead, &peer.remote):
        noise_make_ahead(&dev.ahead, dev.random, dev.random_ctx)


# -- time --

cdef void wg_device_set_unix_time(wg_device *dev, uint64_t now_ns,
                                  uint64_t unix_ns) noexcept nogil:
    dev.unix_ns = unix_ns
    dev.unix_at_ns = now_ns


cdef void wg_device_set_timestamp_floor(wg_device *dev, uint64_t unix_ns) noexcept nogil:
    dev.floor_ns = unix_ns
    if dev.floor_saved_ns < unix_ns:
        dev.floor_saved_ns = unix_ns


# -- the device's own key --

cdef void wg_device_set_private_key(wg_device *dev, const uint8_t *key) noexcept nogil:
    cdef wg_peer *peer
    cdef wg_peer *own

    if key != NULL and dev.identity.known and same_private_key(dev, key):
        return
    forget_messages(dev)
    secret_erase(&dev.ahead, sizeof(dev.ahead))
    noise_set_identity(&dev.identity, key)
    secret_erase(&dev.checker, sizeof(dev.checker))
    if dev.identity.known:
        cookie_keys(dev.checker.mac1_key, dev.checker.cookie_key, dev.identity.public_key)
        own = wg_peer_find(dev, dev.identity.public_key)
        if own != NULL:
            wg_peer_remove(dev, own)
    peer = dev.lists[LIST_ALL].first
    while peer != NULL:
        forget_sessions(dev, peer)
        noise_set_remote(&peer.remote, &dev.identity)
        peer = peer.links[LIST_ALL].next


cdef bint same_private_key(const wg_device *dev, const uint8_t *key) noexcept nogil:
    cdef uint8_t differs = 0
    cdef int i

    # The stored key is clamped, the given one need not be.
    differs |= dev.identity.private_key[0] ^ (key[0] & 248)
    differs |= dev.identity.private_key[31] ^ ((key[31] & 127) | 64)
    for i in range(1, 31):
        differs |= dev.identity.private_key[i] ^ key[i]
    return differs == 0


cdef bint wg_device_keys(const wg_device *dev, uint8_t *private_key,
                         uint8_t *public_key) noexcept nogil:
    if not dev.identity.known:
        return False
    if private_key != NULL:
        memcpy(private_key, dev.identity.private_key, WG_KEY_LEN)
    if public_key != NULL:
        memcpy(public_key, dev.identity.public_key, WG_KEY_LEN)
    return True


# -- peers by public key: open addressing, at most half full --

cdef uint32_t home_of(const wg_device *dev, const uint8_t *public_key) noexcept nogil:
    cdef uint64_t hash = load_le64(public_key) ^ dev.peer_hash_key

    return <uint32_t>((hash * <uint64_t>0x9e3779b97f4a7c15) >> 32) & dev.peer_mask


cdef void enter(wg_device *dev, wg_peer *peer) noexcept nogil:
    cdef uint32_t at = home_of(dev, peer.remote.public_key)

    while dev.peer_slots[at] != NULL:
        at = (at + 1) & dev.peer_mask
    dev.peer_slots[at] = peer


cdef void leave(wg_device *dev, const wg_peer *peer) noexcept nogil:
    cdef uint32_t hole = home_of(dev, peer.remote.public_key), at, home

    while dev.peer_slots[hole] != peer:
        hole = (hole + 1) & dev.peer_mask
    at = hole
    while True:
        at = (at + 1) & dev.peer_mask
        if dev.peer_slots[at] == NULL:
            break
        home = home_of(dev, dev.peer_slots[at].remote.public_key)
        if ((at - home) & dev.peer_mask) >= ((at - hole) & dev.peer_mask):
            dev.peer_slots[hole] = dev.peer_slots[at]
            hole = at
    dev.peer_slots[hole] = NULL


cdef int reserve_peers(wg_device *dev, uint32_t peers) noexcept nogil:
    """Room for so many peers in every table that has an entry per peer."""
    cdef wg_peer **larger
    cdef wg_peer *peer = dev.lists[LIST_ALL].first
    cdef uint32_t size = 16

    # Three sessions and one handshake each.
    if index_table_reserve(&dev.indices, 4 * peers) or timers_reserve(dev, peers):
        return -1
    while size < 2 * peers:
        size *= 2
    if dev.peer_slots != NULL and size <= dev.peer_mask + 1:
        return 0
    larger = <wg_peer **>calloc(size, sizeof(wg_peer *))
    if larger == NULL:
        return -1
    free(dev.peer_slots)
    dev.peer_slots = larger
    dev.peer_mask = size - 1
    while peer != NULL:
        enter(dev, peer)
        peer = peer.links[LIST_ALL].next
    return 0


cdef wg_peer *wg_peer_find(wg_device *dev, const uint8_t *public_key) noexcept nogil:
    cdef uint32_t at = home_of(dev, public_key)

    while dev.peer_slots[at] != NULL:
        if memcmp(dev.peer_slots[at].remote.public_key, public_key, WG_KEY_LEN) == 0:
            return dev.peer_slots[at]
        at = (at + 1) & dev.peer_mask
    return NULL


# -- peers --

cdef wg_peer *failed(int *error, int reason) noexcept nogil:
    if error != NULL:
        error[0] = reason
    return NULL


cdef wg_peer *wg_peer_add(wg_device *dev, const uint8_t *public_key, int *error) noexcept nogil:
    cdef wg_peer *peer = wg_peer_find(dev, public_key)

    if peer != NULL:
        return peer
    if (dev.identity.known
            and memcmp(public_key, dev.identity.public_key, WG_KEY_LEN) == 0):
        return failed(error, WG_ERROR_OWN_KEY)
    if dev.peer_count >= dev.limits.max_peers:
        return failed(error, WG_ERROR_LIMIT)
    if reserve_peers(dev, dev.peer_count + 1):
        return failed(error, WG_ERROR_NO_MEMORY)
    peer = <wg_peer *>reserve(dev, 1, sizeof(wg_peer))
    if peer == NULL:
        dev.bytes -= sizeof(wg_peer)
        return failed(error, WG_ERROR_NO_MEMORY)
    memcpy(peer.remote.public_key, public_key, WG_KEY_LEN)
    noise_set_remote(&peer.remote, &dev.identity)
    cookie_keys(peer.cookie.mac1_key, peer.cookie.cookie_key, public_key)
    timers_init_peer(peer)
    peer.staged_first = STAGED_NONE
    peer.staged_last = STAGED_NONE
    # It may be one that was removed: stay behind nothing that was sent to it.
    peer.timestamp_sent = dev.timestamp_highest
    peer_append(dev, LIST_ALL, peer)
    dev.peer_count += 1
    dev.last_peer_number += 1
    peer.number = dev.last_peer_number
    enter(dev, peer)
    return peer


cdef void wg_peer_remove(wg_device *dev, wg_peer *peer) noexcept nogil:
    cdef uint32_t i, kept = 0

    for i in range(dev.outbox_ring.count):
        if dev.outbox[ring_at(&dev.outbox_ring, i)].peer != peer:
            dev.outbox[ring_at(&dev.outbox_ring, kept)] = dev.outbox[
                ring_at(&dev.outbox_ring, i)]
            kept += 1
    dev.outbox_ring.count = kept
    noise_unmean(&dev.ahead, &peer.remote)
    allowed_ips_remove_owner(&dev.allowed_ips, &peer.allowed_first)
    staged_purge(dev, peer)
    forget_sessions(dev, peer)
    timers_stop(dev, peer)
    peer_unlink(dev, LIST_ALL, peer)
    leave(dev, peer)
    dev.peer_count -= 1
    # The batch rule: a job or a wg_inbound may still point here. Erased, its sessions
    # have the index 0, which no packet has.
    secret_erase(peer, sizeof(peer[0]))
    peer.links[LIST_ALL].next = dev.dead
    dev.dead = peer


cdef void wg_peer_remove_all(wg_device *dev) noexcept nogil:
    while dev.lists[LIST_ALL].first != NULL:
        wg_peer_remove(dev, dev.lists[LIST_ALL].first)


cdef void wg_peer_set_preshared_key(wg_device *dev, wg_peer *peer,
                                    const uint8_t *key) noexcept nogil:
    peer.proved = False
    if key == NULL:
        memset(peer.remote.preshared_key, 0, WG_KEY_LEN)
    else:
        memcpy(peer.remote.preshared_key, key, WG_KEY_LEN)


cdef void wg_peer_set_endpoint(wg_device *dev, uint64_t now_ns, wg_peer *peer,
                               const endpoint *to) noexcept nogil:
    cdef bint first = peer.endpoint.family == WT_AF_NONE

    peer.endpoint = to[0]
    peer.proved = False
    if first and peer.keepalive_s:
        request_keepalive(dev, now_ns, peer)


cdef void wg_peer_set_keepalive(wg_device *dev, uint64_t now_ns, wg_peer *peer,
                                uint16_t keepalive_s) noexcept nogil:
    cdef bint first = peer.keepalive_s == 0

    peer.keepalive_s = keepalive_s
    if keepalive_s == 0 or not dev.up:
        peer.deadline_ns[TIMER_PERSISTENT_KEEPALIVE] = WG_NEVER
        return
    if first:
        request_keepalive(dev, now_ns, peer)
    timers_any_traversal(dev, now_ns, peer)


cdef uint32_t *first_prefix(void *owner) noexcept nogil:
    return &(<wg_peer *>owner).allowed_first


cdef int wg_peer_add_allowed_ip(wg_device *dev, wg_peer *peer,
                                const wg_prefix *prefix) noexcept nogil:
    return allowed_ips_insert(&dev.allowed_ips, prefix, peer, first_prefix)


cdef bint wg_peer_remove_allowed_ip(wg_device *dev, wg_peer *peer,
                                    const wg_prefix *prefix) noexcept nogil:
    return allowed_ips_remove(&dev.allowed_ips, prefix, peer, first_prefix)


cdef void wg_peer_remove_allowed_ips(wg_device *dev, wg_peer *peer) noexcept nogil:
    allowed_ips_remove_owner(&dev.allowed_ips, &peer.allowed_first)


cdef void wg_peer_initiate(wg_device *dev, uint64_t now_ns, wg_peer *peer) noexcept nogil:
    request_handshake(dev, now_ns, peer, False)


cdef void wg_peer_expire_session(wg_device *dev, wg_peer *peer) noexcept nogil:
    peer_forget_handshake(dev, peer)
    peer.last_handshake_sent_ns = 0
    if peer.current != NULL:
        peer.current.can_send = False
    if peer.next != NULL:
        peer.next.can_send = False


cdef void wg_peer_clear_source(wg_device *dev, wg_peer *peer) noexcept nogil:
    peer.endpoint.source_known = 0


cdef void wg_device_clear_sources(wg_device *dev) noexcept nogil:
    cdef wg_peer *peer = dev.lists[LIST_ALL].first

    while peer != NULL:
        peer.endpoint.source_known = 0
        peer.proved = False
        peer = peer.links[LIST_ALL].next


# -- observation --

cdef uint32_t wg_peer_count(const wg_device *dev) noexcept nogil:
    return dev.peer_count


cdef wg_peer *wg_peer_first(const wg_device *dev) noexcept nogil:
    return dev.lists[LIST_ALL].first


cdef wg_peer *wg_peer_after(const wg_peer *peer) noexcept nogil:
    return peer.links[LIST_ALL].next


cdef void wg_peer_get_status(const wg_device *dev, uint64_t now_ns, const wg_peer *peer,
                             wg_peer_status *status) noexcept nogil:
    memcpy(status.public_key, peer.remote.public_key, WG_KEY_LEN)
    memcpy(status.preshared_key, peer.remote.preshared_key, WG_KEY_LEN)
    status.endpoint = peer.endpoint
    status.last_handshake_unix_ns = (
        unix_time(dev, peer.completed_ns) if peer.completed_ns else 0)
    status.handshake_duration_ns = peer.handshake_duration_ns
    status.rx_bytes = peer.rx_bytes
    status.tx_bytes = peer.tx_bytes
    status.handshake_attempts = peer.initiations_sent
    status.keepalive_s = peer.keepalive_s
    status.has_session = keypair_for_sending(peer, now_ns) != NULL


cdef bint wg_peer_next_allowed_ip(const wg_device *dev, const wg_peer *peer,
                                  uint32_t *cursor, wg_prefix *prefix) noexcept nogil:
    cdef uint32_t at = (dev.allowed_ips.nodes[cursor[0]].owned_next if cursor[0]
                        else peer.allowed_first)

    if at == ALLOWED_IPS_NONE:
        return False
    cursor[0] = at
    allowed_ips_prefix(&dev.allowed_ips.nodes[at], prefix)
    return True


cdef const uint8_t *wg_peer_public_key(const wg_peer *peer) noexcept nogil:
    return peer.remote.public_key


cdef uint32_t wg_peer_number(const wg_peer *peer) noexcept nogil:
    return peer.number


cdef const endpoint *wg_peer_endpoint(const wg_peer *peer) noexcept nogil:
    return &peer.endpoint


cdef bint wg_next_event(wg_device *dev, wg_event *event) noexcept nogil:
    if dev.floor_wanted:
        dev.floor_wanted = False
        memset(event, 0, sizeof(event[0]))
        event.kind = WG_EVENT_TIMESTAMP_FLOOR
        event.unix_ns = dev.floor_saved_ns
        return True
    if dev.event_ring.count == 0:
        return False
    event[0] = dev.events[ring_at(&dev.event_ring, 0)]
    ring_pop(&dev.event_ring)
    return True


cdef drop_counters *wg_drops(wg_device *dev) noexcept nogil:
    return &dev.drops


cdef size_t wg_memory_bytes(const wg_device *dev) noexcept nogil:
    return (sizeof(wg_device) + dev.bytes + allowed_ips_bytes(&dev.allowed_ips)
            + ratelimiter_bytes(&dev.ratelimiter)
            + (<size_t>dev.indices.mask + 1) * sizeof(index_entry)
            + (<size_t>dev.peer_mask + 1 + dev.heap_capacity) * sizeof(wg_peer *))
