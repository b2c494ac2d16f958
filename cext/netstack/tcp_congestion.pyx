# SPDX-License-Identifier: Apache-2.0
"""Congestion control: RFC 9438 CUBIC, RFC 9406 HyStart++, RFC 6928 initial window.

All windows are bytes, all arithmetic on them is 64 bits wide. Time since the last
reduction is in milliseconds; W_cubic(t) = C (t - K)^3 + W_max with C = 0.4 segments
per second cubed.

The first slow start ends when a train of ACKs says that the path is full (as Linux's
HyStart does), when RTTs rise (HyStart++) or at the first loss, whichever is first.

cwnd grows only while it is what limits the sender (RFC 9438 section 5.8): output sets
TF_CWND_LIMITED when it stops at cwnd and clears it when it stops for another reason.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from cext.netstack.layout cimport TF_CWND_LIMITED, TF_HYSTART, TF_HYSTART_CSS, netstack, tcp_flow
from cext.netstack.tcp_state cimport tcp_pipe, tcp_rto_ms
from cext.wire.tcp cimport seq_geq


cdef enum:
    INITIAL_SEGMENTS = 10
    INITIAL_BYTES = 14600
    BETA_PERCENT = 70
    # RFC 9438 section 4.3: 3 (1 - beta) / (1 + beta), in 1/1000.
    ALPHA_PERMILLE = 529
    WINDOW_MAX = 0x3fffffff
    # RFC 9406 section 4.3
    MIN_RTT_THRESH_US = 4000
    MAX_RTT_THRESH_US = 16000
    RTT_SAMPLES = 8
    CSS_GROWTH_DIVISOR = 4
    CSS_ROUNDS = 5
    # ACKs that follow each other closely make a train.
    TRAIN_SEGMENTS = 16
    TRAIN_GAP_US = 2000


cdef uint32_t cube_root(uint64_t x) noexcept nogil:
    cdef uint64_t root = 0, candidate
    cdef int bit

    for bit in range(20, -1, -1):
        candidate = root | <uint64_t> 1 << bit
        if candidate * candidate * candidate <= x:
            root = candidate
    return <uint32_t> root


cdef void start_hystart(const netstack *s, tcp_flow *t) noexcept nogil:
    """Slow start; the union is HyStart's."""
    t.flags |= TF_HYSTART
    t.hystart.round_end = t.snd_nxt
    t.hystart.last_min_us = t.hystart.min_us = 0xffffffffu
    t.hystart.samples = t.hystart.css_rounds = 0
    t.hystart.flight_max = 0
    t.train_start_us = t.train_last_us = s.now_us


cdef void congestion_init(netstack *s, tcp_flow *t) noexcept nogil:
    cdef uint32_t window = INITIAL_SEGMENTS * <uint32_t> t.mss
    cdef uint32_t least = 2 * <uint32_t> t.mss

    if window > INITIAL_BYTES:
        window = least if least > INITIAL_BYTES else <uint32_t> INITIAL_BYTES
    t.cwnd = window
    t.ssthresh = WINDOW_MAX
    start_hystart(s, t)


cdef void congestion_sent(tcp_flow *t) noexcept nogil:
    cdef uint32_t flight = t.snd_nxt - t.snd_una

    if t.flags & TF_HYSTART and flight > t.hystart.flight_max:
        t.hystart.flight_max = flight


cdef bint filled_half(tcp_flow *t, uint32_t acked) noexcept nogil:
    """Whether half of cwnd was in use, though it did not limit the sender (RFC 9438 5.8).

    In the first slow start the whole round counts, not only what this ACK finds, so that
    who writes in bursts grows to twice his burst; Linux does the same.
    """
    cdef uint32_t flight = tcp_pipe(t) + acked

    if t.flags & TF_HYSTART:
        return t.cwnd < 2 * <uint64_t> t.hystart.flight_max
    return t.cwnd <= 2 * <uint64_t> flight


cdef void leave_hystart(tcp_flow *t) noexcept nogil:
    """The union becomes CUBIC's."""
    t.flags &= ~<uint32_t> (TF_HYSTART | TF_HYSTART_CSS)
    t.cubic.w_max = 0
    t.cubic.epoch_ms = 0
    t.cubic.k_ms = 0
    t.cubic.origin = 0
    t.cubic.w_est = 0
    t.cubic.w_est_rest = 0


cdef bint train_fills_path(netstack *s, tcp_flow *t) noexcept nogil:
    """Whether ACKs came in one train as long as half a round trip.

    Slow start sends in bursts, which the bottleneck spreads out, so the train is as long
    as the path is filled. RTTs tell the same one round later, with twice as much sent.
    """
    cdef uint32_t slack_us = t.min_rtt_us // 8, gap_us = t.min_rtt_us // 16

    # Two milliseconds, but not so much on a short path that rounds grow together.
    if slack_us > TRAIN_GAP_US:
        slack_us = TRAIN_GAP_US
    if gap_us < slack_us:
        gap_us = slack_us
    if t.min_rtt_us == 0xffffffffu or s.now_us - t.train_last_us > gap_us:
        t.train_start_us = s.now_us
    t.train_last_us = s.now_us
    return t.flags & TF_CWND_LIMITED != 0 and t.cwnd >= TRAIN_SEGMENTS * <uint32_t> t.mss and \
        s.now_us - t.train_start_us > t.min_rtt_us // 2 + slack_us


cdef void congestion_rtt(netstack *s, tcp_flow *t, uint32_t rtt_us) noexcept nogil:
    cdef uint32_t threshold

    if not t.flags & TF_HYSTART:
        return
    if train_fills_path(s, t):
        t.ssthresh = t.cwnd
        return
    if rtt_us < t.hystart.min_us:
        t.hystart.min_us = rtt_us
    t.hystart.samples += 1
    if t.hystart.samples < RTT_SAMPLES:
        return
    if t.flags & TF_HYSTART_CSS:
        # The rise was noise: back to plain slow start.
        if t.hystart.min_us < t.hystart.baseline_us:
            t.flags &= ~<uint32_t> TF_HYSTART_CSS
            t.hystart.css_rounds = 0
        return
    if t.hystart.last_min_us == 0xffffffffu:
        return
    threshold = t.hystart.last_min_us // 8
    if threshold < MIN_RTT_THRESH_US:
        threshold = MIN_RTT_THRESH_US
    elif threshold > MAX_RTT_THRESH_US:
        threshold = MAX_RTT_THRESH_US
    if t.hystart.min_us >= t.hystart.last_min_us + threshold:
        t.flags |= TF_HYSTART_CSS
        t.hystart.baseline_us = t.hystart.min_us
        t.hystart.css_rounds = 0


cdef inline void end_round(tcp_flow *t, uint32_t acked) noexcept nogil:
    """A round of slow start ends when what was sent at its start is acknowledged."""
    if not seq_geq(t.snd_una, t.hystart.round_end):
        return
    t.hystart.round_end = t.snd_nxt
    t.hystart.last_min_us = t.hystart.min_us
    t.hystart.min_us = 0xffffffffu
    t.hystart.samples = 0
    t.hystart.flight_max = t.snd_nxt - t.snd_una + acked
    if t.flags & TF_HYSTART_CSS:
        t.hystart.css_rounds += 1
        if t.hystart.css_rounds >= CSS_ROUNDS:
            t.ssthresh = t.cwnd


cdef void start_epoch(netstack *s, tcp_flow *t) noexcept nogil:
    """Congestion avoidance begins: where the cubic's plateau is and when we get there."""
    cdef uint64_t missing

    t.cubic.epoch_ms = s.now_ms if s.now_ms != 0 else 1
    t.cubic.w_est = t.cwnd
    t.cubic.w_est_rest = 0
    if t.cubic.w_max <= t.cwnd:
        t.cubic.k_ms = 0
        t.cubic.origin = t.cwnd
        return
    # K = cbrt((W_max - cwnd) / C) seconds; in ms: cbrt(segments * 10^9 / 0.4)
    missing = <uint64_t> (t.cubic.w_max - t.cwnd) * 2500000000u // t.mss
    t.cubic.k_ms = cube_root(missing)
    t.cubic.origin = t.cubic.w_max


cdef uint64_t window_cubic(const tcp_flow *t, uint32_t at_ms) noexcept nogil:
    """W_cubic at so many ms after the epoch."""
    cdef int64_t x = <int64_t> at_ms - t.cubic.k_ms
    cdef int64_t delta

    if x > 100000:
        x = 100000
    elif x < -100000:
        x = -100000
    # 0.4 segments / s^3 = 0.4 mss / 10^9 ms^3; |x|^3 * 65535 stays below 2^63 / 4.
    delta = x * x * x // 10 * t.mss // 250000000
    delta += t.cubic.origin
    return <uint64_t> delta if delta > 0 else 0


cdef void grow_cubic(netstack *s, tcp_flow *t, uint32_t acked) noexcept nogil:
    cdef uint64_t target, gain
    cdef uint32_t at_ms, rtt_us = t.srtt_us >> 3

    if t.cubic.epoch_ms == 0:
        start_epoch(s, t)
    at_ms = s.now_ms - t.cubic.epoch_ms + rtt_us // 1000
    target = window_cubic(t, at_ms)
    # RFC 9438 section 4.2: cwnd <= target <= 1.5 cwnd
    if target < t.cwnd:
        target = t.cwnd
    elif target > <uint64_t> t.cwnd + t.cwnd // 2:
        target = <uint64_t> t.cwnd + t.cwnd // 2
    gain = (target - t.cwnd) * acked // t.cwnd
    # What Reno would have (section 4.3), in bytes with 16 bits below the point.
    target = (<uint64_t> acked * t.mss << 16) // t.cwnd
    if t.cubic.w_est < t.cubic.w_max:
        target = target * ALPHA_PERMILLE // 1000
    target += t.cubic.w_est_rest
    t.cubic.w_est += <uint32_t> (target >> 16)
    t.cubic.w_est_rest = <uint32_t> target & 0xffff
    if t.cubic.w_est > t.cwnd + gain:
        gain = t.cubic.w_est - t.cwnd
    t.cwnd += <uint32_t> gain
    if t.cwnd > WINDOW_MAX:
        t.cwnd = WINDOW_MAX


cdef void congestion_acked(netstack *s, tcp_flow *t, uint32_t acked) noexcept nogil:
    cdef uint32_t room
    cdef bint filled

    if t.cwnd < t.ssthresh:
        # The ACK that ends a round is the last that the round speaks for.
        filled = t.flags & TF_CWND_LIMITED != 0 or filled_half(t, acked)
        if t.flags & TF_HYSTART:
            end_round(t, acked)
        if not filled:
            return
        if t.flags & TF_HYSTART_CSS:
            t.cwnd += acked // CSS_GROWTH_DIVISOR
            return
        room = t.ssthresh - t.cwnd
        if acked <= room:
            t.cwnd += acked
            return
        t.cwnd += room
        acked -= room
    if not t.flags & TF_CWND_LIMITED:
        return
    if t.flags & TF_HYSTART:
        leave_hystart(t)
    grow_cubic(s, t, acked)


cdef void congestion_reduce(netstack *s, tcp_flow *t) noexcept nogil:
    cdef uint32_t flight = t.cwnd, least = 2 * <uint32_t> t.mss

    if t.flags & TF_HYSTART:
        # In slow start cwnd may be twice what was ever in flight (RFC 9438 section 4.6).
        if flight > t.hystart.flight_max:
            flight = t.hystart.flight_max
        leave_hystart(t)
    # Fast convergence, RFC 9438 section 4.7.
    if flight < t.cubic.w_max:
        t.cubic.w_max = <uint32_t> (<uint64_t> flight * (100 + BETA_PERCENT) // 200)
    else:
        t.cubic.w_max = flight
    t.cubic.epoch_ms = 0
    t.ssthresh = <uint32_t> (<uint64_t> flight * BETA_PERCENT // 100)
    if t.ssthresh < least:
        t.ssthresh = least


cdef void congestion_undone(netstack *s, tcp_flow *t) noexcept nogil:
    if t.ssthresh == WINDOW_MAX and not t.flags & TF_HYSTART:
        start_hystart(s, t)
    elif not t.flags & TF_HYSTART:
        t.cubic.epoch_ms = 0


cdef void congestion_idle(netstack *s, tcp_flow *t, uint32_t idle_ms) noexcept nogil:
    cdef uint32_t window = INITIAL_SEGMENTS * <uint32_t> t.mss, rto_ms = tcp_rto_ms(s, t)

    if window > INITIAL_BYTES:
        window = INITIAL_BYTES
    # Halved for each RTO that passed, as RFC 2861; ssthresh remembers.
    if t.ssthresh < t.cwnd // 4 * 3 and t.ssthresh != WINDOW_MAX:
        t.ssthresh = t.cwnd // 4 * 3
    while idle_ms > rto_ms and t.cwnd > window:
        idle_ms -= rto_ms
        t.cwnd //= 2
        if t.cwnd < window:
            t.cwnd = window
    if not t.flags & TF_HYSTART:
        t.cubic.epoch_ms = 0
