# SPDX-License-Identifier: Apache-2.0
"""The life of a TCP flow: its slot, its state, the deadlines of its timer, its end.

    CLOSED -> SYN_SENT -> ESTABLISHED          ns_connect()
           -> SYN_RECEIVED -> ESTABLISHED      ns_accept(), a listener, simultaneous open
    ESTABLISHED -> FIN_WAIT_1 -> FIN_WAIT_2 -> (time_wait)     we closed first
                              -> CLOSING -> (time_wait)        both at once
                -> CLOSE_WAIT -> LAST_ACK -> CLOSED            the peer closed first
    any -> CLOSED                              RST, timeout, eviction

LISTEN is struct ns_listener and TIME_WAIT struct time_wait: neither needs a flow.
A flow whose consumer still holds the handle stays in CLOSED until ns_close();
an orphan is freed at once.

One timer of the wheel serves a flow. It is armed for the earliest of up to three
deadlines (sending, delayed ACK, idleness) and never moved later: when it fires
early, the flow looks at its deadlines and arms it again.
"""

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from cext.base.drops cimport drop
from cext.netstack.flow cimport (
    age_append, age_remove, at_or_after, flow_insert, flow_remove, flow_replace, pool_put,
    pool_take, tcp_event, tcp_index,
)
from cext.netstack.layout cimport (
    FLOW_GENERATION_MASK, FLOW_TCP, FLOW_TIME_WAIT, NS_EVENT_CLOSED, NS_NIL, NS_REASON_EVICTED,
    NS_REASON_FINISHED, TCP_CLOSED, TCP_CLOSE_WAIT, TCP_CLOSING, TCP_ESTABLISHED, TCP_FIN_WAIT_1,
    TCP_FIN_WAIT_2, TCP_FREE, TCP_LAST_ACK, TCP_SYN_RECEIVED, TCP_SYN_SENT, TF_ACK_DELAYED,
    TF_IN_TABLE, TF_ORPHAN, TF_SACK, TF_TIMESTAMPS, TF_UNSEEN, TF_WINDOW_SCALE, TIMER_OFF,
    TIME_WAIT_TAKEN, TIME_WAIT_TIMESTAMPS, WHEEL_NEVER, address_is_v4, flow_ref, flow_tuple,
    netstack, siphash, tcp_flow, time_wait,
)
from cext.netstack.slab cimport slab_put_chain
from cext.netstack.wheel cimport wheel_arm, wheel_cancel
from cext.wire.ip cimport IPV4_MIN_LEN, IPV6_LEN, TCP_MIN_LEN
from cext.wire.tcp cimport (
    TCP_HAS_MSS, TCP_HAS_SACK_PERMITTED, TCP_HAS_TIMESTAMP, TCP_HAS_WINDOW_SCALE,
)


cdef extern from "base/drops.h" nogil:
    enum:
        DROP_NS_FLOW_TABLE_FULL

cdef enum:
    PROTOCOL_TCP = 6
    DEFAULT_MSS_V4 = 536
    DEFAULT_MSS_V6 = 1220
    LEAST_MSS = 88  # below it headers cost more than data: nobody honest asks for that
    TIMESTAMP_LEN = 12
    FIRST_WINDOW = 65536
    EVICT_LOOK = 64  # flows that a search for somebody to evict looks at
    EVICT_IDLE_MS = 10000  # nobody who was heard of since then has to go


cdef uint16_t tcp_our_mss(const netstack *s, const flow_tuple *tuple) noexcept nogil:
    cdef uint32_t header = TCP_MIN_LEN

    header += IPV4_MIN_LEN if address_is_v4(tuple.local) else IPV6_LEN
    return <uint16_t> (s.limits.mtu_bytes - header)


cdef uint32_t tcp_initial_sequence(const netstack *s, const flow_tuple *tuple) noexcept nogil:
    return <uint32_t> (s.now_ns >> 12) + <uint32_t> siphash(
        s.isn_key, tuple, sizeof(flow_tuple), 2, 4)


cdef uint32_t tcp_timestamp_offset(const netstack *s, const flow_tuple *tuple) noexcept nogil:
    return <uint32_t> (siphash(s.isn_key, tuple, sizeof(flow_tuple), 2, 4) >> 32)


# -- slots --
cdef void evict_idle(netstack *s, uint32_t peer) noexcept nogil:
    """End the flow of `peer` that was silent longest, if any was silent long enough."""
    cdef uint32_t index = s.tcp_age.oldest, looked = 0
    cdef tcp_flow *t

    while index != NS_NIL and looked < EVICT_LOOK:
        t = &s.tcp[index]
        if s.now_ms - t.last_rx_ms < EVICT_IDLE_MS:
            return
        if t.peer == peer:
            s.statistics.evicted += 1
            tcp_finish(s, t, NS_REASON_EVICTED)
            return
        index = t.newer
        looked += 1


cdef tcp_flow *tcp_new(netstack *s, const flow_tuple *tuple, uint32_t peer) noexcept nogil:
    cdef uint32_t index
    cdef uint16_t generation
    cdef uint8_t queued
    cdef tcp_flow *t

    if s.tcp_pool.count - s.tcp_pool.used < s.tcp_pool.count // 64 + 2:
        evict_idle(s, peer)
    index = pool_take(s, &s.tcp_pool, FLOW_TCP)
    if index == NS_NIL:
        drop(&s.drops, DROP_NS_FLOW_TABLE_FULL)
        return NULL
    t = &s.tcp[index]
    generation = t.generation
    queued = t.queued
    memset(t, 0, sizeof(tcp_flow))
    # Never 0, so that no handle is.
    t.generation = generation if generation else 1
    t.queued = queued
    t.tuple = tuple[0]
    t.peer = peer
    t.state = TCP_CLOSED
    t.tx_head = t.tx_tail = t.tx_next = NS_NIL
    t.time_head = t.time_tail = t.lost_head = t.lost_tail = t.sack_hint = NS_NIL
    t.ooo_head = t.ooo_tail = t.parked_head = t.parked_tail = NS_NIL
    t.min_rtt_us = 0xffffffffu
    t.rcv_limit = s.limits.flow_rx_bytes
    if t.rcv_limit > FIRST_WINDOW:
        t.rcv_limit = FIRST_WINDOW
    t.reorder_mult = 1
    t.last_rx_ms = s.now_ms
    t.user_timeout_s = <uint16_t> s.limits.user_timeout_s
    t.keepalive_s = <uint16_t> s.limits.keepalive_s
    t.flags = TF_IN_TABLE
    flow_insert(s, &t.tuple, PROTOCOL_TCP, flow_ref(FLOW_TCP, index))
    age_append(s, &s.tcp_age, FLOW_TCP, index)
    s.statistics.opened += 1
    return t


cdef void tcp_touch(netstack *s, tcp_flow *t) noexcept nogil:
    cdef uint32_t index

    # Kept to a second, so that a busy flow is not moved for each segment.
    if s.now_ms - t.last_rx_ms >= 1000:
        index = tcp_index(s, t)
        age_remove(s, &s.tcp_age, FLOW_TCP, index)
        age_append(s, &s.tcp_age, FLOW_TCP, index)
        t.last_rx_ms = s.now_ms


cdef inline uint32_t may_follow(uint32_t state) noexcept nogil:
    """The states, as bits, that may follow one."""
    cdef uint32_t closed = 1 << <int> TCP_CLOSED

    if state == TCP_CLOSED:
        return 1 << <int> TCP_SYN_SENT | 1 << <int> TCP_SYN_RECEIVED | 1 << <int> TCP_ESTABLISHED
    if state == TCP_SYN_SENT:
        return closed | 1 << <int> TCP_SYN_RECEIVED | 1 << <int> TCP_ESTABLISHED
    if state == TCP_SYN_RECEIVED:
        return closed | 1 << <int> TCP_ESTABLISHED
    if state == TCP_ESTABLISHED:
        return closed | 1 << <int> TCP_FIN_WAIT_1 | 1 << <int> TCP_CLOSE_WAIT
    if state == TCP_FIN_WAIT_1:
        return closed | 1 << <int> TCP_FIN_WAIT_2 | 1 << <int> TCP_CLOSING
    if state == TCP_CLOSE_WAIT:
        return closed | 1 << <int> TCP_LAST_ACK
    if state == TCP_FIN_WAIT_2 or state == TCP_CLOSING or state == TCP_LAST_ACK:
        return closed
    return 0


cdef void tcp_set_state(netstack *s, tcp_flow *t, uint32_t state) noexcept nogil:
    if not may_follow(t.state) >> state & 1:
        # Ours to fix, nobody else's to suffer from: counted, and the fuzz target aborts.
        s.statistics.bad_transitions += 1
    t.state = <uint8_t> state


cdef void drop_queues(netstack *s, tcp_flow *t, bint parked) noexcept nogil:
    slab_put_chain(&s.slab, t.tx_head)
    t.rx_blocks -= <uint16_t> slab_put_chain(&s.slab, t.ooo_head)
    t.tx_head = t.tx_tail = t.tx_next = NS_NIL
    t.time_head = t.time_tail = t.lost_head = t.lost_tail = t.sack_hint = NS_NIL
    t.ooo_head = t.ooo_tail = NS_NIL
    t.tx_blocks = 0
    t.snd_una = t.snd_nxt = t.write_seq
    t.sacked = t.lost = t.retransmitted = 0
    if parked:
        slab_put_chain(&s.slab, t.parked_head)
        t.parked_head = t.parked_tail = NS_NIL
        t.parked = 0
        t.rx_blocks = 0


cdef void leave(netstack *s, tcp_flow *t) noexcept nogil:
    """Out of the list by age and the wheel."""
    age_remove(s, &s.tcp_age, FLOW_TCP, tcp_index(s, t))
    wheel_cancel(&s.wheel, tcp_index(s, t))
    t.timer = TIMER_OFF
    t.idle_due_ms = 0
    t.flags &= ~<uint32_t> TF_ACK_DELAYED


cdef void tcp_seen(netstack *s, tcp_flow *t) noexcept nogil:
    cdef uint32_t i

    if not t.flags & TF_UNSEEN:
        return
    t.flags &= ~<uint32_t> TF_UNSEEN
    for i in range(s.listeners):
        if s.listener[i].port == t.tuple.local_port and s.listener[i].waiting and \
                s.listener[i].protocol == PROTOCOL_TCP:
            s.listener[i].waiting -= 1
            return


cdef void tcp_finish(netstack *s, tcp_flow *t, uint32_t reason) noexcept nogil:
    if t.state == TCP_CLOSED:
        return
    if t.state == TCP_SYN_RECEIVED and t.flags & TF_UNSEEN:
        t.flags |= TF_ORPHAN
    if t.flags & TF_IN_TABLE:
        flow_remove(s, &t.tuple, PROTOCOL_TCP, flow_ref(FLOW_TCP, tcp_index(s, t)))
        t.flags &= ~<uint32_t> TF_IN_TABLE
    leave(s, t)
    drop_queues(s, t, reason != NS_REASON_FINISHED)
    tcp_set_state(s, t, TCP_CLOSED)
    s.statistics.closed += 1
    t.error = <uint8_t> reason
    if t.flags & TF_ORPHAN:
        tcp_free(s, t)
    elif t.parked == 0:
        # Otherwise when the consumer has taken the last byte.
        tcp_event(s, t, NS_EVENT_CLOSED)


cdef void tcp_free(netstack *s, tcp_flow *t) noexcept nogil:
    drop_queues(s, t, True)
    tcp_seen(s, t)
    t.events = 0
    t.state = TCP_FREE
    t.generation = (t.generation + 1) & FLOW_GENERATION_MASK
    pool_put(s, &s.tcp_pool, FLOW_TCP, tcp_index(s, t))


cdef void tcp_negotiate(netstack *s, tcp_flow *t, uint32_t options, uint16_t peer_mss,
                        uint8_t window_scale, uint32_t ts_value) noexcept nogil:
    cdef uint32_t mss = peer_mss, ours = tcp_our_mss(s, &t.tuple)

    # RFC 9293 section 3.7.1: what a SYN without the option stands for.
    if not options & TCP_HAS_MSS:
        mss = DEFAULT_MSS_V4 if address_is_v4(t.tuple.local) else DEFAULT_MSS_V6
    if mss > ours:
        mss = ours
    if mss < LEAST_MSS:
        mss = LEAST_MSS
    t.flags &= ~<uint32_t> (TF_TIMESTAMPS | TF_SACK | TF_WINDOW_SCALE)
    if options & TCP_HAS_TIMESTAMP:
        t.flags |= TF_TIMESTAMPS
        t.ts_recent = ts_value
        t.ts_recent_ms = s.now_ms
        mss -= TIMESTAMP_LEN
    if options & TCP_HAS_SACK_PERMITTED:
        t.flags |= TF_SACK
    if options & TCP_HAS_WINDOW_SCALE:
        t.flags |= TF_WINDOW_SCALE
        t.snd_scale = window_scale
        t.rcv_scale = s.rx_scale
    t.mss = <uint16_t> mss


# -- TIME_WAIT --
cdef inline uint16_t quarter(const netstack *s, uint32_t in_ms) noexcept nogil:
    return <uint16_t> ((s.now_ms64 + in_ms + 255) >> 8)


cdef void time_wait_free(netstack *s, time_wait *w) noexcept nogil:
    cdef uint32_t index = <uint32_t> (w - s.time_wait)

    flow_remove(s, &w.tuple, PROTOCOL_TCP, flow_ref(FLOW_TIME_WAIT, index))
    age_remove(s, &s.time_wait_age, FLOW_TIME_WAIT, index)
    w.flags = 0
    pool_put(s, &s.time_wait_pool, FLOW_TIME_WAIT, index)


cdef void tcp_time_wait(netstack *s, tcp_flow *t) noexcept nogil:
    cdef uint32_t index
    cdef time_wait *w

    index = pool_take(s, &s.time_wait_pool, FLOW_TIME_WAIT)
    if index == NS_NIL and s.time_wait_age.oldest != NS_NIL:
        s.statistics.evicted += 1
        time_wait_free(s, &s.time_wait[s.time_wait_age.oldest])
        index = pool_take(s, &s.time_wait_pool, FLOW_TIME_WAIT)
    if index != NS_NIL:
        w = &s.time_wait[index]
        w.tuple = t.tuple
        w.snd_nxt = t.snd_nxt
        w.rcv_nxt = t.rcv_nxt
        w.ts_recent = t.ts_recent
        w.ts_offset = t.ts_offset
        w.flags = TIME_WAIT_TAKEN
        if t.flags & TF_TIMESTAMPS:
            w.flags |= TIME_WAIT_TIMESTAMPS
        w.window_scale = t.rcv_scale
        w.due_quarter = quarter(s, s.limits.time_wait_ms)
        age_append(s, &s.time_wait_age, FLOW_TIME_WAIT, index)
        flow_replace(s, &t.tuple, PROTOCOL_TCP, flow_ref(FLOW_TCP, tcp_index(s, t)),
                     flow_ref(FLOW_TIME_WAIT, index))
        t.flags &= ~<uint32_t> TF_IN_TABLE
    tcp_finish(s, t, NS_REASON_FINISHED)


cdef void time_wait_restart(netstack *s, time_wait *w) noexcept nogil:
    cdef uint32_t index = <uint32_t> (w - s.time_wait)

    age_remove(s, &s.time_wait_age, FLOW_TIME_WAIT, index)
    age_append(s, &s.time_wait_age, FLOW_TIME_WAIT, index)
    w.due_quarter = quarter(s, s.limits.time_wait_ms)


cdef inline int32_t quarters_left(const netstack *s, const time_wait *w) noexcept nogil:
    cdef uint32_t left = (w.due_quarter - <uint32_t> (s.now_ms64 >> 8)) & 0xffff

    return <int32_t> left if left < 0x8000 else <int32_t> left - 0x10000


cdef void time_wait_poll(netstack *s) noexcept nogil:
    cdef time_wait *w

    while s.time_wait_age.oldest != NS_NIL:
        w = &s.time_wait[s.time_wait_age.oldest]
        if quarters_left(s, w) > 0:
            return
        time_wait_free(s, w)


cdef uint64_t time_wait_poll_at(const netstack *s) noexcept nogil:
    cdef int32_t left

    if s.time_wait_age.oldest == NS_NIL:
        return WHEEL_NEVER
    left = quarters_left(s, &s.time_wait[s.time_wait_age.oldest])
    if left <= 0:
        return s.now_ms64
    return ((s.now_ms64 >> 8) + <uint64_t> left) << 8


# -- timers --
cdef void tcp_arm(netstack *s, tcp_flow *t) noexcept nogil:
    cdef uint32_t index = tcp_index(s, t), due = 0
    cdef bint any_due = False
    cdef int32_t ahead

    if t.timer != TIMER_OFF:
        due = t.send_due_ms
        any_due = True
    if t.flags & TF_ACK_DELAYED and (not any_due or at_or_after(due, t.ack_due_ms)):
        due = t.ack_due_ms
        any_due = True
    if t.idle_due_ms != 0 and (not any_due or at_or_after(due, t.idle_due_ms)):
        due = t.idle_due_ms
        any_due = True
    if not any_due:
        return
    if s.wheel.timer[index].slot != 0 and at_or_after(due, s.wheel.timer[index].due_ms):
        return
    ahead = <int32_t> (due - s.now_ms)
    wheel_arm(&s.wheel, index, s.now_ms64 + <uint64_t> (ahead if ahead > 0 else 0))


cdef void tcp_set_timer(netstack *s, tcp_flow *t, uint32_t timer, uint32_t in_ms) noexcept nogil:
    t.timer = <uint8_t> timer
    if timer != TIMER_OFF:
        t.send_due_ms = s.now_ms + in_ms
        tcp_arm(s, t)
