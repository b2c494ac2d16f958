# SPDX-License-Identifier: Apache-2.0
"""The timers of all peers.

Five timers a peer; what sets, stops and fires them:

  RETRANSMIT_HANDSHAKE  set when an initiation leaves: REKEY_TIMEOUT + jitter; stopped
                        when a session is confirmed. Fires: try again from a source
                        that routing chooses, or give up after MAX_TIMER_HANDSHAKES
                        and forget the staged packets
  SEND_KEEPALIVE        set when data comes in: KEEPALIVE_TIMEOUT; stopped when
                        anything is sent. Fires: answer with a keepalive. A keepalive
                        is no data, so it is never answered with one
  NEW_HANDSHAKE         set when data leaves: KEEPALIVE_TIMEOUT + REKEY_TIMEOUT +
                        jitter; stopped when anything comes in. Fires: the peer does
                        not hear us, begin anew
  ZERO_KEYS             set when keys are derived: 3 * REJECT_AFTER_TIME. Fires:
                        erase everything secret of all sessions
  PERSISTENT_KEEPALIVE  set when anything passes in either direction. Fires: keepalive

"Set" restarts RETRANSMIT_HANDSHAKE, ZERO_KEYS and PERSISTENT_KEEPALIVE, while the
two in the middle keep running: they count from the first packet that had no answer.

Order: a binary heap of peers by wake_ns. Packets move deadlines all the time, nearly
always to later, so wake_ns is only a lower bound: moving a deadline to later, or
stopping it, touches no heap. wg_advance() finds out that nothing is due yet and
sorts the peer in again. A packet thus costs one store and one comparison.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memset

from cext.wire.endpoint cimport WT_AF_NONE
from cext.wireguard.constants cimport (
    KEEPALIVE_TIMEOUT_NS,
    LAST_MINUTE_NS,
    MAX_TIMER_HANDSHAKES,
    NEW_HANDSHAKE_NS,
    NS_PER_MS,
    NS_PER_SECOND,
    REKEY_AFTER_MESSAGES,
    REKEY_AFTER_TIME_NS,
    REKEY_TIMEOUT_JITTER_MAX_MS,
    REKEY_TIMEOUT_NS,
    ZERO_KEYS_NS,
)
from cext.wireguard.keypair cimport keypair_for_sending, keypair_forget_all
from cext.wireguard.peer cimport (
    event_push,
    peer_append,
    peer_forget_handshake,
    peer_want,
    staged_purge,
    unix_time,
)
from cext.wireguard.state cimport (
    HEAP_NONE,
    LIST_ALL,
    LIST_READY,
    LIST_TRANSMIT,
    TIMER_NEW_HANDSHAKE,
    TIMER_PERSISTENT_KEEPALIVE,
    TIMER_RETRANSMIT_HANDSHAKE,
    TIMER_SEND_KEEPALIVE,
    TIMER_ZERO_KEYS,
    WANT_INITIATION,
    WANT_KEEPALIVE,
    WG_EVENT_HANDSHAKE,
    WG_EVENT_HANDSHAKE_GIVEN_UP,
    WG_NEVER,
    WG_TIMER_COUNT,
    wg_device,
    wg_keypair,
    wg_peer,
)


# -- the heap --

cdef void place(wg_device *dev, uint32_t at, wg_peer *peer) noexcept nogil:
    dev.heap[at] = peer
    peer.heap_at = at


cdef void sift_up(wg_device *dev, wg_peer *peer) noexcept nogil:
    cdef uint32_t at = peer.heap_at, parent

    while at > 0:
        parent = (at - 1) // 2
        if dev.heap[parent].wake_ns <= peer.wake_ns:
            break
        place(dev, at, dev.heap[parent])
        at = parent
    place(dev, at, peer)


cdef void sift_down(wg_device *dev, wg_peer *peer) noexcept nogil:
    cdef uint32_t at = peer.heap_at, child

    while True:
        child = 2 * at + 1
        if child >= dev.heap_len:
            break
        if (child + 1 < dev.heap_len
                and dev.heap[child + 1].wake_ns < dev.heap[child].wake_ns):
            child += 1
        if peer.wake_ns <= dev.heap[child].wake_ns:
            break
        place(dev, at, dev.heap[child])
        at = child
    place(dev, at, peer)


cdef void heap_remove(wg_device *dev, wg_peer *peer) noexcept nogil:
    cdef wg_peer *last
    cdef uint32_t at = peer.heap_at

    if at == HEAP_NONE:
        return
    dev.heap_len -= 1
    last = dev.heap[dev.heap_len]
    peer.heap_at = HEAP_NONE
    peer.wake_ns = WG_NEVER
    if last != peer:
        place(dev, at, last)
        sift_up(dev, last)
        sift_down(dev, last)


cdef int timers_reserve(wg_device *dev, uint32_t peers) noexcept nogil:
    cdef wg_peer **larger
    cdef uint32_t capacity = dev.heap_capacity if dev.heap_capacity else 16

    while capacity < peers:
        capacity *= 2
    if capacity == dev.heap_capacity:
        return 0
    larger = <wg_peer **>realloc(dev.heap, <size_t>capacity * sizeof(wg_peer *))
    if larger == NULL:
        return -1
    dev.heap = larger
    dev.heap_capacity = capacity
    return 0


# -- setting and stopping --

cdef void timer_set(wg_device *dev, wg_peer *peer, int timer, uint64_t at_ns) noexcept nogil:
    peer.deadline_ns[timer] = at_ns
    if at_ns >= peer.wake_ns:
        return
    peer.wake_ns = at_ns
    if peer.heap_at == HEAP_NONE:
        peer.heap_at = dev.heap_len
        dev.heap_len += 1
    sift_up(dev, peer)


cdef void timer_stop(wg_peer *peer, int timer) noexcept nogil:
    peer.deadline_ns[timer] = WG_NEVER


cdef uint64_t earliest(const wg_peer *peer) noexcept nogil:
    cdef uint64_t at_ns = WG_NEVER
    cdef int timer

    for timer in range(WG_TIMER_COUNT):
        if peer.deadline_ns[timer] < at_ns:
            at_ns = peer.deadline_ns[timer]
    return at_ns


cdef uint64_t jitter_ns(wg_device *dev) noexcept nogil:
    # xorshift64*; nobody gains from predicting it.
    dev.jitter ^= dev.jitter >> 12
    dev.jitter ^= dev.jitter << 25
    dev.jitter ^= dev.jitter >> 27
    return (((dev.jitter * <uint64_t>0x2545f4914f6cdd1d >> 32)
             * REKEY_TIMEOUT_JITTER_MAX_MS) >> 32) * NS_PER_MS


cdef void timers_init_peer(wg_peer *peer) noexcept nogil:
    memset(peer.deadline_ns, 0xff, sizeof(peer.deadline_ns))
    peer.wake_ns = WG_NEVER
    peer.heap_at = HEAP_NONE


cdef void timers_stop(wg_device *dev, wg_peer *peer) noexcept nogil:
    heap_remove(dev, peer)
    timers_init_peer(peer)
    peer.retries = 0
    peer.last_minute_sent = False
    peer.last_handshake_sent_ns = 0


# -- asking for messages --

cdef void request_handshake(wg_device *dev, uint64_t now_ns, wg_peer *peer,
                            bint is_retry) noexcept nogil:
    if not is_retry:
        peer.retries = 0
    if not dev.up or not dev.identity.known or peer.endpoint.family == WT_AF_NONE:
        return
    if (peer.last_handshake_sent_ns
            and now_ns - peer.last_handshake_sent_ns < REKEY_TIMEOUT_NS):
        # We answered an initiation a moment ago. Should the session that it began
        # never be confirmed, what waits here must still get its handshake. One that is
        # confirmed already is what was asked for.
        if not peer.proved and peer.deadline_ns[TIMER_RETRANSMIT_HANDSHAKE] == WG_NEVER:
            timer_set(dev, peer, TIMER_RETRANSMIT_HANDSHAKE,
                      peer.last_handshake_sent_ns + REKEY_TIMEOUT_NS + jitter_ns(dev))
        return
    peer_want(dev, peer, WANT_INITIATION)


cdef void request_keepalive(wg_device *dev, uint64_t now_ns, wg_peer *peer) noexcept nogil:
    """A keepalive, or better: the packets that wait, or the handshake that is missing."""
    if not dev.up or peer.endpoint.family == WT_AF_NONE:
        return
    if keypair_for_sending(peer, now_ns) == NULL:
        request_handshake(dev, now_ns, peer, False)
    elif peer.staged_count:
        peer_append(dev, LIST_READY, peer)
    else:
        peer_want(dev, peer, WANT_KEEPALIVE)


# -- moments --

cdef void timers_data_sent(wg_device *dev, uint64_t now_ns, wg_peer *peer) noexcept nogil:
    if peer.deadline_ns[TIMER_NEW_HANDSHAKE] == WG_NEVER:
        timer_set(dev, peer, TIMER_NEW_HANDSHAKE, now_ns + NEW_HANDSHAKE_NS + jitter_ns(dev))


cdef void timers_data_received(wg_device *dev, uint64_t now_ns, wg_peer *peer) noexcept nogil:
    if peer.deadline_ns[TIMER_SEND_KEEPALIVE] == WG_NEVER:
        timer_set(dev, peer, TIMER_SEND_KEEPALIVE, now_ns + KEEPALIVE_TIMEOUT_NS)


cdef void timers_any_sent(wg_peer *peer) noexcept nogil:
    timer_stop(peer, TIMER_SEND_KEEPALIVE)
    peer.wants &= ~<uint32_t>WANT_KEEPALIVE


cdef void timers_any_received(wg_peer *peer) noexcept nogil:
    timer_stop(peer, TIMER_NEW_HANDSHAKE)


cdef void timers_any_traversal(wg_device *dev, uint64_t now_ns, wg_peer *peer) noexcept nogil:
    if peer.keepalive_s:
        timer_set(dev, peer, TIMER_PERSISTENT_KEEPALIVE,
                  now_ns + peer.keepalive_s * NS_PER_SECOND)


cdef void timers_handshake_initiated(wg_device *dev, uint64_t now_ns,
                                     wg_peer *peer) noexcept nogil:
    timer_set(dev, peer, TIMER_RETRANSMIT_HANDSHAKE,
              now_ns + REKEY_TIMEOUT_NS + jitter_ns(dev))


cdef void timers_handshake_complete(wg_device *dev, uint64_t now_ns, wg_peer *peer,
                                    uint64_t duration_ns) noexcept nogil:
    timer_stop(peer, TIMER_RETRANSMIT_HANDSHAKE)
    peer.retries = 0
    peer.initiations_sent = 0
    peer.last_minute_sent = False
    peer.completed_ns = now_ns
    peer.proved = True
    if duration_ns:
        peer.handshake_duration_ns = duration_ns
    event_push(dev, WG_EVENT_HANDSHAKE, peer, unix_time(dev, now_ns), duration_ns)
    if peer.staged_count:
        peer_append(dev, LIST_READY, peer)


cdef void timers_session_derived(wg_device *dev, uint64_t now_ns,
                                 wg_peer *peer) noexcept nogil:
    timer_set(dev, peer, TIMER_ZERO_KEYS, now_ns + ZERO_KEYS_NS)


cdef void timers_keep_key_fresh_sending(wg_device *dev, uint64_t now_ns,
                                        wg_peer *peer) noexcept nogil:
    cdef const wg_keypair *keypair = peer.current

    if keypair != NULL and keypair.can_send and (
            keypair.send_counter > REKEY_AFTER_MESSAGES
            or (keypair.initiator
                and now_ns - keypair.created_ns >= REKEY_AFTER_TIME_NS)):
        request_handshake(dev, now_ns, peer, False)


cdef void timers_keep_key_fresh_receiving(wg_device *dev, uint64_t now_ns,
                                          wg_peer *peer) noexcept nogil:
    cdef const wg_keypair *keypair = peer.current

    if (keypair != NULL and not peer.last_minute_sent and keypair.initiator
            and keypair.can_send and now_ns - keypair.created_ns >= LAST_MINUTE_NS):
        peer.last_minute_sent = True
        request_handshake(dev, now_ns, peer, False)


# -- firing --

cdef void retransmit_handshake(wg_device *dev, uint64_t now_ns, wg_peer *peer) noexcept nogil:
    if peer.retries > MAX_TIMER_HANDSHAKES:
        timer_stop(peer, TIMER_SEND_KEEPALIVE)
        staged_purge(dev, peer)
        if peer.deadline_ns[TIMER_ZERO_KEYS] == WG_NEVER:
            timer_set(dev, peer, TIMER_ZERO_KEYS, now_ns + ZERO_KEYS_NS)
        event_push(dev, WG_EVENT_HANDSHAKE_GIVEN_UP, peer, unix_time(dev, now_ns), 0)
        return
    peer.retries += 1
    peer.endpoint.source_known = 0
    request_handshake(dev, now_ns, peer, True)


cdef void send_keepalive(wg_device *dev, uint64_t now_ns, wg_peer *peer) noexcept nogil:
    request_keepalive(dev, now_ns, peer)


cdef void new_handshake(wg_device *dev, uint64_t now_ns, wg_peer *peer) noexcept nogil:
    peer.endpoint.source_known = 0
    request_handshake(dev, now_ns, peer, False)


cdef void zero_keys(wg_device *dev, uint64_t now_ns, wg_peer *peer) noexcept nogil:
    peer_forget_handshake(dev, peer)
    keypair_forget_all(dev, peer)


cdef void persistent_keepalive(wg_device *dev, uint64_t now_ns, wg_peer *peer) noexcept nogil:
    if not peer.keepalive_s:
        return
    request_keepalive(dev, now_ns, peer)
    # What gets sent sets the timer again; this is for when nothing can be sent.
    timers_any_traversal(dev, now_ns, peer)


cdef bint due(wg_peer *peer, int timer, uint64_t now_ns) noexcept nogil:
    if peer.deadline_ns[timer] > now_ns:
        return False
    peer.deadline_ns[timer] = WG_NEVER
    return True


cdef void run(wg_device *dev, uint64_t now_ns, wg_peer *peer) noexcept nogil:
    if due(peer, TIMER_RETRANSMIT_HANDSHAKE, now_ns):
        retransmit_handshake(dev, now_ns, peer)
    if due(peer, TIMER_SEND_KEEPALIVE, now_ns):
        send_keepalive(dev, now_ns, peer)
    if due(peer, TIMER_NEW_HANDSHAKE, now_ns):
        new_handshake(dev, now_ns, peer)
    if due(peer, TIMER_ZERO_KEYS, now_ns):
        zero_keys(dev, now_ns, peer)
    if due(peer, TIMER_PERSISTENT_KEEPALIVE, now_ns):
        persistent_keepalive(dev, now_ns, peer)


cdef uint64_t wg_poll_at(const wg_device *dev) noexcept nogil:
    # Work that a configuration call left behind waits for nothing, and the memory of
    # removed peers not for a timer that may never be set.
    if (dev.outbox_ring.count or dev.queue_ring.count or dev.dead != NULL
            or dev.lists[LIST_TRANSMIT].first != NULL
            or dev.lists[LIST_READY].first != NULL):
        return 0
    return dev.heap[0].wake_ns if dev.heap_len else WG_NEVER


cdef void wg_advance(wg_device *dev, uint64_t now_ns) noexcept nogil:
    cdef wg_peer *peer

    while dev.dead != NULL:
        peer = dev.dead
        dev.dead = peer.links[LIST_ALL].next
        dev.bytes -= sizeof(wg_peer)
        free(peer)
    while dev.heap_len and dev.heap[0].wake_ns <= now_ns:
        peer = dev.heap[0]
        run(dev, now_ns, peer)
        peer.wake_ns = earliest(peer)
        if peer.wake_ns == WG_NEVER:
            heap_remove(dev, peer)
        else:
            sift_down(dev, peer)
