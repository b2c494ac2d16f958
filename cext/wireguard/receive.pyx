# SPDX-License-Identifier: Apache-2.0
"""Datagrams on their way in.

What a datagram costs before it is thrown away, cheapest check first:

  length and type             nothing
  transport, index unknown    one probe of the index table
  handshake, MAC1 wrong       one BLAKE2s
  under load, no MAC2         a cookie reply: two BLAKE2s and one small AEAD
  under load, MAC2 right      the rate limiter of its source
  unknown static key          the first Diffie-Hellman, in wg_process_handshakes()

Load is counted in messages whose MAC1 was right, each standing for 1 s /
handshake_rate of work; more than a second of work, or an eighth of the queue, is
load, and load lasts UNDER_LOAD_NS longer than its cause.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from cext.base.drops cimport drop
from cext.base.endian cimport load_be16, load_le32, load_le64, store_le32
from cext.base.secret cimport secret_erase
from cext.crypto.crypto cimport aead_job
from cext.wire.endpoint cimport endpoint
from cext.wire.ip cimport (
    IPV4_MIN_LEN,
    IPV4_SOURCE,
    IPV4_TOTAL_LEN,
    IPV6_LEN,
    IPV6_PAYLOAD_LEN,
    IPV6_SOURCE,
)
from cext.wire.messages cimport (
    WG_MAC_LEN,
    WG_MESSAGE_COOKIE,
    WG_MESSAGE_DATA,
    WG_MESSAGE_DATA_MIN,
    WG_MESSAGE_INITIATION,
    WG_MESSAGE_RESPONSE,
    WG_TIMESTAMP_LEN,
    wg_macs,
    wg_message_cookie,
    wg_message_data,
    wg_message_initiation,
    wg_message_response,
)
from cext.wireguard.allowed_ips cimport allowed_ips_lookup_v4, allowed_ips_lookup_v6
from cext.wireguard.constants cimport (
    INITIATIONS_PER_SECOND,
    NS_PER_SECOND,
    REJECT_AFTER_MESSAGES,
    REJECT_AFTER_TIME_NS,
    UNDER_LOAD_NS,
)
from cext.wireguard.cookie cimport (
    cookie_add_macs,
    cookie_check_mac1,
    cookie_check_mac2,
    cookie_consume_reply,
    cookie_reply,
)
from cext.wireguard.device cimport wg_peer_find
from cext.wireguard.index_table cimport index_table_lookup
from cext.wireguard.keypair cimport keypair_begin, keypair_confirm, keypair_set_keys
from cext.wireguard.noise cimport (
    noise_consume_response,
    noise_create_response,
    noise_open_static,
    noise_open_timestamp,
    noise_take_ephemeral,
)
from cext.wireguard.peer cimport peer_forget_handshake, peer_roam
from cext.wireguard.ratelimiter cimport ratelimiter_allow
from cext.wireguard.replay cimport replay_accept
from cext.wireguard.state cimport (
    INDEX_SLOT_HANDSHAKE,
    WG_HEADER_LEN,
    WG_IN_CONSUMED,
    WG_IN_DELIVER,
    WG_IN_DROPPED,
    WG_IN_OPEN,
    WG_KEEPALIVE_LEN,
    index_entry,
    noise_ephemeral,
    noise_keys,
    noise_opened,
    ring_at,
    ring_pop,
    wg_device,
    wg_inbound,
    wg_keypair,
    wg_peer,
    wg_queued,
    wg_transmit,
)
from cext.wireguard.timers cimport (
    request_keepalive,
    timers_any_received,
    timers_any_sent,
    timers_any_traversal,
    timers_data_received,
    timers_handshake_complete,
    timers_keep_key_fresh_receiving,
    timers_session_derived,
)


cdef extern from "base/drops.h" nogil:
    enum:
        DROP_WG_BAD_COOKIE
        DROP_WG_BAD_HANDSHAKE
        DROP_WG_BAD_INNER
        DROP_WG_BAD_LENGTH
        DROP_WG_BAD_MAC1
        DROP_WG_BAD_MAC2
        DROP_WG_BAD_TAG
        DROP_WG_BAD_TYPE
        DROP_WG_HANDSHAKE_QUEUE_FULL
        DROP_WG_INITIATION_FLOOD
        DROP_WG_KEY_EXPIRED
        DROP_WG_NO_PRIVATE_KEY
        DROP_WG_OLD_TIMESTAMP
        DROP_WG_RATE_LIMITED
        DROP_WG_REPLAY
        DROP_WG_SOURCE_NOT_ALLOWED
        DROP_WG_TOO_SHORT
        DROP_WG_UNDER_LOAD
        DROP_WG_UNKNOWN_INDEX
        DROP_WG_UNKNOWN_PEER


cdef int dropped(wg_device *dev, int reason) noexcept nogil:
    drop(&dev.drops, reason)
    return WG_IN_DROPPED


# -- transport data --

cdef int prepare_data(wg_device *dev, uint64_t now_ns, uint8_t *datagram, size_t length,
                      const endpoint *source, wg_inbound *inbound,
                      aead_job *job) noexcept nogil:
    cdef const wg_message_data *header = <const wg_message_data *>datagram
    cdef const index_entry *entry
    cdef wg_keypair *keypair
    cdef uint32_t index

    if length < WG_MESSAGE_DATA_MIN:
        return dropped(dev, DROP_WG_TOO_SHORT)
    index = load_le32(header.receiver)
    entry = index_table_lookup(&dev.indices, index)
    if entry == NULL or entry.slot == INDEX_SLOT_HANDSHAKE:
        return dropped(dev, DROP_WG_UNKNOWN_INDEX)
    keypair = &entry.peer.keypairs[entry.slot]
    # What the authenticated counters and the clock say may end the session; what this
    # header claims may not.
    if (not keypair.can_receive or now_ns - keypair.created_ns >= REJECT_AFTER_TIME_NS
            or keypair.window.edge >= REJECT_AFTER_MESSAGES):
        keypair.can_receive = False
        return dropped(dev, DROP_WG_KEY_EXPIRED)
    inbound.counter = load_le64(header.counter)
    if inbound.counter >= REJECT_AFTER_MESSAGES:
        return dropped(dev, DROP_WG_REPLAY)
    inbound.peer = entry.peer
    inbound.keypair = keypair
    inbound.index = index
    inbound.source = source
    inbound.payload = datagram + WG_HEADER_LEN
    inbound.length = <uint32_t>(length - WG_KEEPALIVE_LEN)
    inbound.job = job
    job.key = keypair.receive_key
    job.counter = inbound.counter
    job.data = inbound.payload
    job.out = inbound.payload
    job.len = inbound.length
    job.ok = False
    return WG_IN_OPEN


cdef int check_inner(wg_device *dev, wg_inbound *inbound) noexcept nogil:
    """Cut the padding off and check that the source is the peer's to use."""
    cdef const uint8_t *packet = inbound.payload
    cdef uint32_t length, header
    cdef void *owner

    if inbound.length >= IPV4_MIN_LEN and packet[0] >> 4 == 4:
        header = IPV4_MIN_LEN
        length = load_be16(packet + IPV4_TOTAL_LEN)
        owner = allowed_ips_lookup_v4(&dev.allowed_ips, packet + IPV4_SOURCE)
    elif inbound.length >= IPV6_LEN and packet[0] >> 4 == 6:
        header = IPV6_LEN
        length = <uint32_t>load_be16(packet + IPV6_PAYLOAD_LEN) + IPV6_LEN
        owner = allowed_ips_lookup_v6(&dev.allowed_ips, packet + IPV6_SOURCE)
    else:
        return dropped(dev, DROP_WG_BAD_INNER)
    if length < header or length > inbound.length:
        return dropped(dev, DROP_WG_BAD_INNER)
    if owner != inbound.peer:
        return dropped(dev, DROP_WG_SOURCE_NOT_ALLOWED)
    inbound.length = length
    return WG_IN_DELIVER


cdef int wg_receive_finish(wg_device *dev, uint64_t now_ns, wg_inbound *inbound) noexcept nogil:
    cdef wg_peer *peer = inbound.peer
    cdef wg_keypair *keypair = inbound.keypair

    if keypair.local_index != inbound.index:
        return dropped(dev, DROP_WG_UNKNOWN_INDEX)
    if not inbound.job.ok:
        return dropped(dev, DROP_WG_BAD_TAG)
    if not replay_accept(&keypair.window, inbound.counter):
        return dropped(dev, DROP_WG_REPLAY)
    peer_roam(dev, now_ns, peer, inbound.source)
    if keypair_confirm(dev, peer, keypair):
        timers_handshake_complete(dev, now_ns, peer, 0)
    timers_keep_key_fresh_receiving(dev, now_ns, peer)
    timers_any_received(peer)
    timers_any_traversal(dev, now_ns, peer)
    peer.rx_bytes += <uint64_t>inbound.length + WG_KEEPALIVE_LEN
    if inbound.length == 0:
        return WG_IN_CONSUMED
    timers_data_received(dev, now_ns, peer)
    return check_inner(dev, inbound)


# -- handshake messages, before any Diffie-Hellman --

cdef bint under_load(wg_device *dev, uint64_t now_ns) noexcept nogil:
    """Count one more handshake message; whether it needs a cookie."""
    if dev.load_ns < now_ns:
        dev.load_ns = now_ns
    # Bounded, so that load ends soon after a flood of any size.
    if dev.load_ns <= now_ns + NS_PER_SECOND:
        dev.load_ns += dev.load_cost_ns
    if (dev.load_ns > now_ns + NS_PER_SECOND
            or dev.queue_ring.count >= dev.load_queue):
        dev.loaded_until_ns = now_ns + UNDER_LOAD_NS
    return now_ns < dev.loaded_until_ns


cdef int demand_cookie(wg_device *dev, uint64_t now_ns, const uint8_t *datagram, size_t length,
                       const endpoint *source) noexcept nogil:
    cdef const wg_macs *macs = <const wg_macs *>(datagram + length - sizeof(wg_macs))
    cdef uint8_t none[16]
    cdef wg_transmit *transmit

    if dev.outbox_ring.count < dev.outbox_ring.capacity:
        transmit = &dev.outbox[ring_at(&dev.outbox_ring, dev.outbox_ring.count)]
        dev.outbox_ring.count += 1
        transmit.to = source[0]
        transmit.peer = NULL
        transmit.length = sizeof(wg_message_cookie)
        # The sender's index lies behind the type in both handshake messages.
        cookie_reply(&dev.checker, now_ns, <wg_message_cookie *>transmit.data, macs,
                     datagram + 4, source, dev.random, dev.random_ctx)
    memset(none, 0, sizeof(none))
    if memcmp(macs.mac2, none, WG_MAC_LEN):
        return dropped(dev, DROP_WG_BAD_MAC2)
    return dropped(dev, DROP_WG_UNDER_LOAD)


cdef int prepare_handshake(wg_device *dev, uint64_t now_ns, const uint8_t *datagram,
                           size_t length, const endpoint *source) noexcept nogil:
    cdef const index_entry *entry
    cdef wg_queued *queued

    if not dev.up or not dev.identity.known:
        return dropped(dev, DROP_WG_NO_PRIVATE_KEY)
    if not cookie_check_mac1(&dev.checker, datagram, length):
        return dropped(dev, DROP_WG_BAD_MAC1)
    if length == sizeof(wg_message_response):
        entry = index_table_lookup(
            &dev.indices, load_le32((<const wg_message_response *>datagram).receiver))
        if entry == NULL or entry.slot != INDEX_SLOT_HANDSHAKE:
            return dropped(dev, DROP_WG_UNKNOWN_INDEX)
    if under_load(dev, now_ns):
        if not cookie_check_mac2(&dev.checker, now_ns, datagram, length, source):
            return demand_cookie(dev, now_ns, datagram, length, source)
        if not ratelimiter_allow(&dev.ratelimiter, now_ns, source):
            return dropped(dev, DROP_WG_RATE_LIMITED)
    if dev.queue_ring.count == dev.queue_ring.capacity:
        return dropped(dev, DROP_WG_HANDSHAKE_QUEUE_FULL)
    queued = &dev.queue[ring_at(&dev.queue_ring, dev.queue_ring.count)]
    dev.queue_ring.count += 1
    queued.source = source[0]
    queued.length = <uint32_t>length
    memcpy(queued.message, datagram, length)
    return WG_IN_CONSUMED


cdef int consume_cookie(wg_device *dev, uint64_t now_ns, const uint8_t *datagram) noexcept nogil:
    cdef const wg_message_cookie *message = <const wg_message_cookie *>datagram
    cdef const index_entry *entry = index_table_lookup(&dev.indices,
                                                       load_le32(message.receiver))

    if entry == NULL:
        return dropped(dev, DROP_WG_UNKNOWN_INDEX)
    if not cookie_consume_reply(&entry.peer.cookie, now_ns, message):
        return dropped(dev, DROP_WG_BAD_COOKIE)
    entry.peer.rx_bytes += sizeof(wg_message_cookie)
    return WG_IN_CONSUMED


cdef int wg_receive_prepare(wg_device *dev, uint64_t now_ns, uint8_t *datagram, size_t length,
                            const endpoint *source, wg_inbound *inbound,
                            aead_job *job) noexcept nogil:
    cdef uint32_t kind

    if length < 4:
        return dropped(dev, DROP_WG_TOO_SHORT)
    kind = load_le32(datagram)
    if kind == WG_MESSAGE_DATA:
        return prepare_data(dev, now_ns, datagram, length, source, inbound, job)
    if kind == WG_MESSAGE_INITIATION:
        if length != sizeof(wg_message_initiation):
            return dropped(dev, DROP_WG_BAD_LENGTH)
        return prepare_handshake(dev, now_ns, datagram, length, source)
    if kind == WG_MESSAGE_RESPONSE:
        if length != sizeof(wg_message_response):
            return dropped(dev, DROP_WG_BAD_LENGTH)
        return prepare_handshake(dev, now_ns, datagram, length, source)
    if kind == WG_MESSAGE_COOKIE:
        if length != sizeof(wg_message_cookie):
            return dropped(dev, DROP_WG_BAD_LENGTH)
        return consume_cookie(dev, now_ns, datagram)
    return dropped(dev, DROP_WG_BAD_TYPE)


# -- handshake messages, with Diffie-Hellman --

cdef void authenticated(wg_device *dev, uint64_t now_ns, wg_peer *peer,
                        const wg_queued *queued) noexcept nogil:
    peer_roam(dev, now_ns, peer, &queued.source)
    peer.rx_bytes += queued.length
    timers_any_received(peer)
    timers_any_traversal(dev, now_ns, peer)


cdef void respond(wg_device *dev, uint64_t now_ns, wg_peer *peer,
                  const noise_opened *opened) noexcept nogil:
    cdef wg_transmit *transmit = &dev.outbox[ring_at(&dev.outbox_ring, dev.outbox_ring.count)]
    cdef noise_keys keys
    cdef noise_ephemeral ephemeral
    cdef bint made
    cdef wg_message_response *message = <wg_message_response *>transmit.data
    cdef wg_keypair *keypair

    noise_take_ephemeral(&dev.ahead, NULL, &ephemeral, dev.random, dev.random_ctx)
    made = noise_create_response(opened, message, &peer.remote, &keys, &ephemeral)
    secret_erase(&ephemeral, sizeof(ephemeral))
    if not made:
        # The initiator's ephemeral key is low-order; it knows its static key, so that
        # is its own doing.
        drop(&dev.drops, DROP_WG_BAD_HANDSHAKE)
        return
    keypair = keypair_begin(dev, now_ns, peer, False, 0)
    store_le32(message.sender, keypair.local_index)
    keypair_set_keys(keypair, &keys, opened.sender)
    secret_erase(&keys, sizeof(keys))
    cookie_add_macs(&peer.cookie, now_ns, transmit.data, sizeof(message[0]))
    dev.outbox_ring.count += 1
    transmit.to = peer.endpoint
    transmit.peer = peer
    transmit.length = sizeof(message[0])
    peer.last_handshake_sent_ns = now_ns
    peer.proved = False
    peer.tx_bytes += sizeof(message[0])
    timers_session_derived(dev, now_ns, peer)
    timers_any_sent(peer)
    timers_any_traversal(dev, now_ns, peer)


cdef int consume_initiation(wg_device *dev, uint64_t now_ns, const wg_queued *queued,
                            noise_opened *opened) noexcept nogil:
    cdef const wg_message_initiation *message = <const wg_message_initiation *>queued.message
    cdef wg_peer *peer

    if not noise_open_static(opened, message, &dev.initial, &dev.identity):
        return dropped(dev, DROP_WG_BAD_HANDSHAKE)
    peer = wg_peer_find(dev, opened.public_key)
    if peer == NULL:
        return dropped(dev, DROP_WG_UNKNOWN_PEER)
    if not noise_open_timestamp(opened, message, &peer.remote):
        return dropped(dev, DROP_WG_BAD_HANDSHAKE)
    if memcmp(opened.timestamp, peer.timestamp_seen, WG_TIMESTAMP_LEN) <= 0:
        return dropped(dev, DROP_WG_OLD_TIMESTAMP)
    if (peer.last_initiation_ns and now_ns - peer.last_initiation_ns
            < NS_PER_SECOND // INITIATIONS_PER_SECOND):
        return dropped(dev, DROP_WG_INITIATION_FLOOD)
    memcpy(peer.timestamp_seen, opened.timestamp, WG_TIMESTAMP_LEN)
    peer.last_initiation_ns = now_ns
    authenticated(dev, now_ns, peer, queued)
    respond(dev, now_ns, peer, opened)
    return WG_IN_CONSUMED


cdef int consume_response(wg_device *dev, uint64_t now_ns,
                          const wg_queued *queued) noexcept nogil:
    cdef const wg_message_response *message = <const wg_message_response *>queued.message
    cdef const index_entry *entry = index_table_lookup(&dev.indices,
                                                       load_le32(message.receiver))
    cdef noise_keys keys
    cdef wg_peer *peer
    cdef wg_keypair *keypair
    cdef uint64_t duration_ns

    # It was there when the message was queued, but may have been answered since.
    if entry == NULL or entry.slot != INDEX_SLOT_HANDSHAKE:
        return dropped(dev, DROP_WG_UNKNOWN_INDEX)
    peer = entry.peer
    if not noise_consume_response(&peer.handshake, message, &dev.identity, &peer.remote, &keys):
        return dropped(dev, DROP_WG_BAD_HANDSHAKE)
    duration_ns = now_ns - peer.handshake.sent_ns
    keypair = keypair_begin(dev, now_ns, peer, True, peer.handshake.local_index)
    keypair_set_keys(keypair, &keys, load_le32(message.sender))
    # The index lives on in the session.
    peer.handshake.local_index = 0
    peer_forget_handshake(dev, peer)
    secret_erase(&keys, sizeof(keys))
    authenticated(dev, now_ns, peer, queued)
    timers_session_derived(dev, now_ns, peer)
    timers_handshake_complete(dev, now_ns, peer, duration_ns)
    # The responder may not send before it has heard from us in the new session.
    request_keepalive(dev, now_ns, peer)
    return WG_IN_CONSUMED


cdef uint32_t wg_process_handshakes(wg_device *dev, uint64_t now_ns,
                                    uint32_t budget) noexcept nogil:
    cdef noise_opened opened
    cdef const wg_queued *queued

    while budget and dev.queue_ring.count and dev.outbox_ring.count < dev.outbox_ring.capacity:
        queued = &dev.queue[ring_at(&dev.queue_ring, 0)]
        if queued.length == sizeof(wg_message_initiation):
            consume_initiation(dev, now_ns, queued, &opened)
            secret_erase(&opened, sizeof(opened))
        else:
            consume_response(dev, now_ns, queued)
        ring_pop(&dev.queue_ring)
        budget -= 1
    return dev.queue_ring.count
