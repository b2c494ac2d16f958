# SPDX-License-Identifier: Apache-2.0
"""Connections that the tunnel's side opens.

Theory of operation
-------------------
    SYN to a port of ours that listens
        -> SYN_ANSWERED: SYN-ACK sent, again after 1, 2, 4 s; the ACK makes the flow
        -> over the limit of requests: a SYN cookie, nothing is kept
    SYN to anything else that host.admit() wants dialled
        -> SYN_DIALLING: NS_EVENT_SYN; the consumer connects on the other side, then
           ns_accept() (a flow in SYN_RECEIVED, SYN-ACK) or ns_refuse() (RST or ICMP)
        -> not decided within dial_ms: ICMP host unreachable, NS_EVENT_CANCELLED
        -> RST from the client: NS_EVENT_CANCELLED
        -> over the limit, or the peer has a third of it: the SYN is dropped, it comes again

A cookie is the initial sequence number: 5 bits of time in units of 65 s, 3 bits of
MSS, 24 bits of SipHash over tuple, the client's sequence number and the 8 bits
before. Window scale and SACK travel in the low 5 bits of the timestamp. Cookies
are believed for two minutes after the last one was sent.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from cext.base.drops cimport drop
from cext.netstack.flow cimport (
    age_append, age_remove, flow_insert, flow_remove, pool_put, pool_take, syn_event, syn_index,
    tcp_event, tcp_ready,
)
from cext.netstack.icmp cimport icmp_refuse, icmp_refuse_tuple
from cext.netstack.ip cimport ip_is_ours
from cext.netstack.layout cimport (
    FLOW_GENERATION_MASK, FLOW_SYN_REQUEST, NS_DENY, NS_DIAL, NS_EVENT_CANCELLED,
    NS_EVENT_CONNECTED, NS_EVENT_SYN, NS_NIL, NS_REFUSE_HOST, NS_REFUSE_PROHIBITED, NS_REFUSE_RESET,
    NS_REJECT, SYN_ANSWERED, SYN_CANCELLED, SYN_DIALLING, SYN_FREE, TCP_ESTABLISHED,
    TCP_SYN_RECEIVED, TF_ACK_NOW, TF_PASSIVE, TF_UNSEEN, TIMER_HANDSHAKE, TIMER_OFF, flow_ref,
    flow_tuple, netstack, ns_listener, siphash, syn_request, tcp_flow,
)
from cext.netstack.tcp_congestion cimport congestion_init
from cext.netstack.tcp_output cimport tcp_answer_syn, tcp_reset_segment
from cext.netstack.tcp_recovery cimport recovery_rtt
from cext.netstack.tcp_state cimport (
    tcp_initial_sequence, tcp_negotiate, tcp_new, tcp_set_state, tcp_set_timer,
    tcp_timestamp_offset,
)
from cext.netstack.tcp_timers cimport tcp_idle_start
from cext.netstack.wheel cimport wheel_arm, wheel_cancel
from cext.wire.ip cimport IPV4_TTL, IPV6_HOP_LIMIT, TCP_ACK, TCP_RST, TCP_SYN, ip_info
from cext.wire.tcp cimport (
    TCP_HAS_MSS, TCP_HAS_SACK_PERMITTED, TCP_HAS_TIMESTAMP, TCP_HAS_WINDOW_SCALE, seq_gt, seq_lt,
    tcp_segment,
)


cdef extern from "base/drops.h" nogil:
    enum:
        DROP_NS_BAD_COOKIE
        DROP_NS_DENIED
        DROP_NS_HALF_OPEN_FULL
        DROP_NS_NO_LISTENER
        DROP_NS_TCP_BAD_RESET
        DROP_NS_TCP_BAD_STATE
        DROP_NS_TCP_OUT_OF_WINDOW

cdef enum:
    PROTOCOL_TCP = 6
    LISTENER_NONE = 0xff
    ANSWER_TRIES = 4
    QUICK_ACKS = 16
    COOKIE_LIFE_MS = 130000
    COOKIE_BITS = 0x1f
    COOKIE_NO_SCALE = 15

cdef uint16_t *cookie_mss = [216, 536, 1200, 1300, 1340, 1380, 1420, 1460]


# -- requests --
cdef inline uint32_t timer_of(const netstack *s, const syn_request *r) noexcept nogil:
    return s.limits.tcp_flows + syn_index(s, r)


cdef void request_free(netstack *s, syn_request *r) noexcept nogil:
    cdef uint32_t index = syn_index(s, r)

    flow_remove(s, &r.tuple, PROTOCOL_TCP, flow_ref(FLOW_SYN_REQUEST, index))
    age_remove(s, &s.syn_age, FLOW_SYN_REQUEST, index)
    wheel_cancel(&s.wheel, timer_of(s, r))
    r.state = SYN_FREE
    r.events = 0
    r.generation = (r.generation + 1) & FLOW_GENERATION_MASK
    pool_put(s, &s.syn_pool, FLOW_SYN_REQUEST, index)


cdef bint may_request(netstack *s, uint32_t peer) noexcept nogil:
    """Whether one more is allowed: all of them, and a third for one peer."""
    cdef uint32_t index = s.syn_age.oldest, n = 0

    if s.syn_pool.used >= s.syn_pool.count:
        return False
    if s.syn_pool.used < s.syn_pool.count // 3:
        return True
    while index != NS_NIL:
        n += s.syn[index].peer == peer
        index = s.syn[index].newer
    return n < s.syn_pool.count // 3


cdef syn_request *request_new(netstack *s, const flow_tuple *tuple, const tcp_segment *seg,
                              uint32_t peer, uint32_t state) noexcept nogil:
    cdef uint32_t index = pool_take(s, &s.syn_pool, FLOW_SYN_REQUEST)
    cdef syn_request *r = &s.syn[index]

    r.tuple = tuple[0]
    r.peer = peer
    r.irs = seg.seq
    r.iss = tcp_initial_sequence(s, tuple)
    r.ts_value = seg.ts_value
    r.ts_offset = tcp_timestamp_offset(s, tuple)
    r.born_ms = s.now_ms
    r.mss = seg.mss
    r.listener = LISTENER_NONE
    r.options = seg.options
    r.window_scale = seg.window_scale
    r.state = <uint8_t> state
    r.retransmits = 0
    r.events = 0
    flow_insert(s, &r.tuple, PROTOCOL_TCP, flow_ref(FLOW_SYN_REQUEST, index))
    age_append(s, &s.syn_age, FLOW_SYN_REQUEST, index)
    return r


cdef void answer(netstack *s, syn_request *r) noexcept nogil:
    """SYN-ACK for a listener, and when it is due again."""
    tcp_answer_syn(s, &r.tuple, r.iss, r.irs, r.options, s.now_ms + r.ts_offset, r.ts_value,
                   s.listener[r.listener].receive_space, r.peer)
    wheel_arm(&s.wheel, timer_of(s, r), s.now_ms64 + (<uint64_t> 1000 << r.retransmits))


# -- becoming a flow --
cdef void tcp_established(netstack *s, tcp_flow *t, uint32_t rtt_us) noexcept nogil:
    cdef bint again = t.backoff != 0

    tcp_set_state(s, t, TCP_ESTABLISHED)
    t.timer = TIMER_OFF
    t.backoff = 0
    t.probes = 0
    t.quick_acks = QUICK_ACKS
    recovery_rtt(s, t, rtt_us)
    congestion_init(s, t)
    if again:
        # RFC 6928 section 2: a lost SYN is a reason to be careful.
        t.cwnd = t.mss
    t.delivered_us = t.first_sent_us = s.now_us
    t.stalled_ms = s.now_ms
    t.highest_sacked = t.snd_una
    tcp_idle_start(s, t)
    tcp_event(s, t, NS_EVENT_CONNECTED)
    tcp_ready(s, t)


cdef tcp_flow *make_flow(netstack *s, const flow_tuple *tuple, uint32_t peer, uint32_t iss,
                         uint32_t irs, uint32_t options, uint16_t mss, uint8_t window_scale,
                         uint32_t ts_value, uint32_t receive_space) noexcept nogil:
    """A flow in SYN_RECEIVED; the tuple must not be in the table."""
    cdef tcp_flow *t = tcp_new(s, tuple, peer)

    if t == NULL:
        return NULL
    t.snd_una = iss
    t.snd_nxt = t.write_seq = iss + 1
    t.rcv_nxt = t.last_ack_sent = irs + 1
    t.rcv_space = receive_space
    t.rcv_edge = t.rcv_nxt
    t.ts_offset = tcp_timestamp_offset(s, tuple)
    t.flags |= TF_PASSIVE
    tcp_negotiate(s, t, options, mss, window_scale, ts_value)
    tcp_set_state(s, t, TCP_SYN_RECEIVED)
    return t


cdef tcp_flow *from_request(netstack *s, syn_request *r, uint32_t receive_space) noexcept nogil:
    """Let a request become a flow; it is gone whether or not that works."""
    cdef syn_request was = r[0]

    request_free(s, r)
    return make_flow(s, &was.tuple, was.peer, was.iss, was.irs, was.options, was.mss,
                     was.window_scale, was.ts_value, receive_space)


cdef void adopt(netstack *s, tcp_flow *t, uint32_t listener) noexcept nogil:
    """A flow of a listener: what the consumer set there."""
    cdef ns_listener *l = &s.listener[listener]
    cdef uint32_t window = l.receive_space

    t.user = l.user
    if window > s.limits.flow_rx_bytes:
        window = s.limits.flow_rx_bytes
    # What the SYN-ACK advertised.
    t.rcv_edge = t.rcv_nxt + (window if window < 65535 else 65535)
    t.flags |= TF_UNSEEN
    l.waiting += 1
    # The segment that made it may still be refused: the SYN-ACK goes out again then.
    tcp_set_timer(s, t, TIMER_HANDSHAKE, 1000)


cdef tcp_flow *listener_accept(netstack *s, syn_request *r, uint64_t user,
                               uint32_t receive_space) noexcept nogil:
    cdef tcp_flow *t = from_request(s, r, receive_space)

    if t != NULL:
        t.user = user
        t.flags |= TF_ACK_NOW
        tcp_ready(s, t)
    return t


cdef void listener_refuse(netstack *s, syn_request *r, uint32_t refusal) noexcept nogil:
    cdef tcp_segment seg

    if refusal == NS_REFUSE_RESET:
        memset(&seg, 0, sizeof(seg))
        seg.seq = r.irs
        seg.flags = TCP_SYN
        tcp_reset_segment(s, &r.tuple, &seg, r.peer)
    else:
        icmp_refuse_tuple(s, &r.tuple, PROTOCOL_TCP, r.irs, refusal, r.peer)
    request_free(s, r)


cdef void cancel(netstack *s, syn_request *r) noexcept nogil:
    """Over without the consumer: it learns of it, then gives the handle back."""
    cdef uint32_t index = syn_index(s, r)

    if r.state != SYN_DIALLING:
        request_free(s, r)
        return
    r.state = SYN_CANCELLED
    flow_remove(s, &r.tuple, PROTOCOL_TCP, flow_ref(FLOW_SYN_REQUEST, index))
    wheel_cancel(&s.wheel, timer_of(s, r))
    syn_event(s, r, NS_EVENT_CANCELLED)


cdef void listener_timer(netstack *s, syn_request *r) noexcept nogil:
    if r.state == SYN_DIALLING:
        icmp_refuse_tuple(s, &r.tuple, PROTOCOL_TCP, r.irs, NS_REFUSE_HOST, r.peer)
        cancel(s, r)
    elif r.state == SYN_ANSWERED:
        r.retransmits += 1
        if r.retransmits >= ANSWER_TRIES:
            request_free(s, r)
        else:
            s.statistics.retransmits += 1
            answer(s, r)


# -- cookies --
cdef uint32_t cookie_mac(const netstack *s, const flow_tuple *tuple, uint32_t irs,
                         uint32_t head) noexcept nogil:
    cdef uint8_t text[44]

    memcpy(text, tuple, 36)
    memcpy(text + 36, &irs, 4)
    memcpy(text + 40, &head, 4)
    return <uint32_t> siphash(s.cookie_key, text, 44, 2, 4) & 0xffffff


cdef void send_cookie(netstack *s, const flow_tuple *tuple, const tcp_segment *seg,
                      uint32_t listener, uint32_t peer) noexcept nogil:
    cdef uint32_t head = (<uint32_t> (s.now_ms64 >> 16) & 31) << 3, i = 7, iss, ts_value
    cdef uint32_t mss = seg.mss if seg.options & TCP_HAS_MSS else 536, options = seg.options
    cdef uint32_t bits

    while i > 0 and cookie_mss[i] > mss:
        i -= 1
    head |= i
    iss = head << 24 | cookie_mac(s, tuple, seg.seq, head)
    ts_value = s.now_ms + tcp_timestamp_offset(s, tuple)
    if options & TCP_HAS_TIMESTAMP:
        bits = seg.window_scale if options & TCP_HAS_WINDOW_SCALE else COOKIE_NO_SCALE
        bits |= (16 if options & TCP_HAS_SACK_PERMITTED else 0)
        bits |= ts_value & ~<uint32_t> COOKIE_BITS
        # Never ahead of the clock, so that what follows does not look old.
        ts_value = bits - (32 if seq_gt(bits, ts_value) else 0)
    else:
        options &= ~<uint32_t> (TCP_HAS_WINDOW_SCALE | TCP_HAS_SACK_PERMITTED)
    s.statistics.cookies_sent += 1
    s.overloaded = 1
    s.cookie_ms = s.now_ms
    tcp_answer_syn(s, tuple, iss, seg.seq, options, ts_value, seg.ts_value,
                   s.listener[listener].receive_space, peer)


cdef int find_listener(netstack *s, const flow_tuple *tuple) noexcept nogil:
    """Index, or -1; one with this very address before one for all."""
    cdef uint32_t i
    cdef int found = -1
    cdef ns_listener *l
    cdef uint8_t any_address[16]

    memset(any_address, 0, 16)
    for i in range(s.listeners):
        l = &s.listener[i]
        if l.port == 0 or l.port != tuple.local_port or l.protocol != PROTOCOL_TCP:
            continue
        if memcmp(l.local, tuple.local, 16) == 0:
            return <int> i
        if memcmp(l.local, any_address, 16) == 0:
            found = <int> i
    return found


cdef tcp_flow *listener_cookie(netstack *s, const flow_tuple *tuple, const tcp_segment *seg,
                               uint32_t peer, bint *later) noexcept nogil:
    cdef uint32_t cookie = seg.ack - 1, head = cookie >> 24, age, options = TCP_HAS_MSS, bits
    cdef uint8_t window_scale = 0
    cdef int listener
    cdef tcp_flow *t

    if not s.overloaded or seg.flags & (TCP_SYN | TCP_RST):
        return NULL
    if s.now_ms - s.cookie_ms > COOKIE_LIFE_MS:
        s.overloaded = 0
        return NULL
    if not ip_is_ours(s, tuple.local):
        return NULL
    listener = find_listener(s, tuple)
    if listener < 0:
        return NULL
    age = ((<uint32_t> (s.now_ms64 >> 16) & 31) - (head >> 3)) & 31
    if age > 1 or cookie_mac(s, tuple, seg.seq - 1, head) != cookie & 0xffffff:
        # Perhaps a later segment of a connection whose first one was lost: no reset, so
        # that the first one, sent again, still finds its cookie good.
        drop(&s.drops, DROP_NS_BAD_COOKIE)
        later[0] = True
        return NULL
    if seg.options & TCP_HAS_TIMESTAMP:
        bits = (seg.ts_echo) & COOKIE_BITS
        options |= TCP_HAS_TIMESTAMP
        if bits & 16:
            options |= TCP_HAS_SACK_PERMITTED
        if bits & 15 != COOKIE_NO_SCALE:
            options |= TCP_HAS_WINDOW_SCALE
            window_scale = <uint8_t> (bits & 15)
    if s.listener[listener].waiting >= s.listener[listener].backlog:
        drop(&s.drops, DROP_NS_HALF_OPEN_FULL)
        later[0] = True
        return NULL
    t = make_flow(s, tuple, peer, cookie, seg.seq - 1, options, cookie_mss[head & 7],
                  window_scale, seg.ts_value, s.listener[listener].receive_space)
    if t != NULL:
        s.statistics.cookies_accepted += 1
        adopt(s, t, <uint32_t> listener)
    return t


# -- segments --
cdef void listener_syn(netstack *s, const flow_tuple *tuple, const tcp_segment *seg,
                       const uint8_t *packet, const ip_info *info, uint32_t peer, bint reused,
                       uint32_t floor) noexcept nogil:
    cdef bint ours = ip_is_ours(s, tuple.local)
    cdef int listener = find_listener(s, tuple) if ours else -1, verdict
    cdef syn_request *r

    if listener >= 0:
        if s.listener[listener].waiting >= s.listener[listener].backlog:
            drop(&s.drops, DROP_NS_HALF_OPEN_FULL)
            return
        if not may_request(s, peer):
            send_cookie(s, tuple, seg, <uint32_t> listener, peer)
            return
        r = request_new(s, tuple, seg, peer, SYN_ANSWERED)
        r.listener = <uint8_t> listener
    else:
        if s.host.admit == NULL:
            verdict = NS_REJECT if ours else NS_DENY
        else:
            verdict = s.host.admit(s.host.context, tuple, PROTOCOL_TCP, peer)
        if verdict != NS_DIAL:
            drop(&s.drops, DROP_NS_NO_LISTENER if ours else DROP_NS_DENIED)
            if verdict == NS_REJECT:
                if ours:
                    tcp_reset_segment(s, tuple, seg, peer)
                else:
                    icmp_refuse(s, packet, info.total_len, NS_REFUSE_PROHIBITED, peer)
            return
        if not may_request(s, peer):
            drop(&s.drops, DROP_NS_HALF_OPEN_FULL)
            return
        r = request_new(s, tuple, seg, peer, SYN_DIALLING)
    r.ttl = packet[<int> IPV4_TTL] if info.version == 4 else packet[<int> IPV6_HOP_LIMIT]
    if reused and not seq_gt(r.iss, floor):
        r.iss = floor + 0x10000 + (r.iss & 0xffff)
    if r.state == SYN_ANSWERED:
        answer(s, r)
    else:
        syn_event(s, r, NS_EVENT_SYN)
        wheel_arm(&s.wheel, timer_of(s, r), s.now_ms64 + s.limits.dial_ms)


cdef tcp_flow *listener_request(netstack *s, syn_request *r,
                                const tcp_segment *seg) noexcept nogil:
    cdef uint32_t listener = r.listener
    cdef flow_tuple tuple
    cdef uint32_t peer = r.peer, sent_us
    cdef tcp_flow *t

    if seg.flags & TCP_RST:
        # Exactly the next sequence number (RFC 5961), or the SYN taken back.
        if seg.seq == r.irs + 1 or (r.state == SYN_DIALLING and seg.seq == r.irs):
            s.statistics.resets_in += 1
            cancel(s, r)
        else:
            drop(&s.drops, DROP_NS_TCP_BAD_RESET)
        return NULL
    if seg.flags & TCP_SYN:
        if r.state == SYN_ANSWERED and seg.seq == r.irs and not seg.flags & TCP_ACK:
            tcp_answer_syn(s, &r.tuple, r.iss, r.irs, r.options, s.now_ms + r.ts_offset,
                           r.ts_value, s.listener[listener].receive_space, r.peer)
        return NULL
    if not seg.flags & TCP_ACK:
        drop(&s.drops, DROP_NS_TCP_BAD_STATE)
        return NULL
    tuple = r.tuple
    if r.state != SYN_ANSWERED or seg.ack != r.iss + 1:
        tcp_reset_segment(s, &tuple, seg, peer)
        return NULL
    if seg.seq - (r.irs + 1) > 65535 or (
            r.options & TCP_HAS_TIMESTAMP and seg.options & TCP_HAS_TIMESTAMP
            and seq_lt(seg.ts_value, r.ts_value)):
        drop(&s.drops, DROP_NS_TCP_OUT_OF_WINDOW)
        return NULL
    if s.listener[listener].waiting >= s.listener[listener].backlog:
        drop(&s.drops, DROP_NS_HALF_OPEN_FULL)
        return NULL
    # The handshake's round trip, unless it is not clear which SYN-ACK this answers.
    sent_us = s.now_us - (s.now_ms - r.born_ms) * 1000
    if r.retransmits:
        sent_us = 0
    t = from_request(s, r, s.listener[listener].receive_space)
    if t == NULL:
        tcp_reset_segment(s, &tuple, seg, peer)
    else:
        t.first_sent_us = sent_us
        adopt(s, t, listener)
    return t
