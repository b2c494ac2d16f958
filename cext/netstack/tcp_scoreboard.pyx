# SPDX-License-Identifier: Apache-2.0
"""The sender's scoreboard (RFC 2018, 6675) and delivery-rate samples.

Theory of operation
-------------------
Every block of the send queue that was sent is in exactly one of four conditions:

    in flight          on the time list
    SACKed             on no list
    lost               on the lost list, ordered by sequence number
    lost, sent again   on the time list, BLOCK_RETRANSMITTED

    sent -> in flight -> SACKed | lost;  lost -> sent again -> SACKed | lost

The time list is ordered by the last transmission, so loss detection by time
(RACK) looks at its head only. Neighbouring SACKed blocks form runs: the first
and the last of a run point at each other, those between point nowhere, so that
walking the queue costs a step per hole and not per block. sack_hint remembers
the run that grew last; most SACK blocks begin there.

A SACK that covers a block in part is ignored: no receiver that keeps our
segments whole sends one, and believing less is always right.

Retransmissions that were not needed are told by two witnesses, each with a count
of its own that starts with all of the recovery, so that no retransmission is
struck off twice:
    time    the ACK that moves snd_una over the first block echoes a timestamp older
            than its retransmission: it answers the original (RFC 3522). A SACK
            echoes what came in order before, which is always older, and so may the
            echo be for what lies behind the first block: neither says anything.
    DSACK   the receiver had it already (RFC 3708); only of what lies between
            undo_point and recovery_point.
"""

from libc.stdint cimport UINT16_MAX, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from cext.netstack.flow cimport at_or_after
from cext.netstack.layout cimport (
    BLOCK_APP_LIMITED, BLOCK_EVER_RETRANSMITTED, BLOCK_FIN, BLOCK_LOST, BLOCK_ON_TIME_LIST,
    BLOCK_RETRANSMITTED, BLOCK_SACKED, BLOCK_SENT, NS_MAX_HEADERS, NS_NIL, SLAB_CONTROL,
    TCP_ESTABLISHED, TF_REORDERING_SEEN, TF_SACK, TF_TIMESTAMPS, block, block_data, netstack,
    slab_block, tcp_flow,
)
from cext.netstack.slab cimport slab_put, slab_take
from cext.netstack.tcp_state cimport block_span
from cext.wire.tcp cimport TCP_HAS_TIMESTAMP, seq_geq, seq_gt, seq_leq, seq_lt, seq_max, tcp_segment


# -- lists --
cdef inline void unlink_time(netstack *s, tcp_flow *t, block *b) noexcept nogil:
    if b.time_prev != NS_NIL:
        slab_block(&s.slab, b.time_prev).time_next = b.time_next
    else:
        t.time_head = b.time_next
    if b.time_next != NS_NIL:
        slab_block(&s.slab, b.time_next).time_prev = b.time_prev
    else:
        t.time_tail = b.time_prev
    b.flags &= <uint8_t> ~BLOCK_ON_TIME_LIST


cdef inline void unlink_lost(netstack *s, tcp_flow *t, block *b) noexcept nogil:
    if b.time_prev != NS_NIL:
        slab_block(&s.slab, b.time_prev).time_next = b.time_next
    else:
        t.lost_head = b.time_next
    if b.time_next != NS_NIL:
        slab_block(&s.slab, b.time_next).time_prev = b.time_prev
    else:
        t.lost_tail = b.time_prev


cdef inline void append_time(netstack *s, tcp_flow *t, uint32_t index, block *b) noexcept nogil:
    b.time_prev = t.time_tail
    b.time_next = NS_NIL
    if t.time_tail != NS_NIL:
        slab_block(&s.slab, t.time_tail).time_next = index
    else:
        t.time_head = index
    t.time_tail = index
    b.flags |= BLOCK_ON_TIME_LIST


cdef void insert_lost(netstack *s, tcp_flow *t, uint32_t index, block *b) noexcept nogil:
    cdef uint32_t before = t.lost_tail

    # Losses are found in order of transmission, so the place is nearly always the end.
    while before != NS_NIL and seq_gt(slab_block(&s.slab, before).seq, b.seq):
        before = slab_block(&s.slab, before).time_prev
    b.time_prev = before
    if before == NS_NIL:
        b.time_next = t.lost_head
        t.lost_head = index
    else:
        b.time_next = slab_block(&s.slab, before).time_next
        slab_block(&s.slab, before).time_next = index
    if b.time_next == NS_NIL:
        t.lost_tail = index
    else:
        slab_block(&s.slab, b.time_next).time_prev = index


# -- delivery --
cdef inline void disown(ack_sample *sample, uint16_t *count, uint32_t n) noexcept nogil:
    """So many retransmissions were not needed, one witness says."""
    # What ran over counts no more.
    if count[0] == 0 or count[0] == UINT16_MAX:
        return
    count[0] = <uint16_t> (count[0] - n) if n < count[0] else 0
    if count[0] == 0:
        sample.disowned = True


cdef inline void delivered(netstack *s, tcp_flow *t, block *b, const tcp_segment *seg,
                           bint first, ack_sample *sample) noexcept nogil:
    """A block is known to have arrived: RTT, RACK's newest segment, rate, reordering.
    `first`: by the ACK that moved snd_una from its first byte."""
    cdef uint32_t span = block_span(b), rtt_us = s.now_us - b.xmit_us, end = b.seq + span
    cdef uint32_t sent_ms

    sample.delivered += span
    t.delivered += span
    t.delivered_us = s.now_us
    if not sample.rate_known or seq_gt(b.delivered, sample.rate_delivered) or (
            b.delivered == sample.rate_delivered and at_or_after(b.xmit_us, t.first_sent_us)):
        sample.rate_known = True
        sample.rate_delivered = b.delivered
        sample.rate_delivered_us = b.delivered_us
        sample.rate_sent_us = b.xmit_us - b.first_sent_us
        sample.rate_app_limited = b.flags & BLOCK_APP_LIMITED != 0
        t.first_sent_us = b.xmit_us
    if not b.flags & BLOCK_EVER_RETRANSMITTED:
        if rtt_us == 0:
            rtt_us = 1
        if sample.first_rtt_us == 0:
            sample.first_rtt_us = rtt_us
        sample.last_rtt_us = rtt_us
        if seq_lt(end, t.highest_sacked):
            t.flags |= TF_REORDERING_SEEN
    else:
        # RFC 8985 section 6.2 step 2: an answer to the original tells nothing about
        # the time of the retransmission; RFC 3522: and that it was not needed.
        if seg.options & TCP_HAS_TIMESTAMP and t.flags & TF_TIMESTAMPS and \
                seq_leq(end, seg.ack):
            sent_ms = s.now_ms - rtt_us // 1000 + t.ts_offset
            if seq_lt(seg.ts_echo + 1, sent_ms):
                if first:
                    disown(sample, &t.undo_by_time, 1)
                return
        if rtt_us < t.min_rtt_us:
            return
    if t.rack_rtt_us == 0 or seq_gt(b.xmit_us, t.rack_xmit_us) or (
            b.xmit_us == t.rack_xmit_us and seq_gt(end, t.rack_end)):
        t.rack_xmit_us = b.xmit_us
        t.rack_end = end
        t.rack_rtt_us = rtt_us if rtt_us != 0 else 1


cdef inline void leave_flight(netstack *s, tcp_flow *t, block *b) noexcept nogil:
    """Off its list and out of the counters, whatever its condition was."""
    cdef uint32_t span = block_span(b)

    if b.flags & BLOCK_SACKED:
        t.sacked -= span
        return
    if b.flags & BLOCK_ON_TIME_LIST:
        unlink_time(s, t, b)
    elif b.flags & BLOCK_LOST:
        unlink_lost(s, t, b)
    if b.flags & BLOCK_LOST:
        t.lost -= span
    if b.flags & BLOCK_RETRANSMITTED:
        t.retransmitted -= span


cdef inline void drop_head(netstack *s, tcp_flow *t, uint32_t index, block *b) noexcept nogil:
    """Free the first block of the queue, which no list but the queue holds."""
    cdef block *last

    if b.flags & BLOCK_SACKED and b.run != index and b.run != NS_NIL:
        # The run begins one later now.
        last = slab_block(&s.slab, b.run)
        last.run = b.next
        slab_block(&s.slab, b.next).run = b.run
    if t.sack_hint == index:
        t.sack_hint = NS_NIL
    t.tx_head = b.next
    if b.next == NS_NIL:
        t.tx_tail = NS_NIL
    else:
        slab_block(&s.slab, b.next).prev = NS_NIL
    t.tx_blocks -= 1
    slab_put(&s.slab, index)


cdef void trim_head(netstack *s, tcp_flow *t, block *b, uint32_t n) noexcept nogil:
    """The first n bytes of a block were acknowledged."""
    if b.flags & BLOCK_SACKED:
        t.sacked -= n
    else:
        t.delivered += n
        if b.flags & BLOCK_LOST:
            t.lost -= n
        if b.flags & BLOCK_RETRANSMITTED:
            t.retransmitted -= n
    b.seq += n
    b.offset += <uint16_t> n
    b.len -= <uint16_t> n


cdef void scoreboard_ack(netstack *s, tcp_flow *t, const tcp_segment *seg,
                         ack_sample *sample) noexcept nogil:
    cdef uint32_t ack = seg.ack, index, end
    cdef bint first = True
    cdef block *b

    sample.acked = ack - t.snd_una
    while t.tx_head != NS_NIL and t.tx_head != t.tx_next:
        index = t.tx_head
        b = slab_block(&s.slab, index)
        end = b.seq + block_span(b)
        if seq_gt(end, ack):
            if seq_gt(ack, b.seq):
                if not b.flags & BLOCK_SACKED:
                    sample.delivered += ack - b.seq
                trim_head(s, t, b, ack - b.seq)
            break
        leave_flight(s, t, b)
        if not b.flags & BLOCK_SACKED:
            delivered(s, t, b, seg, first, sample)
        drop_head(s, t, index, b)
        first = False
    t.snd_una = ack
    # Never left behind: half the sequence space later it would look new.
    t.highest_sacked = seq_max(t.highest_sacked, ack)
    if not t.flags & TF_SACK:
        t.sacked = 0


# -- SACK --
cdef void mark_sacked(netstack *s, tcp_flow *t, uint32_t index, block *b,
                      const tcp_segment *seg, ack_sample *sample) noexcept nogil:
    cdef uint32_t first = index, last = index, other, end = b.seq + block_span(b)
    cdef block *near

    leave_flight(s, t, b)
    delivered(s, t, b, seg, False, sample)
    b.flags = <uint8_t> ((b.flags & ~(BLOCK_LOST | BLOCK_RETRANSMITTED)) | BLOCK_SACKED)
    t.sacked += block_span(b)
    sample.sacked += block_span(b)
    if seq_gt(end, t.highest_sacked) or t.sacked == block_span(b):
        t.highest_sacked = end
    b.run = NS_NIL
    if b.prev != NS_NIL:
        near = slab_block(&s.slab, b.prev)
        if near.flags & BLOCK_SACKED:
            first = near.run
            other = b.prev
            if other != first:
                near.run = NS_NIL
    if b.next != NS_NIL:
        near = slab_block(&s.slab, b.next)
        if near.flags & BLOCK_SACKED:
            last = near.run
            if b.next != last:
                near.run = NS_NIL
    slab_block(&s.slab, first).run = last
    slab_block(&s.slab, last).run = first
    t.sack_hint = first


cdef uint32_t find_block(netstack *s, tcp_flow *t, uint32_t seq) noexcept nogil:
    """The block that begins at seq or is the first behind it, among what was sent."""
    cdef uint32_t at = t.sack_hint
    cdef block *b

    if at == NS_NIL or seq - t.snd_una < slab_block(&s.slab, at).seq - seq:
        at = t.tx_head
    # Backwards, jumping over runs from their ends.
    while at != NS_NIL:
        b = slab_block(&s.slab, at)
        if seq_leq(b.seq, seq) or b.prev == NS_NIL:
            break
        at = b.prev
        b = slab_block(&s.slab, at)
        if b.flags & BLOCK_SACKED and b.run != NS_NIL and seq_gt(b.seq, seq) and \
                seq_lt(slab_block(&s.slab, b.run).seq, b.seq):
            at = b.run
    while at != NS_NIL and at != t.tx_next:
        b = slab_block(&s.slab, at)
        if seq_geq(b.seq, seq):
            return at
        # A run that ends before is passed in one step.
        if b.flags & BLOCK_SACKED and b.run != NS_NIL and \
                seq_leq(slab_block(&s.slab, b.run).seq, seq) and \
                seq_gt(slab_block(&s.slab, b.run).seq, b.seq):
            at = b.run
        else:
            at = b.next
    return NS_NIL


cdef void sack_range(netstack *s, tcp_flow *t, uint32_t start, uint32_t end,
                     const tcp_segment *seg, ack_sample *sample) noexcept nogil:
    cdef uint32_t at = find_block(s, t, start)
    cdef block *b

    while at != NS_NIL and at != t.tx_next:
        b = slab_block(&s.slab, at)
        if seq_gt(b.seq + block_span(b), end):
            return
        if not b.flags & BLOCK_SACKED:
            mark_sacked(s, t, at, b, seg, sample)
            at = b.next
        elif b.run != NS_NIL and seq_gt(slab_block(&s.slab, b.run).seq, b.seq):
            at = slab_block(&s.slab, b.run).next
        else:
            at = b.next


cdef bint is_dsack(const tcp_segment *seg) noexcept nogil:
    """RFC 2883: the first block lies below the ACK, or inside the second."""
    if seq_leq(seg.sack[0].end, seg.ack):
        return True
    return seg.sacks > 1 and seq_geq(seg.sack[0].start, seg.sack[1].start) and \
        seq_leq(seg.sack[0].end, seg.sack[1].end)


cdef void scoreboard_sack(netstack *s, tcp_flow *t, const tcp_segment *seg,
                          ack_sample *sample) noexcept nogil:
    cdef uint32_t i, first = 0, start, span

    if seg.sacks == 0:
        return
    if is_dsack(seg):
        first = 1
        span = seg.sack[0].end - seg.sack[0].start
        # Only of what was ever sent; RFC 2883 section 5 leaves lies at that.
        if seq_leq(seg.sack[0].end, t.snd_nxt) and span <= t.snd_wnd_max:
            sample.dsack = True
            sample.dsack_end = seg.sack[0].end
            s.statistics.spurious += 1
            if t.undo_point != 0 and seq_geq(seg.sack[0].start, t.undo_point) and \
                    seq_leq(seg.sack[0].end, t.recovery_point):
                disown(sample, &t.undo_by_dsack, (span + t.mss - 1) // t.mss)
    for i in range(first, seg.sacks):
        start = seg.sack[i].start
        if seq_lt(start, t.snd_una):
            start = t.snd_una
        if seq_geq(start, seg.sack[i].end) or seq_gt(seg.sack[i].end, t.snd_nxt):
            continue
        sack_range(s, t, start, seg.sack[i].end, seg, sample)


cdef void scoreboard_rate(netstack *s, tcp_flow *t, const ack_sample *sample) noexcept nogil:
    cdef uint32_t interval_us, got
    cdef uint64_t rate

    if not sample.rate_known:
        return
    if t.app_limited != 0 and seq_gt(t.delivered, t.app_limited):
        t.app_limited = 0
    interval_us = t.delivered_us - sample.rate_delivered_us
    if interval_us < sample.rate_sent_us:
        interval_us = sample.rate_sent_us
    got = t.delivered - sample.rate_delivered
    # An interval below the least RTT is compression, not bandwidth.
    if interval_us == 0 or (t.min_rtt_us != 0xffffffffu and interval_us < t.min_rtt_us):
        return
    rate = <uint64_t> got * 1000 // interval_us
    if sample.rate_app_limited and rate < t.rate_kbyte_s:
        return
    t.rate_kbyte_s = <uint32_t> rate


# -- sending and losing --
cdef void scoreboard_sent(netstack *s, tcp_flow *t, uint32_t index) noexcept nogil:
    cdef block *b = slab_block(&s.slab, index)
    cdef uint32_t span = block_span(b)

    if t.time_head == NS_NIL:
        t.first_sent_us = t.delivered_us = s.now_us
    if b.flags & BLOCK_SENT:
        if b.flags & BLOCK_LOST and not b.flags & BLOCK_ON_TIME_LIST:
            unlink_lost(s, t, b)
            t.retransmitted += span
            b.flags |= BLOCK_RETRANSMITTED
        elif b.flags & BLOCK_ON_TIME_LIST:
            unlink_time(s, t, b)
        b.flags |= BLOCK_EVER_RETRANSMITTED
        t.undo_by_time += t.undo_by_time < UINT16_MAX
        t.undo_by_dsack += t.undo_by_dsack < UINT16_MAX
        s.statistics.retransmits += 1
    else:
        b.flags |= BLOCK_SENT
        t.snd_nxt = b.seq + span
        t.tx_next = b.next
    append_time(s, t, index, b)
    b.xmit_us = s.now_us
    b.first_sent_us = t.first_sent_us
    b.delivered = t.delivered
    b.delivered_us = t.delivered_us
    if t.app_limited != 0:
        b.flags |= BLOCK_APP_LIMITED
    else:
        b.flags &= <uint8_t> ~BLOCK_APP_LIMITED
    if b.transmissions < 255:
        b.transmissions += 1


cdef bint scoreboard_lost(netstack *s, tcp_flow *t, uint32_t index) noexcept nogil:
    cdef block *b = slab_block(&s.slab, index)
    cdef uint32_t span = block_span(b)

    if b.flags & BLOCK_SACKED or not b.flags & BLOCK_ON_TIME_LIST:
        return False
    unlink_time(s, t, b)
    if b.flags & BLOCK_RETRANSMITTED:
        t.retransmitted -= span
        b.flags &= <uint8_t> ~BLOCK_RETRANSMITTED
    else:
        t.lost += span
        b.flags |= BLOCK_LOST
    insert_lost(s, t, index, b)
    return True


cdef void scoreboard_renege(netstack *s, tcp_flow *t) noexcept nogil:
    cdef uint32_t at = t.tx_head
    cdef block *b

    while at != NS_NIL and at != t.tx_next:
        b = slab_block(&s.slab, at)
        if b.flags & BLOCK_SACKED:
            b.flags &= <uint8_t> ~BLOCK_SACKED
            b.run = NS_NIL
            t.lost += block_span(b)
            b.flags |= BLOCK_LOST
            insert_lost(s, t, at, b)
        at = b.next
    t.sacked = 0
    t.sack_hint = NS_NIL


cdef void scoreboard_unlose(netstack *s, tcp_flow *t) noexcept nogil:
    cdef uint32_t at = t.lost_head
    cdef block *b = NULL

    if at == NS_NIL:
        return
    while at != NS_NIL:
        b = slab_block(&s.slab, at)
        t.lost -= block_span(b)
        b.flags = <uint8_t> ((b.flags & ~BLOCK_LOST) | BLOCK_ON_TIME_LIST)
        at = b.time_next
    # They were sent before whatever was sent since: in front of the time list.
    b.time_next = t.time_head
    if t.time_head != NS_NIL:
        slab_block(&s.slab, t.time_head).time_prev = t.lost_tail
    else:
        t.time_tail = t.lost_tail
    t.time_head = t.lost_head
    t.lost_head = t.lost_tail = NS_NIL


cdef bint scoreboard_split(netstack *s, tcp_flow *t, uint32_t index,
                           uint32_t length) noexcept nogil:
    cdef block *b = slab_block(&s.slab, index)
    cdef block *rest
    cdef uint32_t new = slab_take(&s.slab, SLAB_CONTROL)

    if new == NS_NIL:
        return False
    rest = slab_block(&s.slab, new)
    rest[0] = b[0]
    rest.offset = <uint16_t> (sizeof(block) + s.limits.headroom_bytes + NS_MAX_HEADERS)
    rest.seq = b.seq + length
    rest.len = <uint16_t> (b.len - length)
    rest.run = NS_NIL
    memcpy(block_data(rest), block_data(b) + length, rest.len)
    b.len = <uint16_t> length
    b.flags &= <uint8_t> ~BLOCK_FIN
    rest.prev = index
    if b.next != NS_NIL:
        slab_block(&s.slab, b.next).prev = new
    else:
        t.tx_tail = new
    b.next = new
    if b.flags & (BLOCK_ON_TIME_LIST | BLOCK_LOST):
        rest.time_prev = index
        if b.time_next != NS_NIL:
            slab_block(&s.slab, b.time_next).time_prev = new
        elif b.flags & BLOCK_ON_TIME_LIST:
            t.time_tail = new
        else:
            t.lost_tail = new
        b.time_next = new
    t.tx_blocks += 1
    return True


# -- checking --
cdef int scoreboard_check(netstack *s, tcp_flow *t) noexcept nogil:
    cdef uint32_t at = t.tx_head, before = NS_NIL, seq = t.snd_una, blocks = 0
    cdef uint32_t sacked = 0, lost = 0, again = 0, timed = 0, waiting = 0
    cdef block *b
    cdef bint sent = True

    if t.state < TCP_ESTABLISHED:
        seq += 1  # the SYN
    while at != NS_NIL:
        b = slab_block(&s.slab, at)
        if at == t.tx_next:
            sent = False
        if b.prev != before or (b.seq != seq and t.snd_una != t.write_seq):
            return 1
        if (b.flags & BLOCK_SENT != 0) != sent:
            return 2
        if b.flags & BLOCK_SACKED:
            sacked += block_span(b)
            if b.flags & (BLOCK_ON_TIME_LIST | BLOCK_LOST):
                return 3
        elif sent:
            if b.flags & BLOCK_ON_TIME_LIST:
                timed += 1
            elif b.flags & BLOCK_LOST:
                waiting += 1
            else:
                return 4
        if b.flags & BLOCK_LOST:
            lost += block_span(b)
        if b.flags & BLOCK_RETRANSMITTED:
            again += block_span(b)
        seq = b.seq + block_span(b)
        before = at
        at = b.next
        blocks += 1
    if before != t.tx_tail or blocks != t.tx_blocks:
        return 5
    if t.flags & TF_SACK and sacked != t.sacked:
        return 6
    if lost != t.lost or again != t.retransmitted:
        return 7
    at = t.time_head
    before = NS_NIL
    while at != NS_NIL:
        b = slab_block(&s.slab, at)
        if b.time_prev != before:
            return 8
        before = at
        at = b.time_next
        timed -= 1
    if timed != 0 or before != t.time_tail:
        return 9
    at = t.lost_head
    while at != NS_NIL:
        at = slab_block(&s.slab, at).time_next
        waiting -= 1
    return 10 if waiting != 0 else 0
