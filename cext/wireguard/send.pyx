# SPDX-License-Identifier: Apache-2.0
"""Inner packets on their way out, and the messages that the device sends by itself."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from cext.base.drops cimport drop
from cext.base.endian cimport store_le32, store_le64
from cext.base.secret cimport secret_erase
from cext.crypto.crypto cimport aead_job, aead_seal_batch
from cext.wire.endpoint cimport WT_AF_NONE
from cext.wire.ip cimport IPV4_DESTINATION, IPV4_MIN_LEN, IPV6_DESTINATION, IPV6_LEN
from cext.wire.messages cimport (
    WG_MESSAGE_DATA,
    wg_message_data,
    wg_message_initiation,
)
from cext.wireguard.allowed_ips cimport allowed_ips_lookup_v4, allowed_ips_lookup_v6
from cext.wireguard.constants cimport PADDING_MULTIPLE, REKEY_TIMEOUT_NS, TIMESTAMP_STEP_NS
from cext.wireguard.cookie cimport cookie_add_macs
from cext.wireguard.index_table cimport index_table_insert
from cext.wireguard.keypair cimport keypair_for_sending
from cext.wireguard.noise cimport noise_create_initiation, noise_take_ephemeral
from cext.wireguard.peer cimport (
    peer_append,
    peer_forget_handshake,
    peer_unlink,
    staged_pop,
    staged_push,
    unix_time,
)
from cext.wireguard.state cimport (
    INDEX_SLOT_HANDSHAKE,
    LIST_READY,
    LIST_TRANSMIT,
    STAGED_NONE,
    WANT_INITIATION,
    WANT_KEEPALIVE,
    WG_HEADER_LEN,
    WG_KEEPALIVE_LEN,
    WG_OUT_DROPPED,
    WG_OUT_READY,
    WG_OUT_STAGE,
    noise_ephemeral,
    ring_at,
    ring_pop,
    staged_at,
    wg_device,
    wg_keypair,
    wg_outbound,
    wg_peer,
    wg_staged,
    wg_transmit,
)
from cext.wireguard.tai64n cimport tai64n_encode, tai64n_whiten
from cext.wireguard.timers cimport (
    request_handshake,
    timers_any_sent,
    timers_any_traversal,
    timers_data_sent,
    timers_handshake_initiated,
    timers_keep_key_fresh_sending,
)


cdef extern from "base/drops.h" nogil:
    enum:
        DROP_WG_BAD_INNER
        DROP_WG_NO_ENDPOINT
        DROP_WG_NO_PRIVATE_KEY
        DROP_WG_NO_ROUTE


# -- inner packets --

cdef wg_peer *wg_route(wg_device *dev, const uint8_t *packet, size_t length) noexcept nogil:
    cdef void *owner

    if length >= IPV4_MIN_LEN and packet[0] >> 4 == 4:
        owner = allowed_ips_lookup_v4(&dev.allowed_ips, packet + IPV4_DESTINATION)
    elif length >= IPV6_LEN and packet[0] >> 4 == 6:
        owner = allowed_ips_lookup_v6(&dev.allowed_ips, packet + IPV6_DESTINATION)
    else:
        drop(&dev.drops, DROP_WG_BAD_INNER)
        return NULL
    if owner == NULL:
        drop(&dev.drops, DROP_WG_NO_ROUTE)
    return <wg_peer *>owner


cdef size_t padding(size_t length, size_t mtu_bytes) noexcept nogil:
    """Bytes to add: to a multiple of 16, yet not past the MTU."""
    cdef size_t last = length, padded

    # Longer than the MTU is what will be cut into pieces of it: pad the last one.
    if mtu_bytes and last > mtu_bytes:
        last %= mtu_bytes
    padded = (last + PADDING_MULTIPLE - 1) & ~<size_t>(PADDING_MULTIPLE - 1)
    if mtu_bytes and padded > mtu_bytes:
        padded = mtu_bytes
    return padded - last


cdef void fill(wg_keypair *keypair, uint8_t *datagram, uint32_t length,
               aead_job *job) noexcept nogil:
    """Write the transport header; the job seals what lies behind it."""
    cdef wg_message_data *header = <wg_message_data *>datagram

    store_le32(header.type, WG_MESSAGE_DATA)
    store_le32(header.receiver, keypair.remote_index)
    store_le64(header.counter, keypair.send_counter)
    job.key = keypair.send_key
    job.counter = keypair.send_counter
    job.data = datagram + WG_HEADER_LEN
    job.out = datagram + WG_HEADER_LEN
    job.len = length
    keypair.send_counter += 1


cdef int wg_send_prepare(wg_device *dev, uint64_t now_ns, wg_peer *peer, uint8_t *buffer,
                         size_t length, size_t mtu_bytes, wg_outbound *outbound,
                         aead_job *job) noexcept nogil:
    cdef wg_keypair *keypair
    cdef size_t pad

    if peer.endpoint.family == WT_AF_NONE:
        drop(&dev.drops, DROP_WG_NO_ENDPOINT)
        return WG_OUT_DROPPED
    keypair = keypair_for_sending(peer, now_ns)
    if keypair == NULL:
        if not dev.up or not dev.identity.known:
            drop(&dev.drops, DROP_WG_NO_PRIVATE_KEY)
            return WG_OUT_DROPPED
        return WG_OUT_STAGE
    pad = padding(length, mtu_bytes)
    memset(buffer + WG_HEADER_LEN + length, 0, pad)
    fill(keypair, buffer, <uint32_t>(length + pad), job)
    outbound.endpoint = &peer.endpoint
    outbound.length = <uint32_t>(length + pad + WG_KEEPALIVE_LEN)
    return WG_OUT_READY


cdef void wg_send_done(wg_device *dev, uint64_t now_ns, wg_peer *peer, uint32_t packets,
                       uint64_t length, bint had_data) noexcept nogil:
    if packets == 0:
        return
    peer.tx_bytes += length
    timers_any_traversal(dev, now_ns, peer)
    timers_any_sent(peer)
    if had_data:
        timers_data_sent(dev, now_ns, peer)
    timers_keep_key_fresh_sending(dev, now_ns, peer)


cdef void wg_stage(wg_device *dev, uint64_t now_ns, wg_peer *peer, const uint8_t *packet,
                   size_t length) noexcept nogil:
    staged_push(dev, peer, packet, length)
    if keypair_for_sending(peer, now_ns) != NULL:
        peer_append(dev, LIST_READY, peer)
    else:
        request_handshake(dev, now_ns, peer, False)


cdef bint wg_next_staged(wg_device *dev, uint64_t now_ns, wg_peer **peer,
                         const uint8_t **packet, uint32_t *length) noexcept nogil:
    cdef wg_peer *first
    cdef wg_staged *staged
    cdef uint32_t slot

    while True:
        first = dev.lists[LIST_READY].first
        if first == NULL:
            return False
        slot = STAGED_NONE
        if keypair_for_sending(first, now_ns) != NULL:
            slot = staged_pop(dev, first)
        if first.staged_count == 0 or slot == STAGED_NONE:
            peer_unlink(dev, LIST_READY, first)
        if slot == STAGED_NONE and first.staged_count:
            # Its session ended before its turn came: what waits needs another.
            request_handshake(dev, now_ns, first, False)
        if slot != STAGED_NONE:
            staged = staged_at(dev, slot)
            peer[0] = first
            packet[0] = <const uint8_t *>(staged + 1)
            length[0] = staged.length
            return True


# -- messages of the device itself --

cdef void next_timestamp(wg_device *dev, uint64_t now_ns, wg_peer *peer,
                         uint8_t *out) noexcept nogil:
    """max(clock, floor, build time), and later than any before to this peer."""
    cdef uint64_t unix_ns = unix_time(dev, now_ns)

    if unix_ns < dev.floor_ns:
        unix_ns = dev.floor_ns
    if unix_ns < dev.limits.build_unix_ns:
        unix_ns = dev.limits.build_unix_ns
    unix_ns = tai64n_whiten(unix_ns)
    if unix_ns <= peer.timestamp_sent:
        unix_ns = tai64n_whiten(peer.timestamp_sent + TIMESTAMP_STEP_NS)
    peer.timestamp_sent = unix_ns
    if unix_ns > dev.timestamp_highest:
        dev.timestamp_highest = unix_ns
    # Ask early, so that what is saved stays ahead of what was sent.
    if unix_ns + dev.limits.floor_step_ns // 4 > dev.floor_saved_ns:
        dev.floor_saved_ns = unix_ns + dev.limits.floor_step_ns
        dev.floor_wanted = True
    tai64n_encode(out, unix_ns)


cdef bint make_initiation(wg_device *dev, uint64_t now_ns, wg_peer *peer,
                          wg_transmit *transmit) noexcept nogil:
    cdef wg_message_initiation *message = <wg_message_initiation *>transmit.data
    cdef uint8_t timestamp[12]
    cdef noise_ephemeral ephemeral
    cdef bint made

    if not dev.up or not dev.identity.known or peer.endpoint.family == WT_AF_NONE:
        return False
    if (peer.last_handshake_sent_ns
            and now_ns - peer.last_handshake_sent_ns < REKEY_TIMEOUT_NS):
        # We answered an initiation since this one was asked for: ask again later.
        request_handshake(dev, now_ns, peer, True)
        return False
    peer_forget_handshake(dev, peer)
    next_timestamp(dev, now_ns, peer, timestamp)
    peer.handshake.local_index = index_table_insert(dev, peer, INDEX_SLOT_HANDSHAKE)
    noise_take_ephemeral(&dev.ahead, &peer.remote, &ephemeral, dev.random, dev.random_ctx)
    made = noise_create_initiation(&peer.handshake, message, &dev.initial, &dev.identity,
                                   &peer.remote, timestamp, peer.handshake.local_index,
                                   &ephemeral)
    secret_erase(&ephemeral, sizeof(ephemeral))
    if not made:
        peer_forget_handshake(dev, peer)
        return False
    cookie_add_macs(&peer.cookie, now_ns, transmit.data, sizeof(message[0]))
    peer.handshake.sent_ns = now_ns
    peer.last_handshake_sent_ns = now_ns
    peer.proved = False
    peer.initiations_sent += 1
    peer.tx_bytes += sizeof(message[0])
    timers_any_traversal(dev, now_ns, peer)
    timers_any_sent(peer)
    timers_handshake_initiated(dev, now_ns, peer)
    transmit.length = sizeof(message[0])
    return True


cdef bint make_keepalive(wg_device *dev, uint64_t now_ns, wg_peer *peer,
                         wg_transmit *transmit) noexcept nogil:
    cdef wg_keypair *keypair = keypair_for_sending(peer, now_ns)
    cdef aead_job job

    if keypair == NULL:
        request_handshake(dev, now_ns, peer, False)
        return False
    fill(keypair, transmit.data, 0, &job)
    aead_seal_batch(&job, 1)
    peer.tx_bytes += WG_KEEPALIVE_LEN
    timers_any_traversal(dev, now_ns, peer)
    timers_any_sent(peer)
    timers_keep_key_fresh_sending(dev, now_ns, peer)
    transmit.length = WG_KEEPALIVE_LEN
    return True


cdef bint wg_next_transmit(wg_device *dev, uint64_t now_ns,
                           wg_transmit *transmit) noexcept nogil:
    cdef wg_peer *peer
    cdef bint made

    if dev.outbox_ring.count:
        transmit[0] = dev.outbox[ring_at(&dev.outbox_ring, 0)]
        ring_pop(&dev.outbox_ring)
        return True
    while True:
        peer = dev.lists[LIST_TRANSMIT].first
        if peer == NULL:
            return False
        made = False
        if peer.wants & WANT_INITIATION:
            peer.wants &= ~<uint32_t>WANT_INITIATION
            made = make_initiation(dev, now_ns, peer, transmit)
        elif peer.wants & WANT_KEEPALIVE:
            peer.wants &= ~<uint32_t>WANT_KEEPALIVE
            made = make_keepalive(dev, now_ns, peer, transmit)
        if peer.wants == 0:
            peer_unlink(dev, LIST_TRANSMIT, peer)
        if made:
            transmit.to = peer.endpoint
            transmit.peer = peer
            return True
