# SPDX-License-Identifier: Apache-2.0
"""Segments out.

Theory of operation
-------------------
ns_next_packets() asks flows that are ready, one packet at a time. A flow sends, in
this order: its SYN; what is deemed lost, within cwnd; new data, within cwnd and the
peer's window; a probe; an ACK that is owed and that no data carried.

Headers are written in front of the payload inside its block; only a segment
without payload uses scratch. The options have one length for the whole life of
a flow (timestamps or none), so that equal payloads make equal packets and a
batch of them one UDP GSO run. SACK blocks travel on pure ACKs only: data that
goes the other way while something is missing is followed by one.

Sender's silly windows (RFC 9293 section 3.8.6.2.1): a segment shorter than the MSS
goes out when it is all there is (with Nagle: and nothing is in flight), when it
fills half of the largest window the peer ever offered, or when nothing was in flight
for as long as the persist timer: no peer has to open its window further. A FIN that
the window does not cover holds no data back.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy

from cext.base.endian cimport store_be16, store_be32
from cext.netstack.icmp cimport error_allowed
from cext.netstack.ip cimport answer_push, answer_take, ip_header, ip_pseudo
from cext.netstack.layout cimport (
    BLOCK_FIN, NS_MAX_HEADERS, NS_NIL, NS_SCRATCH_BYTES, RECOVERY_DISORDER, RECOVERY_FAST,
    SLAB_CONTROL, TCP_CLOSED, TCP_CLOSE_WAIT, TCP_ESTABLISHED, TCP_FIN_WAIT_1, TCP_FREE,
    TCP_LAST_ACK, TCP_SYN_RECEIVED, TCP_SYN_SENT, TF_ACK_DELAYED, TF_ACK_NOW, TF_CWND_LIMITED,
    TF_DSACK, TF_FIN_PENDING, TF_FORCE_RETRANSMIT, TF_NAGLE, TF_PROBE, TF_SACK, TF_TIMESTAMPS,
    TF_WINDOW_SCALE, TIMER_HANDSHAKE, TIMER_OFF, TIME_WAIT_TIMESTAMPS, block, block_data,
    flow_tuple, netstack, ns_packet, slab_block, tcp_flow, time_wait,
)
from cext.netstack.slab cimport slab_take
from cext.netstack.tcp_congestion cimport congestion_idle, congestion_sent
from cext.netstack.tcp_options cimport tcp_write_sacks, tcp_write_syn_options, tcp_write_timestamp
from cext.netstack.tcp_receive cimport receive_window
from cext.netstack.tcp_recovery cimport recovery_set_timer
from cext.netstack.tcp_scoreboard cimport scoreboard_sent, scoreboard_split
from cext.netstack.tcp_state cimport (
    block_span, tcp_handle, tcp_our_mss, tcp_pipe, tcp_rto_ms, tcp_set_state, tcp_set_timer,
)
from cext.wire.checksum cimport checksum_add, checksum_store
from cext.wire.ip cimport (
    IPV6_LEN, TCP_ACK, TCP_ACKNOWLEDGEMENT, TCP_CHECKSUM, TCP_DATA_OFFSET, TCP_FIN, TCP_FLAGS,
    TCP_MIN_LEN, TCP_PSH, TCP_RST, TCP_SEQUENCE, TCP_SYN, TCP_WINDOW,
)
from cext.wire.tcp cimport (
    TCP_HAS_SACK_PERMITTED, TCP_HAS_TIMESTAMP, TCP_HAS_WINDOW_SCALE, seq_gt, sequence_range,
    tcp_segment,
)


cdef enum:
    PROTOCOL_TCP = 6
    RESET_WINDOW = 0


cdef inline void write_header(uint8_t *p, const flow_tuple *tuple, uint32_t seq, uint32_t ack,
                              uint32_t flags, uint32_t window,
                              uint32_t options) noexcept nogil:
    store_be16(p, tuple.local_port)
    store_be16(p + 2, tuple.remote_port)
    store_be32(p + TCP_SEQUENCE, seq)
    store_be32(p + TCP_ACKNOWLEDGEMENT, ack)
    p[<int> TCP_DATA_OFFSET] = <uint8_t> ((TCP_MIN_LEN + options) // 4 << 4)
    p[<int> TCP_FLAGS] = <uint8_t> flags
    store_be16(p + TCP_WINDOW, <uint16_t> window)
    store_be32(p + TCP_CHECKSUM, 0)


cdef inline uint8_t *seal(uint8_t *p, const flow_tuple *tuple, uint32_t length,
                          uint32_t *total) noexcept nogil:
    """Checksum and IP header for a TCP segment of so many bytes at p; the packet."""
    cdef uint8_t *start

    checksum_store(p + TCP_CHECKSUM, checksum_add(
        ip_pseudo(tuple.local, tuple.remote, PROTOCOL_TCP, length), p, length))
    start = ip_header(p, tuple.local, tuple.remote, PROTOCOL_TCP, length, 0)
    total[0] = <uint32_t> (p - start) + length
    return start


cdef inline uint32_t our_time(const netstack *s, const tcp_flow *t) noexcept nogil:
    return s.now_ms + t.ts_offset


cdef void acknowledged(netstack *s, tcp_flow *t) noexcept nogil:
    """The segment being built tells rcv_nxt."""
    t.last_ack_sent = t.rcv_nxt
    t.flags &= ~<uint32_t> (TF_ACK_NOW | TF_ACK_DELAYED)


cdef void emit(netstack *s, tcp_flow *t, uint8_t *p, uint32_t length,
               ns_packet *out) noexcept nogil:
    out.data = seal(p, &t.tuple, length, &out.len)
    out.handle = tcp_handle(s, t)
    out.peer = t.peer
    s.statistics.segments_out += 1


cdef inline uint8_t *scratch(netstack *s) noexcept nogil:
    """Where the TCP header of a packet without payload is built."""
    cdef uint8_t *p = s.scratch + s.scratch_used * (
        s.limits.headroom_bytes + <uint32_t> NS_SCRATCH_BYTES)

    s.scratch_used += 1
    return p + s.limits.headroom_bytes + IPV6_LEN


cdef uint32_t bare_options(netstack *s, tcp_flow *t, uint8_t *out) noexcept nogil:
    """Timestamps and SACK blocks of a segment without payload; their length."""
    cdef sequence_range ranges[4]
    cdef uint32_t length = 0, n = 0, i, most = 4

    if t.flags & TF_TIMESTAMPS:
        length = tcp_write_timestamp(out, our_time(s, t), t.ts_recent)
        most = 3
    if t.flags & TF_SACK:
        if t.flags & TF_DSACK:
            ranges[0] = t.sack[3]
            n = 1
            t.flags &= ~<uint32_t> TF_DSACK
        for i in range(3):
            if n < most and t.sack[i].start != t.sack[i].end:
                ranges[n] = t.sack[i]
                n += 1
        length += tcp_write_sacks(out + length, ranges, n)
        t.acks_owed = 0
    return length


cdef void send_bare(netstack *s, tcp_flow *t, uint32_t seq, uint32_t flags,
                    ns_packet *out) noexcept nogil:
    """An ACK, a probe."""
    cdef uint8_t *p = scratch(s)
    cdef uint32_t options = bare_options(s, t, p + TCP_MIN_LEN)

    write_header(p, &t.tuple, seq, t.rcv_nxt, flags, receive_window(s, t) >> t.rcv_scale, options)
    acknowledged(s, t)
    emit(s, t, p, TCP_MIN_LEN + options, out)


cdef void send_syn(netstack *s, tcp_flow *t, ns_packet *out) noexcept nogil:
    cdef uint8_t *p = scratch(s)
    cdef bint answer = t.state == TCP_SYN_RECEIVED
    cdef uint32_t window = t.rcv_space, options, ack = 0, flags = TCP_SYN

    if window > s.limits.flow_rx_bytes:
        window = s.limits.flow_rx_bytes
    if window > 65535:
        window = 65535
    if answer:
        flags |= TCP_ACK
        ack = t.rcv_nxt
        t.rcv_edge = t.rcv_nxt + window
    options = tcp_write_syn_options(
        p + TCP_MIN_LEN, tcp_our_mss(s, &t.tuple), t.flags & TF_SACK != 0,
        t.flags & TF_WINDOW_SCALE != 0, s.rx_scale, t.flags & TF_TIMESTAMPS != 0,
        our_time(s, t), t.ts_recent if answer else 0, 0)
    write_header(p, &t.tuple, t.snd_una, ack, flags, window, options)
    acknowledged(s, t)
    emit(s, t, p, TCP_MIN_LEN + options, out)
    # For the RTT of the handshake, and to know when nothing comes of it.
    if t.backoff == 0:
        t.first_sent_us = s.now_us
        t.stalled_ms = s.now_ms
    tcp_set_timer(s, t, TIMER_HANDSHAKE, <uint32_t> 1000 << (t.backoff if t.backoff < 6 else 6))


cdef void fin_sent(netstack *s, tcp_flow *t) noexcept nogil:
    if t.state == TCP_ESTABLISHED:
        tcp_set_state(s, t, TCP_FIN_WAIT_1)
    elif t.state == TCP_CLOSE_WAIT:
        tcp_set_state(s, t, TCP_LAST_ACK)


cdef void send_block(netstack *s, tcp_flow *t, uint32_t index, ns_packet *out) noexcept nogil:
    cdef block *b = slab_block(&s.slab, index)
    cdef uint32_t options = 0, flags = TCP_ACK
    cdef uint8_t *p = block_data(b) - <int> TCP_MIN_LEN
    cdef bint owed = t.flags & TF_ACK_NOW != 0 and (
        t.sack[0].start != t.sack[0].end or t.flags & TF_DSACK != 0)

    if t.flags & TF_TIMESTAMPS:
        p -= 12
        options = tcp_write_timestamp(p + TCP_MIN_LEN, our_time(s, t), t.ts_recent)
    if b.flags & BLOCK_FIN:
        flags |= TCP_FIN
        fin_sent(s, t)
    # Nothing behind it: let the receiver hand it up.
    if b.next == NS_NIL:
        flags |= TCP_PSH
    write_header(p, &t.tuple, b.seq, t.rcv_nxt, flags, receive_window(s, t) >> t.rcv_scale,
                 options)
    acknowledged(s, t)
    if owed:
        # SACK blocks find no room here: a pure ACK follows.
        t.flags |= TF_ACK_NOW
    if t.snd_nxt == t.snd_una:
        t.stalled_ms = s.now_ms
    scoreboard_sent(s, t, index)
    if t.recovery == RECOVERY_FAST:
        t.prr_out += block_span(b)
    t.flags &= ~<uint32_t> TF_FORCE_RETRANSMIT
    emit(s, t, p, TCP_MIN_LEN + options + b.len, out)
    recovery_set_timer(s, t, False)


cdef inline bint fits_cwnd(tcp_flow *t, uint32_t length) noexcept nogil:
    """Whether cwnd lets so much payload out; remembers when it does not. A FIN does not
    count: cwnd may be one MSS, and nothing would let the FIN of a full segment out."""
    if tcp_pipe(t) + length <= t.cwnd or t.flags & TF_FORCE_RETRANSMIT:
        return True
    t.flags |= TF_CWND_LIMITED
    return False


cdef bint send_lost(netstack *s, tcp_flow *t, ns_packet *out) noexcept nogil:
    cdef block *b = slab_block(&s.slab, t.lost_head)

    if b.len > t.mss and not scoreboard_split(s, t, t.lost_head, t.mss):
        return False
    if not fits_cwnd(t, b.len):
        return False
    send_block(s, t, t.lost_head, out)
    return True


cdef bint send_new(netstack *s, tcp_flow *t, ns_packet *out) noexcept nogil:
    cdef block *b = slab_block(&s.slab, t.tx_next)
    cdef uint32_t room = 0, edge = t.snd_una + t.snd_wnd, idle_ms
    cdef bint all_of_it

    if seq_gt(edge, b.seq):
        room = edge - b.seq
    if b.len > t.mss and not scoreboard_split(s, t, t.tx_next, t.mss):
        return False
    all_of_it = b.next == NS_NIL
    if block_span(b) > room:
        # RFC 9293 section 3.8.6.2.1: a part is worth it from half the window on (3), and
        # when the time has come for a probe (4).
        t.flags &= ~<uint32_t> TF_CWND_LIMITED
        if room == 0:
            return False
        if room < b.len and room < t.snd_wnd_max // 2 and room < t.mss and \
                not t.flags & TF_PROBE:
            return False
        if not scoreboard_split(s, t, t.tx_next, room):
            return False
    elif b.len < t.mss and all_of_it and t.flags & TF_NAGLE and t.snd_nxt != t.snd_una and \
            not b.flags & BLOCK_FIN:
        t.flags &= ~<uint32_t> TF_CWND_LIMITED
        return False
    if t.snd_nxt == t.snd_una and t.recovery <= RECOVERY_DISORDER:
        # After a silence the network has forgotten us (RFC 5681 section 4.1).
        idle_ms = (s.now_us - t.first_sent_us) // 1000
        if t.delivered != 0 and idle_ms > tcp_rto_ms(s, t):
            congestion_idle(s, t, idle_ms)
    if not fits_cwnd(t, b.len):
        return False
    send_block(s, t, t.tx_next, out)
    t.flags &= ~<uint32_t> TF_PROBE
    congestion_sent(t)
    if t.tx_next == NS_NIL and tcp_pipe(t) < t.cwnd:
        # Ran dry: what is delivered from here on says nothing about the path.
        t.flags &= ~<uint32_t> TF_CWND_LIMITED
        t.app_limited = t.delivered + tcp_pipe(t)
        if t.app_limited == 0:
            t.app_limited = 1
    return True


cdef bint queue_fin(netstack *s, tcp_flow *t) noexcept nogil:
    """Give the FIN a place in the send queue; False when no block can be had."""
    cdef block *b
    cdef uint32_t index

    if t.tx_tail != NS_NIL and t.tx_next != NS_NIL:
        slab_block(&s.slab, t.tx_tail).flags |= BLOCK_FIN
    else:
        index = slab_take(&s.slab, SLAB_CONTROL)
        if index == NS_NIL:
            return False
        b = slab_block(&s.slab, index)
        b.offset = <uint16_t> (sizeof(block) + s.limits.headroom_bytes + NS_MAX_HEADERS)
        b.seq = t.write_seq
        b.flags = BLOCK_FIN
        b.prev = t.tx_tail
        if t.tx_tail == NS_NIL:
            t.tx_head = index
        else:
            slab_block(&s.slab, t.tx_tail).next = index
        t.tx_tail = index
        t.tx_next = index
        t.tx_blocks += 1
    t.write_seq += 1
    t.flags &= ~<uint32_t> TF_FIN_PENDING
    return True


cdef bint tcp_output(netstack *s, tcp_flow *t, ns_packet *out) noexcept nogil:
    if t.state == TCP_CLOSED or t.state == TCP_FREE:
        return False
    if t.state == TCP_SYN_SENT or t.state == TCP_SYN_RECEIVED:
        if not t.flags & TF_ACK_NOW:
            return False
        send_syn(s, t, out)
        return True
    if t.flags & TF_FIN_PENDING:
        queue_fin(s, t)
    if t.lost_head != NS_NIL and send_lost(s, t, out):
        return True
    if t.tx_next != NS_NIL and (t.lost_head == NS_NIL or t.flags & TF_FORCE_RETRANSMIT) and \
            send_new(s, t, out):
        return True
    if t.flags & TF_PROBE:
        t.flags &= ~<uint32_t> TF_PROBE
        send_bare(s, t, t.snd_una - 1, TCP_ACK, out)
        return True
    if t.flags & TF_ACK_NOW:
        send_bare(s, t, t.snd_nxt, TCP_ACK, out)
        return True
    if t.acks_owed > 1:
        # One for each early segment: without SACK the peer counts duplicates.
        t.acks_owed -= 1
        send_bare(s, t, t.snd_nxt, TCP_ACK, out)
        return True
    t.acks_owed = 0
    if t.tx_next != NS_NIL and t.timer == TIMER_OFF:
        recovery_set_timer(s, t, False)
    return False


# -- segments that belong to no flow --
cdef void queue_bare(netstack *s, const flow_tuple *tuple, uint32_t seq, uint32_t ack,
                     uint32_t flags, uint32_t window, const uint8_t *options, uint32_t length,
                     uint32_t peer) noexcept nogil:
    cdef uint32_t index = answer_take(s)
    cdef uint8_t *p
    cdef uint8_t *start
    cdef uint32_t total = 0
    cdef block *b

    if index == NS_NIL:
        return
    b = slab_block(&s.slab, index)
    p = block_data(b) + IPV6_LEN
    write_header(p, tuple, seq, ack, flags, window, length)
    if length:
        memcpy(p + TCP_MIN_LEN, options, length)
    start = seal(p, tuple, TCP_MIN_LEN + length, &total)
    b.offset = <uint16_t> (start - <uint8_t *> b)
    b.len = <uint16_t> total
    s.statistics.segments_out += 1
    answer_push(s, index, NS_NIL, peer)


cdef void tcp_reset_segment(netstack *s, const flow_tuple *tuple, const tcp_segment *seg,
                            uint32_t peer) noexcept nogil:
    cdef uint32_t length = seg.payload_len

    if seg.flags & TCP_RST or not error_allowed(s):
        return
    s.statistics.resets_out += 1
    if seg.flags & TCP_ACK:
        queue_bare(s, tuple, seg.ack, 0, TCP_RST, RESET_WINDOW, NULL, 0, peer)
        return
    if seg.flags & TCP_SYN:
        length += 1
    if seg.flags & TCP_FIN:
        length += 1
    queue_bare(s, tuple, 0, seg.seq + length, TCP_RST | TCP_ACK, RESET_WINDOW, NULL, 0, peer)


cdef void tcp_reset(netstack *s, tcp_flow *t) noexcept nogil:
    s.statistics.resets_out += 1
    queue_bare(s, &t.tuple, t.snd_nxt, t.rcv_nxt, TCP_RST | TCP_ACK, RESET_WINDOW, NULL, 0,
               t.peer)


cdef void tcp_answer_syn(netstack *s, const flow_tuple *tuple, uint32_t iss, uint32_t irs,
                         uint32_t options, uint32_t ts_value, uint32_t ts_echo,
                         uint32_t window, uint32_t peer) noexcept nogil:
    cdef uint8_t written[40]
    cdef uint32_t length = tcp_write_syn_options(
        written, tcp_our_mss(s, tuple), options & TCP_HAS_SACK_PERMITTED != 0,
        options & TCP_HAS_WINDOW_SCALE != 0, s.rx_scale, options & TCP_HAS_TIMESTAMP != 0,
        ts_value, ts_echo, 0)

    if window > s.limits.flow_rx_bytes:
        window = s.limits.flow_rx_bytes
    queue_bare(s, tuple, iss, irs + 1, TCP_SYN | TCP_ACK, window if window < 65535 else 65535,
               written, length, peer)


cdef void tcp_answer_time_wait(netstack *s, const time_wait *w, uint32_t peer) noexcept nogil:
    cdef uint8_t written[12]
    cdef uint32_t length = 0

    if w.flags & TIME_WAIT_TIMESTAMPS:
        length = tcp_write_timestamp(written, s.now_ms + w.ts_offset, w.ts_recent)
    queue_bare(s, &w.tuple, w.snd_nxt, w.rcv_nxt, TCP_ACK, 0, written, length, peer)


cdef void tcp_answer_flow(netstack *s, tcp_flow *t) noexcept nogil:
    cdef uint8_t written[40]
    cdef uint32_t length = bare_options(s, t, written)

    queue_bare(s, &t.tuple, t.snd_nxt, t.rcv_nxt, TCP_ACK,
               receive_window(s, t) >> t.rcv_scale, written, length, t.peer)
    acknowledged(s, t)
