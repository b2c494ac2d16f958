# SPDX-License-Identifier: Apache-2.0
"""Segments in: everything that makes a TCP flow change its state stands in this file,
tcp_timers and tcp_socket.

Order of a synchronized flow's checks (RFC 9293 section 3.10.7.4, 7323, 5961):

    PAWS -> sequence acceptable -> RST -> SYN -> ACK acceptable -> timestamp kept
    -> scoreboard, recovery, window -> our FIN acknowledged? -> payload -> FIN

    blind RST    only at exactly rcv_nxt; elsewhere in the window a challenge ACK
    blind SYN    always a challenge ACK
    blind data   its ACK must lie within (snd_una - largest window, snd_nxt]

Challenge ACKs and ACKs for what lies outside the window: two a second and flow, so
that they tell nothing about other flows (CVE-2016-5696) and two ends out of step do
not chase each other. The urgent pointer is ignored (RFC 6093 section 4): what it
points at is data in order.
"""

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t
from libc.string cimport memset

from cext.base.drops cimport drop
from cext.netstack.flow cimport flow_find, tcp_event, tcp_ready
from cext.netstack.ip cimport ip_addresses, ip_pseudo
from cext.netstack.layout cimport (
    FLOW_SYN_REQUEST, FLOW_TCP, FLOW_TIME_WAIT, NS_EVENT_PEER_CLOSED, NS_EVENT_WRITABLE, NS_NIL,
    NS_REASON_FINISHED, NS_REASON_REFUSED, NS_REASON_RESET, NS_REASON_UNREACHABLE, NS_REFUSE_SILENT,
    TCP_CLOSE_WAIT, TCP_CLOSING, TCP_ESTABLISHED, TCP_FIN_WAIT_1, TCP_FIN_WAIT_2, TCP_LAST_ACK,
    TCP_SYN_RECEIVED, TCP_SYN_SENT, TF_ACK_NOW, TF_FIN_PENDING, TF_FIN_QUEUED, TF_FIN_RECEIVED,
    TF_ORPHAN, TF_PASSIVE, TF_PATH_MTU, TF_SACK, TF_TIMESTAMPS, TF_TLP_OUT, TF_WANT_WRITABLE,
    TIMER_OFF, TIMER_PERSIST, TIME_WAIT_TIMESTAMPS, address_is_v4, flow_tuple, icmp_error, netstack,
    ref_index, ref_kind, tcp_flow, time_wait,
)
from cext.netstack.tcp_congestion cimport congestion_rtt
from cext.netstack.tcp_listener cimport (
    listener_cookie, listener_request, listener_syn, tcp_established,
)
from cext.netstack.tcp_options cimport tcp_parse
from cext.netstack.tcp_output cimport (
    tcp_answer_flow, tcp_answer_time_wait, tcp_reset, tcp_reset_segment,
)
from cext.netstack.tcp_receive cimport (
    receive_duplicate, receive_flush, receive_joins, receive_owe_ack, receive_segment,
)
from cext.netstack.tcp_recovery cimport recovery_ack, recovery_mtu, recovery_rtt
from cext.netstack.tcp_scoreboard cimport (
    ack_sample, scoreboard_ack, scoreboard_rate, scoreboard_sack,
)
from cext.netstack.tcp_state cimport (
    tcp_finish, tcp_negotiate, tcp_rto_ms, tcp_set_state, tcp_time_wait, tcp_touch, time_wait_free,
    time_wait_restart,
)
from cext.netstack.tcp_timers cimport tcp_idle_start
from cext.wire.checksum cimport checksum_add, checksum_valid
from cext.wire.ip cimport (
    IPV4_MIN_LEN, IPV6_LEN, TCP_ACK, TCP_FIN, TCP_MIN_LEN, TCP_PSH, TCP_RST, TCP_SYN, ip_info,
)
from cext.wire.tcp cimport (
    TCP_HAS_TIMESTAMP, TCP_HAS_USER_TIMEOUT, seq_geq, seq_gt, seq_leq, seq_lt, tcp_segment,
)


cdef extern from "base/drops.h" nogil:
    enum:
        DROP_NS_BAD_CHECKSUM
        DROP_NS_BAD_HEADER
        DROP_NS_ICMP_IGNORED
        DROP_NS_NO_LISTENER
        DROP_NS_RATE_LIMITED
        DROP_NS_TCP_BAD_ACK
        DROP_NS_TCP_BAD_RESET
        DROP_NS_TCP_BAD_STATE
        DROP_NS_TCP_OUT_OF_WINDOW
        DROP_NS_TCP_PAWS

cdef enum:
    PROTOCOL_TCP = 6
    CHALLENGE_INTERVAL = 16  # in 32 ms: half a second
    PAWS_IDLE_MS = 2073600000  # 24 days
    LEAST_MTU_V4 = 552
    LEAST_MTU_V6 = 1280
    USER_TIMEOUT_MAX_S = 3600
    WRITABLE_SHARE = 4
    SACK_RANGES = 2


cdef void challenge(netstack *s, tcp_flow *t) noexcept nogil:
    """An ACK that tells a peer in doubt where we stand."""
    if t.challenges and <uint16_t> ((s.now_ms >> 5) - t.challenge_at) < CHALLENGE_INTERVAL:
        drop(&s.drops, DROP_NS_RATE_LIMITED)
        return
    t.challenges = 1
    t.challenge_at = <uint16_t> (s.now_ms >> 5)
    s.statistics.challenge_acks += 1
    receive_owe_ack(s, t, True)


cdef inline uint32_t segment_span(const tcp_segment *seg) noexcept nogil:
    return seg.payload_len + (1 if seg.flags & TCP_SYN else 0) + (1 if seg.flags & TCP_FIN else 0)


# -- SYN_SENT --
cdef void in_syn_sent(netstack *s, tcp_flow *t, const tcp_segment *seg) noexcept nogil:
    cdef uint32_t rtt_us = 0

    if seg.flags & TCP_ACK and seg.ack != t.snd_nxt:
        drop(&s.drops, DROP_NS_TCP_BAD_ACK)
        tcp_reset_segment(s, &t.tuple, seg, t.peer)
        return
    if seg.flags & TCP_RST:
        if seg.flags & TCP_ACK:
            s.statistics.resets_in += 1
            tcp_finish(s, t, NS_REASON_REFUSED)
        else:
            drop(&s.drops, DROP_NS_TCP_BAD_RESET)
        return
    if not seg.flags & TCP_SYN:
        drop(&s.drops, DROP_NS_TCP_BAD_STATE)
        return
    t.rcv_nxt = t.last_ack_sent = seg.seq + 1
    t.rcv_edge = t.rcv_nxt + (t.rcv_space if t.rcv_space < 65535 else 65535)
    if t.rcv_space > s.limits.flow_rx_bytes:
        t.rcv_edge = t.rcv_nxt + (
            s.limits.flow_rx_bytes if s.limits.flow_rx_bytes < 65535 else 65535)
    tcp_negotiate(s, t, seg.options, seg.mss, seg.window_scale, seg.ts_value)
    t.snd_wnd = t.snd_wnd_max = seg.window
    t.snd_wl1 = seg.seq
    if seg.flags & TCP_ACK:
        if t.backoff == 0:
            rtt_us = s.now_us - t.first_sent_us
            rtt_us = rtt_us if rtt_us else 1
        t.snd_una = seg.ack
        tcp_established(s, t, rtt_us)
        receive_owe_ack(s, t, True)
    else:
        # Both began at once (RFC 9293 figure 7).
        tcp_set_state(s, t, TCP_SYN_RECEIVED)
        t.backoff = 0
        t.flags |= TF_ACK_NOW
        tcp_ready(s, t)


# -- checks --
cdef bint is_old_timestamp(const netstack *s, const tcp_flow *t,
                                  const tcp_segment *seg) noexcept nogil:
    if not t.flags & TF_TIMESTAMPS or not seg.options & TCP_HAS_TIMESTAMP or \
            seq_geq(seg.ts_value, t.ts_recent) or s.now_ms - t.ts_recent_ms >= PAWS_IDLE_MS:
        return False
    # ACKs that overtook each other are no threat: nothing of theirs is delivered.
    return not (seg.payload_len == 0 and seg.seq == t.rcv_nxt
                and not seg.flags & (TCP_SYN | TCP_FIN)
                and t.ts_recent - seg.ts_value < tcp_rto_ms(s, t))


cdef bint refuse_sequence(netstack *s, tcp_flow *t, const tcp_segment *seg) noexcept nogil:
    """Whether a segment fails PAWS or lies outside the window; answers it then."""
    cdef uint32_t end = seg.seq + segment_span(seg), old = 0

    if is_old_timestamp(s, t, seg) and not seg.flags & TCP_RST:
        drop(&s.drops, DROP_NS_TCP_PAWS)
    elif seq_leq(seg.seq, t.rcv_edge) and seq_geq(end, t.last_ack_sent):
        return False
    else:
        drop(&s.drops, DROP_NS_TCP_OUT_OF_WINDOW)
    if seg.flags & TCP_RST:
        return True
    # The retransmission of a SYN-ACK or SYN: our ACK was lost.
    if seg.payload_len and seq_leq(end, t.rcv_nxt):
        old = seg.payload_len
        receive_duplicate(s, t, seg.seq, seg.seq + old)
    elif seg.payload_len or seg.flags & TCP_FIN:
        receive_owe_ack(s, t, True)
    else:
        challenge(s, t)
    return True


cdef void in_reset(netstack *s, tcp_flow *t, const tcp_segment *seg) noexcept nogil:
    cdef uint32_t reason = NS_REASON_RESET

    if seg.seq != t.rcv_nxt:
        drop(&s.drops, DROP_NS_TCP_BAD_RESET)
        challenge(s, t)
        return
    s.statistics.resets_in += 1
    if t.state == TCP_SYN_RECEIVED:
        reason = NS_REASON_REFUSED
    elif t.state == TCP_CLOSING or t.state == TCP_LAST_ACK:
        reason = NS_REASON_FINISHED
    tcp_finish(s, t, reason)


# -- ACK --
cdef void update_window(tcp_flow *t, const tcp_segment *seg) noexcept nogil:
    cdef uint32_t window = <uint32_t> seg.window << t.snd_scale

    # What was overtaken counts its window from an older ACK.
    if seq_lt(seg.ack, t.snd_una):
        return
    if seq_gt(seg.ack, t.snd_una) or seq_gt(seg.seq, t.snd_wl1) or (
            seg.seq == t.snd_wl1 and window > t.snd_wnd):
        t.snd_wl1 = seg.seq
        t.snd_wnd = window
        if window > t.snd_wnd_max:
            t.snd_wnd_max = window


cdef bint in_ack(netstack *s, tcp_flow *t, const tcp_segment *seg) noexcept nogil:
    """Enter an acceptable ACK; False when the flow has ended by it."""
    cdef ack_sample sample
    cdef uint32_t window = t.snd_wnd, queued, rtt_us
    cdef bint duplicate, flight = t.snd_nxt != t.snd_una

    memset(&sample, 0, sizeof(sample))
    duplicate = seg.ack == t.snd_una and seg.payload_len == 0 and \
        not seg.flags & (TCP_SYN | TCP_FIN)
    update_window(t, seg)
    duplicate = duplicate and t.snd_wnd == window
    if t.timer != TIMER_PERSIST:
        t.probes = 0
    else:
        t.stalled_ms = s.now_ms
        if t.snd_wnd != window:
            t.timer = TIMER_OFF
            tcp_ready(s, t)
    # With nothing in flight an ACK may still tell of retransmissions.
    if not flight and not (t.flags & TF_SACK and (seg.sacks or t.flags & TF_TLP_OUT)):
        if t.tx_next != NS_NIL and t.snd_wnd != window:
            tcp_ready(s, t)
        return True
    if seq_gt(seg.ack, t.snd_una):
        scoreboard_ack(s, t, seg, &sample)
        t.backoff = 0
        t.stalled_ms = s.now_ms
    if t.flags & TF_SACK:
        scoreboard_sack(s, t, seg, &sample)
    if sample.acked or sample.sacked:
        rtt_us = sample.first_rtt_us
        if rtt_us == 0 and sample.acked and t.flags & TF_TIMESTAMPS and \
                seg.options & TCP_HAS_TIMESTAMP and seg.ts_echo:
            # Only retransmissions: the timestamp tells which one it was.
            rtt_us = (s.now_ms + t.ts_offset - seg.ts_echo) * 1000
            rtt_us = rtt_us if <int32_t> rtt_us > 0 else 0
        if sample.acked or sample.last_rtt_us:
            recovery_rtt(s, t, rtt_us)
        if sample.last_rtt_us:
            if sample.last_rtt_us < t.min_rtt_us:
                t.min_rtt_us = sample.last_rtt_us
                t.min_rtt_at = <uint16_t> (s.now_ms >> 10)
            congestion_rtt(s, t, sample.last_rtt_us)
        scoreboard_rate(s, t, &sample)
    recovery_ack(s, t, seg, &sample, duplicate)
    if t.tx_head != NS_NIL or t.lost_head != NS_NIL:
        tcp_ready(s, t)
    if t.flags & TF_WANT_WRITABLE and sample.acked:
        queued = t.write_seq - t.snd_una
        if queued <= s.limits.flow_tx_bytes - s.limits.flow_tx_bytes // WRITABLE_SHARE and (
                queued < t.cwnd + t.cwnd // 2 or queued < 4 * <uint32_t> t.mss):
            t.flags &= ~<uint32_t> TF_WANT_WRITABLE
            tcp_event(s, t, NS_EVENT_WRITABLE)
    return not our_fin_acknowledged(s, t)


cdef bint our_fin_acknowledged(netstack *s, tcp_flow *t) noexcept nogil:
    """Go on from a FIN of ours that was acknowledged; True when that ends the flow."""
    if not t.flags & TF_FIN_QUEUED or t.flags & TF_FIN_PENDING or t.snd_una != t.write_seq:
        return False
    if t.state == TCP_FIN_WAIT_1:
        tcp_set_state(s, t, TCP_FIN_WAIT_2)
        tcp_idle_start(s, t)
    elif t.state == TCP_CLOSING:
        tcp_time_wait(s, t)
        return True
    elif t.state == TCP_LAST_ACK:
        tcp_finish(s, t, NS_REASON_FINISHED)
        return True
    return False


cdef bint check_ack(netstack *s, tcp_flow *t, const tcp_segment *seg) noexcept nogil:
    """RFC 9293 and RFC 5961 section 5: whether an ACK number is to be believed."""
    cdef uint32_t rtt_us = 0

    if t.state == TCP_SYN_RECEIVED:
        if seg.ack != t.snd_nxt:
            drop(&s.drops, DROP_NS_TCP_BAD_ACK)
            tcp_reset_segment(s, &t.tuple, seg, t.peer)
            return False
        if t.backoff == 0 and t.first_sent_us:
            rtt_us = s.now_us - t.first_sent_us
            rtt_us = rtt_us if rtt_us else 1
        t.snd_una = seg.ack
        t.snd_wnd = t.snd_wnd_max = <uint32_t> seg.window << t.snd_scale
        t.snd_wl1 = seg.seq
        tcp_established(s, t, rtt_us)
        return True
    if seq_gt(seg.ack, t.snd_nxt) or seq_lt(seg.ack, t.snd_una - t.snd_wnd_max):
        drop(&s.drops, DROP_NS_TCP_BAD_ACK)
        challenge(s, t)
        return False
    return True


# -- payload --
cdef void in_fin(netstack *s, tcp_flow *t) noexcept nogil:
    t.rcv_nxt += 1
    if seq_gt(t.rcv_nxt, t.rcv_edge):
        t.rcv_edge = t.rcv_nxt
    t.flags |= TF_FIN_RECEIVED
    if t.parked == 0:
        tcp_event(s, t, NS_EVENT_PEER_CLOSED)
    if t.state == TCP_ESTABLISHED:
        tcp_set_state(s, t, TCP_CLOSE_WAIT)
        receive_owe_ack(s, t, True)
    elif t.state == TCP_FIN_WAIT_1:
        tcp_set_state(s, t, TCP_CLOSING)
        receive_owe_ack(s, t, True)
    elif t.state == TCP_FIN_WAIT_2:
        tcp_answer_flow(s, t)
        tcp_time_wait(s, t)


cdef void in_payload(netstack *s, tcp_flow *t, const tcp_segment *seg) noexcept nogil:
    cdef bint fin = seg.flags & TCP_FIN != 0

    if t.state != TCP_ESTABLISHED and t.state != TCP_FIN_WAIT_1 and t.state != TCP_FIN_WAIT_2:
        # The peer's FIN is behind us: nothing can follow it.
        if seg.payload_len or fin:
            receive_owe_ack(s, t, True)
        return
    if seg.payload_len and t.flags & TF_ORPHAN and \
            seq_gt(seg.seq + seg.payload_len, t.rcv_nxt):
        # Nobody will ever read it (RFC 9293 section 3.6.1, RFC 2525 section 2.17).
        tcp_reset(s, t)
        tcp_finish(s, t, NS_REASON_RESET)
        return
    if receive_segment(s, t, seg.seq, seg.payload, seg.payload_len, fin):
        in_fin(s, t)
    elif t.flags & TF_SACK and t.acks_owed >= SACK_RANGES:
        # One more range and the next ACK would not find room for all that are new.
        tcp_answer_flow(s, t)


cdef void in_synchronized(netstack *s, tcp_flow *t, const tcp_segment *seg) noexcept nogil:
    if refuse_sequence(s, t, seg):
        return
    if seg.flags & TCP_RST:
        in_reset(s, t, seg)
        return
    if seg.flags & TCP_SYN:
        drop(&s.drops, DROP_NS_TCP_BAD_STATE)
        if t.state == TCP_SYN_RECEIVED and not t.flags & TF_PASSIVE and seg.flags & TCP_ACK and \
                seg.ack == t.snd_nxt:
            # Simultaneous open: their SYN-ACK acknowledges our SYN.
            if check_ack(s, t, seg):
                receive_owe_ack(s, t, True)
        elif t.state == TCP_SYN_RECEIVED and seg.seq + 1 == t.rcv_nxt:
            t.flags |= TF_ACK_NOW
            tcp_ready(s, t)
        else:
            challenge(s, t)
        return
    if not seg.flags & TCP_ACK:
        drop(&s.drops, DROP_NS_TCP_BAD_STATE)
        return
    if not check_ack(s, t, seg):
        return
    if t.flags & TF_TIMESTAMPS and seg.options & TCP_HAS_TIMESTAMP and \
            seq_leq(seg.seq, t.last_ack_sent):
        if seq_geq(seg.ts_value, t.ts_recent) or s.now_ms - t.ts_recent_ms >= PAWS_IDLE_MS:
            t.ts_recent = seg.ts_value
            t.ts_recent_ms = s.now_ms
    if seg.options & TCP_HAS_USER_TIMEOUT and seg.user_timeout_s > t.user_timeout_s and \
            t.user_timeout_s:
        # RFC 5482 section 3.1: the larger of both, within what we allow.
        t.user_timeout_s = <uint16_t> (
            seg.user_timeout_s if seg.user_timeout_s < USER_TIMEOUT_MAX_S else USER_TIMEOUT_MAX_S)
    tcp_touch(s, t)
    if in_ack(s, t, seg) and (seg.payload_len or seg.flags & TCP_FIN):
        in_payload(s, t, seg)


# -- TIME_WAIT --
cdef bint in_time_wait(netstack *s, time_wait *w, const tcp_segment *seg,
                       uint32_t peer) noexcept nogil:
    """True when a SYN may take the tuple over (RFC 6191)."""
    cdef uint32_t end = seg.seq + segment_span(seg)

    if seg.flags & TCP_RST:
        drop(&s.drops, DROP_NS_TCP_BAD_RESET)  # RFC 1337
        return False
    if seg.flags & TCP_SYN and not seg.flags & TCP_ACK:
        if w.flags & TIME_WAIT_TIMESTAMPS and seg.options & TCP_HAS_TIMESTAMP:
            if seq_gt(seg.ts_value, w.ts_recent) or (
                    seg.ts_value == w.ts_recent and seq_gt(seg.seq, w.rcv_nxt)):
                return True
        elif seq_gt(seg.seq, w.rcv_nxt):
            return True
    if segment_span(seg) or seg.seq != w.rcv_nxt:
        if seg.flags & TCP_FIN and end == w.rcv_nxt:
            time_wait_restart(s, w)
        tcp_answer_time_wait(s, w, peer)
    return False


# -- dispatch --
cdef void tcp_input(netstack *s, const uint8_t *packet, const ip_info *info,
                    uint32_t peer) noexcept nogil:
    cdef const uint8_t *p = packet + info.l4_offset
    cdef uint32_t length = info.total_len - info.l4_offset, ref, floor = 0
    cdef tcp_segment seg
    cdef flow_tuple tuple
    cdef tcp_flow *t = NULL
    cdef bint reused = False, later = False

    if not tcp_parse(&seg, p, length) or seg.source_port == 0 or seg.destination_port == 0:
        drop(&s.drops, DROP_NS_BAD_HEADER)
        return
    ip_addresses(packet, info, tuple.remote, tuple.local)
    tuple.local_port = seg.destination_port
    tuple.remote_port = seg.source_port
    if not checksum_valid(checksum_add(
            ip_pseudo(tuple.remote, tuple.local, PROTOCOL_TCP, length), p, length)):
        drop(&s.drops, DROP_NS_BAD_CHECKSUM)
        return
    s.statistics.segments_in += 1
    ref = flow_find(s, &tuple, PROTOCOL_TCP)
    if ref != NS_NIL and ref_kind(ref) == FLOW_TIME_WAIT:
        if not in_time_wait(s, &s.time_wait[ref_index(ref)], &seg, peer):
            return
        floor = s.time_wait[ref_index(ref)].snd_nxt
        time_wait_free(s, &s.time_wait[ref_index(ref)])
        reused = True
        ref = NS_NIL
    if ref == NS_NIL:
        if seg.flags & (TCP_SYN | TCP_ACK | TCP_RST) == TCP_SYN:
            if seg.flags & TCP_FIN:
                drop(&s.drops, DROP_NS_BAD_HEADER)
                return
            listener_syn(s, &tuple, &seg, packet, info, peer, reused, floor)
            return
        if seg.flags & TCP_ACK:
            t = listener_cookie(s, &tuple, &seg, peer, &later)
        if later:
            return
        if t == NULL:
            drop(&s.drops, DROP_NS_NO_LISTENER)
            tcp_reset_segment(s, &tuple, &seg, peer)
            return
    elif ref_kind(ref) == FLOW_SYN_REQUEST:
        t = listener_request(s, &s.syn[ref_index(ref)], &seg)
        if t == NULL:
            return
    else:
        t = &s.tcp[ref_index(ref)]
    # Whatever could look at the flow, answer or end it, finds its consumer asked.
    if s.parts and (seg.flags & ~<uint32_t> TCP_PSH != TCP_ACK
                    or not receive_joins(s, t, seg.seq, seg.payload_len)):
        receive_flush(s)
    if t.state == TCP_SYN_SENT:
        in_syn_sent(s, t, &seg)
    else:
        in_synchronized(s, t, &seg)


# -- ICMP --
cdef void path_mtu(netstack *s, tcp_flow *t, uint32_t mtu) noexcept nogil:
    cdef bint v4 = address_is_v4(t.tuple.local)
    cdef uint32_t mss, least = LEAST_MTU_V4 if v4 else LEAST_MTU_V6

    if mtu < least:
        mtu = least
    mss = mtu - TCP_MIN_LEN - (IPV4_MIN_LEN if v4 else IPV6_LEN)
    if t.flags & TF_TIMESTAMPS:
        mss -= 12
    if mss >= t.mss:
        return
    t.mss = <uint16_t> mss
    t.flags |= TF_PATH_MTU
    recovery_mtu(s, t)


cdef void tcp_icmp(netstack *s, const icmp_error *error) noexcept nogil:
    cdef uint32_t ref = flow_find(s, &error.tuple, PROTOCOL_TCP)
    cdef tcp_flow *t

    if ref == NS_NIL or ref_kind(ref) != FLOW_TCP:
        drop(&s.drops, DROP_NS_ICMP_IGNORED)
        return
    t = &s.tcp[ref_index(ref)]
    # RFC 5927 section 4: it must quote something that is in flight.
    if not (seq_leq(t.snd_una, error.seq) and seq_lt(error.seq, t.snd_nxt)):
        drop(&s.drops, DROP_NS_ICMP_IGNORED)
        return
    if error.mtu:
        path_mtu(s, t, error.mtu)
    elif error.refusal != NS_REFUSE_SILENT and t.state == TCP_SYN_SENT:
        tcp_finish(s, t, NS_REASON_UNREACHABLE)
