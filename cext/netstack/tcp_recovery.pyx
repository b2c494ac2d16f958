# SPDX-License-Identifier: Apache-2.0
"""Loss recovery: RACK-TLP (RFC 8985), PRR (RFC 6937), RTO (RFC 6298), undo.

Theory of operation
-------------------
    OPEN      -> DISORDER  something was SACKed, nothing deemed lost yet
    OPEN, DISORDER -> FAST RACK deems a segment lost: one was delivered that was sent
                           later, by more than the reordering window; without SACK the
                           third duplicate ACK does (RFC 6582)
    any       -> LOSS      the retransmission timer fired
    FAST, LOSS -> OPEN     snd_una reached recovery_point, or the reduction was undone

FAST: ssthresh is CUBIC's, PRR lets out about one segment per segment delivered
until the flight has shrunk to it. LOSS: cwnd is one segment and grows again.

The reordering window is zero until reordering was seen and a quarter of the
least RTT after; each round trip with a DSACK widens it by another quarter
(RFC 8985 section 6.2 step 4), sixteen recoveries later it narrows again.

A tail loss probe repeats the last segment (or sends a new one) two RTTs after
the last ACK, so that a lost tail is found by SACK and not by timeout.

Undo (RFC 3522, 4015, 3708): when every retransmission of a recovery proves not to
have been needed, by timestamps or by DSACKs (tcp_scoreboard counts), or what was
deemed lost arrived before any was made, cwnd and ssthresh return to what they were.
One that is not explained may have been needed, and then the reduction was. DSACKs
come a round trip later, so this holds until the next reduction.
"""

from libc.stdint cimport UINT16_MAX, int32_t, int64_t, uint16_t, uint32_t
from libc.string cimport memset

from cext.netstack.flow cimport at_or_after, tcp_ready
from cext.netstack.layout cimport (
    BLOCK_SACKED, NS_NIL, RECOVERY_DISORDER, RECOVERY_FAST, RECOVERY_LOSS, RECOVERY_OPEN,
    TCP_ESTABLISHED, TF_CWND_LIMITED, TF_FORCE_RETRANSMIT, TF_REORDERING_SEEN, TF_ROUND_DSACK,
    TF_SACK, TF_TLP_OUT, TF_TLP_RETRANSMITTED, TIMER_OFF, TIMER_PERSIST, TIMER_REORDER, TIMER_RTO,
    TIMER_TLP, block, netstack, slab_block, tcp_flow,
)
from cext.netstack.tcp_congestion cimport congestion_acked, congestion_reduce, congestion_undone
from cext.netstack.tcp_scoreboard cimport (
    ack_sample, scoreboard_lost, scoreboard_renege, scoreboard_unlose,
)
from cext.netstack.tcp_state cimport block_span, tcp_pipe, tcp_rto_ms, tcp_set_timer
from cext.wire.tcp cimport seq_geq, seq_leq, seq_lt, tcp_segment


cdef enum:
    DUPLICATE_THRESHOLD = 3
    REORDER_PERSIST = 16
    REORDER_MULT_MAX = 16
    MIN_RTT_WINDOW = 293  # in 1024 ms: five minutes
    DELAYED_ACK_MS = 200  # the worst that a peer is expected to do
    PROBE_WITHOUT_RTT_MS = 1000
    FOR_EVER = 0x7fffffff


cdef void recovery_rtt(netstack *s, tcp_flow *t, uint32_t rtt_us) noexcept nogil:
    cdef int32_t delta
    cdef uint32_t least_us

    if rtt_us == 0:
        return
    if rtt_us <= t.min_rtt_us or \
            <uint16_t> ((s.now_ms >> 10) - t.min_rtt_at) > MIN_RTT_WINDOW:
        t.min_rtt_us = rtt_us
        t.min_rtt_at = <uint16_t> (s.now_ms >> 10)
    if rtt_us > 60000000:
        rtt_us = 60000000
    if t.srtt_us == 0:
        t.srtt_us = rtt_us << 3
        t.rttvar_us = rtt_us << 1
        return
    delta = <int32_t> rtt_us - <int32_t> (t.srtt_us >> 3)
    t.srtt_us = <uint32_t> (<int32_t> t.srtt_us + delta)
    if delta < 0:
        delta = -delta
    t.rttvar_us = <uint32_t> (<int32_t> t.rttvar_us + delta - <int32_t> (t.rttvar_us >> 2))
    least_us = 4
    if t.srtt_us < least_us:
        t.srtt_us = least_us


cdef inline uint32_t reorder_window_us(const tcp_flow *t) noexcept nogil:
    cdef uint32_t window_us, srtt_us = t.srtt_us >> 3

    if not t.flags & TF_REORDERING_SEEN and (
            t.recovery >= RECOVERY_FAST
            or t.sacked >= DUPLICATE_THRESHOLD * <uint32_t> t.mss):
        return 0
    if t.min_rtt_us == 0xffffffffu:
        return srtt_us // 4
    window_us = t.min_rtt_us // 4 * t.reorder_mult
    return window_us if window_us < srtt_us else srtt_us


cdef uint32_t rack_detect(netstack *s, tcp_flow *t, uint32_t *wait_us) noexcept nogil:
    """Mark what RACK deems lost; the bytes. `wait_us`: when the next would be, 0: none."""
    cdef uint32_t at = t.time_head, following, window_us, lost = 0
    cdef int32_t left
    cdef block *b

    wait_us[0] = 0
    if t.rack_rtt_us == 0:
        return 0
    window_us = reorder_window_us(t)
    while at != NS_NIL:
        b = slab_block(&s.slab, at)
        following = b.time_next
        # Sent after the newest that was delivered: nothing is known about it.
        if not (seq_lt(b.xmit_us, t.rack_xmit_us) or (
                b.xmit_us == t.rack_xmit_us and seq_lt(b.seq + block_span(b), t.rack_end))):
            break
        left = <int32_t> (b.xmit_us + t.rack_rtt_us + window_us - s.now_us)
        if left > 0:
            wait_us[0] = <uint32_t> left
            break
        if scoreboard_lost(s, t, at):
            lost += block_span(b)
        at = following
    return lost


# -- states --
cdef void remember(tcp_flow *t) noexcept nogil:
    """Keep what undo would restore."""
    t.undo_point = t.snd_una
    t.undo_by_time = 0
    # A probe that repeats data is out: its DSACK must not speak for another.
    t.undo_by_dsack = t.flags & TF_TLP_OUT != 0 and t.flags & TF_TLP_RETRANSMITTED != 0
    t.prior_cwnd = t.cwnd
    t.prior_ssthresh = t.ssthresh


cdef void enter_fast(netstack *s, tcp_flow *t) noexcept nogil:
    remember(t)
    t.recovery = RECOVERY_FAST
    t.recovery_point = t.snd_nxt
    t.recovery_flight = t.snd_nxt - t.snd_una
    t.prr_delivered = t.prr_out = 0
    congestion_reduce(s, t)
    t.flags |= TF_FORCE_RETRANSMIT
    t.flags &= ~<uint32_t> TF_TLP_OUT
    s.statistics.fast_recoveries += 1


cdef void settle(tcp_flow *t) noexcept nogil:
    t.recovery = RECOVERY_DISORDER if t.sacked or t.lost or t.dupacks else RECOVERY_OPEN


cdef void leave_recovery(tcp_flow *t) noexcept nogil:
    if t.recovery == RECOVERY_FAST:
        t.cwnd = t.ssthresh
    t.flags &= ~<uint32_t> TF_FORCE_RETRANSMIT
    t.dupacks = 0
    if t.reorder_persist:
        t.reorder_persist -= 1
        if t.reorder_persist == 0:
            t.reorder_mult = 1
    settle(t)


cdef void undo(netstack *s, tcp_flow *t) noexcept nogil:
    s.statistics.undone += 1
    scoreboard_unlose(s, t)
    if t.cwnd < t.prior_cwnd:
        t.cwnd = t.prior_cwnd
    if t.ssthresh < t.prior_ssthresh:
        t.ssthresh = t.prior_ssthresh
    congestion_undone(s, t)
    t.undo_point = 0
    t.flags &= ~<uint32_t> TF_FORCE_RETRANSMIT
    t.dupacks = 0
    settle(t)


cdef inline bint needless(const tcp_flow *t, const ack_sample *sample) noexcept nogil:
    """Whether the last reduction proves to be without cause."""
    if t.undo_point == 0:
        return False
    return sample.disowned or (t.recovery >= RECOVERY_FAST and t.lost == 0
                               and t.undo_by_time == 0 and t.undo_by_dsack == 0)


cdef void prr(netstack *s, tcp_flow *t, const ack_sample *sample, uint32_t lost) noexcept nogil:
    cdef uint32_t pipe = tcp_pipe(t)
    cdef int64_t send, limit

    t.prr_delivered += sample.delivered
    if pipe > t.ssthresh:
        send = (<int64_t> t.prr_delivered * t.ssthresh + t.recovery_flight - 1) \
            // t.recovery_flight - t.prr_out
    else:
        limit = <int64_t> t.prr_delivered - t.prr_out
        if sample.acked != 0 and lost == 0:
            # Slow start reduction bound, while the ACKs show progress.
            if limit < sample.delivered:
                limit = sample.delivered
            limit += t.mss
        send = <int64_t> t.ssthresh - pipe
        if limit < send:
            send = limit
    if t.prr_out == 0 and send < t.mss:
        send = t.mss
    t.cwnd = pipe + <uint32_t> (send if send > 0 else 0)
    # With nothing left in flight no ACK would ever let the next one out.
    if t.cwnd < t.mss:
        t.cwnd = t.mss


cdef void adapt_reordering(tcp_flow *t, const ack_sample *sample) noexcept nogil:
    """RFC 8985: a DSACK says that we were too hasty; once per round trip."""
    if not sample.dsack:
        return
    if t.flags & TF_ROUND_DSACK and seq_lt(t.snd_una, t.rack_round):
        return
    t.flags |= TF_ROUND_DSACK | TF_REORDERING_SEEN
    t.rack_round = t.snd_nxt
    if t.reorder_mult < REORDER_MULT_MAX:
        t.reorder_mult += 1
    t.reorder_persist = REORDER_PERSIST


cdef void tail_probe_answered(netstack *s, tcp_flow *t, const ack_sample *sample,
                              bint duplicate) noexcept nogil:
    """RFC 8985 section 7.4: did the probe repair a loss?"""
    cdef uint32_t end = t.tlp_end

    if not t.flags & TF_TLP_OUT or seq_lt(t.snd_una, end):
        return
    if t.flags & TF_TLP_RETRANSMITTED and not (sample.dsack and sample.dsack_end == end):
        if t.snd_una == end:
            # Either one was first. The other, if there is one, will tell.
            if not duplicate or sample.sacked:
                return
        elif t.recovery < RECOVERY_FAST:
            # Original lost, probe arrived: a loss that nothing else will report.
            remember(t)
            t.undo_point = end - t.mss
            t.recovery_point = end
            t.undo_by_time = UINT16_MAX
            congestion_reduce(s, t)
            t.cwnd = t.ssthresh
    t.flags &= ~<uint32_t> (TF_TLP_OUT | TF_TLP_RETRANSMITTED)


cdef uint32_t without_sack(netstack *s, tcp_flow *t, ack_sample *sample,
                           bint duplicate) noexcept nogil:
    """RFC 6582 for a peer without SACK: the bytes newly deemed lost."""
    cdef uint32_t flight = t.snd_nxt - t.snd_una, most
    cdef block *b

    if duplicate and flight != 0:
        if t.dupacks < 255:
            t.dupacks += 1
        sample.delivered += t.mss
        t.delivered += t.mss
    elif sample.acked != 0 and t.recovery != RECOVERY_FAST:
        t.dupacks = 0
    if t.time_head == NS_NIL and t.lost_head == NS_NIL:
        t.sacked = 0
        return 0
    b = slab_block(&s.slab, t.tx_head)
    if (t.dupacks == DUPLICATE_THRESHOLD and t.recovery < RECOVERY_FAST) or (
            t.recovery == RECOVERY_FAST and sample.acked != 0
            and seq_lt(t.snd_una, t.recovery_point)):
        if t.recovery == RECOVERY_FAST:
            t.dupacks = 0
        if scoreboard_lost(s, t, t.tx_head):
            flight = block_span(b)
        else:
            flight = 0
    else:
        flight = 0
    # Each duplicate is a segment that left the network; never more than is unaccounted.
    most = t.snd_nxt - t.snd_una - t.lost
    most -= t.mss if most > t.mss else most
    t.sacked = <uint32_t> t.dupacks * t.mss
    if t.sacked > most:
        t.sacked = most
    return flight


cdef void recovery_ack(netstack *s, tcp_flow *t, const tcp_segment *seg, ack_sample *sample,
                       bint duplicate) noexcept nogil:
    cdef uint32_t lost, wait_us = 0

    adapt_reordering(t, sample)
    tail_probe_answered(s, t, sample, duplicate)
    if needless(t, sample):
        undo(s, t)
    elif t.recovery >= RECOVERY_FAST and seq_geq(t.snd_una, t.recovery_point):
        leave_recovery(t)
    if t.flags & TF_SACK:
        lost = rack_detect(s, t, &wait_us)
    else:
        lost = without_sack(s, t, sample, duplicate)
    if t.recovery < RECOVERY_FAST:
        if lost != 0:
            enter_fast(s, t)
        else:
            settle(t)
    if t.recovery == RECOVERY_FAST:
        prr(s, t, sample, lost)
    elif sample.delivered != 0 and (sample.acked != 0 or t.flags & TF_REORDERING_SEEN):
        congestion_acked(s, t, sample.delivered)
    if wait_us != 0:
        tcp_set_timer(s, t, TIMER_REORDER, wait_us // 1000 + 1)
    else:
        recovery_set_timer(s, t, sample.delivered != 0 or sample.acked != 0)


# -- timers --
cdef inline bint may_probe(const tcp_flow *t) noexcept nogil:
    return t.flags & TF_SACK != 0 and t.recovery == RECOVERY_OPEN and t.sacked == 0 and \
        not t.flags & TF_TLP_OUT


cdef void recovery_set_timer(netstack *s, tcp_flow *t, bint restart) noexcept nogil:
    cdef uint32_t rto_ms, probe_ms

    if t.snd_nxt == t.snd_una:
        # Nothing outstanding. A window that is shut needs to be asked about.
        if t.tx_next != NS_NIL and t.state >= TCP_ESTABLISHED:
            if t.timer != TIMER_PERSIST:
                t.probes = 0
                tcp_set_timer(s, t, TIMER_PERSIST, tcp_rto_ms(s, t))
        else:
            t.timer = TIMER_OFF
        return
    if t.timer == TIMER_REORDER and not restart:
        return
    rto_ms = tcp_rto_ms(s, t)
    if may_probe(t):
        if t.timer == TIMER_TLP and not restart:
            return
        if t.srtt_us == 0:
            probe_ms = PROBE_WITHOUT_RTT_MS
        else:
            probe_ms = (t.srtt_us >> 2) // 1000 + 2
            if t.time_head == t.time_tail:
                probe_ms += DELAYED_ACK_MS
        if probe_ms < rto_ms:
            tcp_set_timer(s, t, TIMER_TLP, probe_ms)
            return
    if t.timer == TIMER_RTO and not restart:
        return
    tcp_set_timer(s, t, TIMER_RTO, rto_ms)


cdef void recovery_reorder(netstack *s, tcp_flow *t) noexcept nogil:
    cdef ack_sample nothing
    cdef uint32_t wait_us = 0, lost = rack_detect(s, t, &wait_us)

    if lost != 0:
        if t.recovery < RECOVERY_FAST:
            enter_fast(s, t)
        if t.recovery == RECOVERY_FAST:
            memset(&nothing, 0, sizeof(nothing))
            prr(s, t, &nothing, lost)
    if wait_us != 0:
        tcp_set_timer(s, t, TIMER_REORDER, wait_us // 1000 + 1)
    else:
        recovery_set_timer(s, t, True)
    tcp_ready(s, t)


cdef void recovery_tail_probe(netstack *s, tcp_flow *t) noexcept nogil:
    cdef uint32_t last

    t.timer = TIMER_OFF
    if t.time_tail == NS_NIL:
        recovery_set_timer(s, t, True)
        return
    s.statistics.tail_probes += 1
    t.flags |= TF_TLP_OUT | TF_FORCE_RETRANSMIT
    if t.tx_next != NS_NIL and seq_leq(
            slab_block(&s.slab, t.tx_next).seq + block_span(slab_block(&s.slab, t.tx_next)),
            t.snd_una + t.snd_wnd):
        t.flags &= ~<uint32_t> TF_TLP_RETRANSMITTED
        t.tlp_end = slab_block(&s.slab, t.tx_next).seq + block_span(
            slab_block(&s.slab, t.tx_next))
    else:
        last = t.tx_tail if t.tx_next == NS_NIL else slab_block(&s.slab, t.tx_next).prev
        t.flags |= TF_TLP_RETRANSMITTED
        t.tlp_end = t.snd_nxt
        scoreboard_lost(s, t, last)
    recovery_set_timer(s, t, True)
    tcp_ready(s, t)


cdef void recovery_timeout(netstack *s, tcp_flow *t) noexcept nogil:
    cdef uint32_t at, window_us
    cdef block *b

    s.statistics.timeouts += 1
    if t.tx_head != NS_NIL and slab_block(&s.slab, t.tx_head).flags & BLOCK_SACKED:
        scoreboard_renege(s, t)
    if t.recovery != RECOVERY_LOSS or seq_geq(t.snd_una, t.recovery_point):
        if t.recovery < RECOVERY_FAST or t.undo_point == 0:
            remember(t)
        if t.recovery < RECOVERY_FAST:
            congestion_reduce(s, t)
        elif t.recovery == RECOVERY_FAST:
            t.ssthresh = t.ssthresh if t.ssthresh < t.cwnd or t.cwnd < 2 * <uint32_t> t.mss \
                else t.cwnd
    t.recovery = RECOVERY_LOSS
    t.recovery_point = t.snd_nxt
    t.cwnd = t.mss
    t.flags |= TF_CWND_LIMITED | TF_FORCE_RETRANSMIT
    t.flags &= ~<uint32_t> (TF_TLP_OUT | TF_TLP_RETRANSMITTED)
    t.dupacks = 0
    if not t.flags & TF_SACK:
        t.sacked = 0
    # RFC 8985 section 6.3: the first one, and whatever else is overdue.
    window_us = t.rack_rtt_us + reorder_window_us(t)
    at = t.tx_head
    while at != NS_NIL and at != t.tx_next:
        b = slab_block(&s.slab, at)
        if at == t.tx_head or not t.flags & TF_SACK or t.rack_rtt_us == 0 or \
                at_or_after(s.now_us, b.xmit_us + window_us):
            scoreboard_lost(s, t, at)
        at = b.next
    if t.backoff < 16:
        t.backoff += 1
    t.timer = TIMER_OFF
    recovery_set_timer(s, t, True)
    tcp_ready(s, t)


cdef void recovery_mtu(netstack *s, tcp_flow *t) noexcept nogil:
    cdef uint32_t at = t.tx_head
    cdef block *b

    while at != NS_NIL and at != t.tx_next:
        b = slab_block(&s.slab, at)
        if b.len > t.mss:
            scoreboard_lost(s, t, at)
        at = b.next
    if t.lost_head != NS_NIL:
        t.flags |= TF_FORCE_RETRANSMIT
        tcp_ready(s, t)
    recovery_set_timer(s, t, True)
