# SPDX-License-Identifier: Apache-2.0
"""The receiving half: order, the consumer, the window, what to acknowledge.

Theory of operation
-------------------
    in order  -> host.tcp_data() at once; what it does not take is parked
                 or, with host.tcp_parts(), held until another flow, anything but
                 plain data of this one, or the end of the batch: one call for many.
                 rcv_nxt runs ahead of the consumer meanwhile; no ACK is built
                 before it was asked, so what finds no room is taken back. What a
                 filled hole sets free, and what was parked, goes the same way
    too early -> a block of the out-of-order queue, trimmed to what is missing there
    too late  -> dropped, reported as a duplicate

While bytes are parked, later ones queue behind them; ns_set_receive_space() and
ns_recv() let them go on. When the slab refuses a block, the segment counts as
never received: it is not acknowledged and comes again.

Window: min(what the consumer can take, rcv_limit) less what is parked, 0 growth while
the slab is more than 95 % full, and for a flow that holds more than its share while
it is more than 75 % full. It opens in steps of at least two segments or half of it
(RFC 9293 section 3.8.6.2.2) and its right edge never moves back.

rcv_limit begins at 64 KB and grows by twice of what the consumer takes, up to
flow_rx_bytes. A sender in slow start has as much in flight as was acknowledged so far
(and the initial window), BBR's a little more, so it is never what limits; and who reads
slowly was never promised much of the slab.

ACKs: every second full segment, out of order, duplicates, filled holes, window
updates that matter: at once. Otherwise after delayed_ack_ms.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from cext.base.drops cimport drop
from cext.netstack.flow cimport tcp_event, tcp_ready
from cext.netstack.layout cimport (
    BLOCK_FIN, NS_EVENT_CLOSED, NS_EVENT_PEER_CLOSED, NS_EVENT_READABLE, NS_NIL, NS_PARTS_MAX,
    SLAB_RECEIVE,
    TCP_CLOSED, TCP_ESTABLISHED, TF_ACK_DELAYED, TF_ACK_NOW, TF_BLOCKED, TF_DSACK, TF_EXPECT_WINDOW,
    TF_FIN_RECEIVED, TF_GIVING, TF_SACK, block, block_data, netstack, ns_part, slab_block, tcp_flow,
)
from cext.netstack.slab cimport slab_put, slab_take
from cext.netstack.tcp_state cimport tcp_arm, tcp_handle
from cext.wire.tcp cimport seq_gt, seq_leq, seq_lt, sequence_range


cdef extern from "base/drops.h" nogil:
    enum:
        DROP_NS_RECEIVE_FULL
        DROP_NS_SLAB_FULL
        DROP_NS_TCP_OUT_OF_WINDOW

cdef enum:
    SACK_RANGES = 3
    CHAIN = 64  # blocks offered at once
    DUPLICATE = 3  # place in sack[] of the range to report with TF_DSACK



# -- acknowledging --
cdef void receive_owe_ack(netstack *s, tcp_flow *t, bint now) noexcept nogil:
    if now:
        t.flags |= TF_ACK_NOW
        tcp_ready(s, t)
    elif not t.flags & TF_ACK_DELAYED:
        t.flags |= TF_ACK_DELAYED
        t.ack_due_ms = s.now_ms + s.limits.delayed_ack_ms
        tcp_arm(s, t)


cdef void receive_duplicate(netstack *s, tcp_flow *t, uint32_t start, uint32_t end) noexcept nogil:
    s.statistics.duplicates += 1
    if start != end and t.flags & TF_SACK:
        t.sack[<int> DUPLICATE].start = start
        t.sack[<int> DUPLICATE].end = end
        t.flags |= TF_DSACK
    receive_owe_ack(s, t, True)


cdef bint add_range(tcp_flow *t, uint32_t start, uint32_t end) noexcept nogil:
    """A range arrived early: first in the report, merged with those it touches. Whether
    it touches none."""
    cdef sequence_range kept[3]
    cdef uint32_t i, n = 0
    cdef bint alone = True

    for i in range(SACK_RANGES):
        if t.sack[i].start == t.sack[i].end:
            continue
        if seq_leq(t.sack[i].start, end) and seq_leq(start, t.sack[i].end):
            alone = False
            if seq_lt(t.sack[i].start, start):
                start = t.sack[i].start
            if seq_gt(t.sack[i].end, end):
                end = t.sack[i].end
        else:
            kept[n] = t.sack[i]
            n += 1
    t.sack[0].start = start
    t.sack[0].end = end
    for i in range(1, SACK_RANGES):
        if i <= n:
            t.sack[i] = kept[i - 1]
        else:
            t.sack[i].start = t.sack[i].end = 0
    return alone


cdef void drop_ranges(tcp_flow *t) noexcept nogil:
    """Forget ranges that rcv_nxt has passed."""
    cdef uint32_t i, n = 0

    for i in range(SACK_RANGES):
        if t.sack[i].start != t.sack[i].end and seq_gt(t.sack[i].end, t.rcv_nxt):
            t.sack[n] = t.sack[i]
            n += 1
    while n < SACK_RANGES:
        t.sack[n].start = t.sack[n].end = 0
        n += 1


# -- blocks --
cdef inline uint32_t room_behind(const netstack *s, const block *b) noexcept nogil:
    return s.slab.block_bytes - b.offset - b.len


cdef uint32_t new_block(netstack *s, tcp_flow *t, uint32_t seq, const uint8_t *data,
                        uint32_t length) noexcept nogil:
    cdef uint32_t index
    cdef uint64_t most
    cdef block *b

    # A block counts in full, so that tiny segments cannot hold much more than large ones.
    # A quarter is for what is no payload in the blocks of large ones: a window of those
    # must find room, or the stack drops what it asked for.
    most = 2 * <uint64_t> t.rcv_limit
    if most > s.limits.flow_rx_bytes:
        most = s.limits.flow_rx_bytes
    if <uint64_t> t.rx_blocks * s.slab.block_bytes > most + most // 4 + s.slab.block_bytes:
        drop(&s.drops, DROP_NS_RECEIVE_FULL)
        return NS_NIL
    index = slab_take(&s.slab, SLAB_RECEIVE)
    if index == NS_NIL:
        drop(&s.drops, DROP_NS_SLAB_FULL)
        return NS_NIL
    b = slab_block(&s.slab, index)
    b.offset = <uint16_t> sizeof(block)
    b.len = <uint16_t> length
    b.seq = seq
    memcpy(block_data(b), data, length)
    t.rx_blocks += 1
    return index


cdef uint32_t park(netstack *s, tcp_flow *t, const uint8_t *data, uint32_t length) noexcept nogil:
    """Keep bytes that the consumer did not take; how many found room."""
    cdef uint32_t n, done = 0, index, most = s.slab.block_bytes - <uint32_t> sizeof(block)
    cdef block *b

    if t.parked_tail != NS_NIL:
        b = slab_block(&s.slab, t.parked_tail)
        n = room_behind(s, b)
        if n > length:
            n = length
        memcpy(block_data(b) + b.len, data, n)
        b.len += <uint16_t> n
        done = n
    while done < length:
        n = length - done if length - done < most else most
        index = new_block(s, t, 0, data + done, n)
        if index == NS_NIL:
            break
        if t.parked_tail == NS_NIL:
            t.parked_head = index
        else:
            slab_block(&s.slab, t.parked_tail).next = index
        t.parked_tail = index
        done += n
    if t.parked == 0 and done:
        t.flags |= TF_BLOCKED
        tcp_event(s, t, NS_EVENT_READABLE)
    t.parked += done
    return done


cdef inline void taken_by_consumer(const netstack *s, tcp_flow *t, uint32_t n) noexcept nogil:
    cdef uint64_t limit = t.rcv_limit + 2 * <uint64_t> n

    t.rcv_limit = <uint32_t> limit if limit < s.limits.flow_rx_bytes else s.limits.flow_rx_bytes


cdef inline uint32_t gave(const netstack *s, tcp_flow *t, uint32_t taken,
                          uint32_t length) noexcept nogil:
    """The consumer took so many of `length` bytes, it says."""
    if taken > length:
        taken = length
    t.rcv_space -= taken if taken < t.rcv_space else t.rcv_space
    taken_by_consumer(s, t, taken)
    return taken


cdef uint32_t offer(netstack *s, tcp_flow *t, const uint8_t *data, uint32_t length) noexcept nogil:
    """Let the consumer take what it wants; how many bytes that were."""
    cdef uint32_t taken

    if s.host.tcp_data == NULL:
        return 0
    t.flags |= TF_GIVING
    taken = s.host.tcp_data(s.host.context, tcp_handle(s, t), t.user, data, length)
    t.flags &= ~<uint32_t> TF_GIVING
    return gave(s, t, taken, length)


cdef uint32_t offer_parts(netstack *s, tcp_flow *t, const ns_part *parts,
                          uint32_t n) noexcept nogil:
    """The same for several at once."""
    cdef uint32_t i, total = 0, taken

    for i in range(n):
        total += parts[i].len
    t.flags |= TF_GIVING
    taken = s.host.tcp_parts(s.host.context, tcp_handle(s, t), t.user, parts, n)
    t.flags &= ~<uint32_t> TF_GIVING
    return gave(s, t, taken, total)


cdef uint32_t offer_chain(netstack *s, tcp_flow *t, uint32_t at, uint32_t skip,
                          bint in_order) noexcept nogil:
    """Offer the blocks from `at` on, without its first `skip` bytes; how many bytes were
    taken. `in_order`: only as far as no byte is missing between them, nor a FIN."""
    cdef ns_part parts[CHAIN]
    cdef uint32_t n = 0, seq
    cdef uint32_t most = CHAIN if s.host.tcp_parts != NULL else 1
    cdef block *b = slab_block(&s.slab, at)

    seq = b.seq + skip
    while n < most:
        parts[n].data = block_data(b) + skip
        parts[n].len = b.len - skip
        n += 1
        seq += b.len - skip
        if b.next == NS_NIL or (in_order and b.flags & BLOCK_FIN):
            break
        b = slab_block(&s.slab, b.next)
        if in_order and (b.seq != seq or b.len == 0):
            break
        skip = 0
    if n == 1:
        return offer(s, t, parts[0].data, parts[0].len)
    return offer_parts(s, t, parts, n)


cdef uint32_t give(netstack *s, tcp_flow *t, const uint8_t *data, uint32_t length) noexcept nogil:
    """Bytes in order; how many are now the consumer's or parked."""
    cdef uint32_t taken = 0

    if t.parked == 0 and length:
        taken = offer(s, t, data, length)
    if taken < length:
        taken += park(s, t, data + taken, length - taken)
    return taken


# -- held for one call --
cdef bint receive_joins(const netstack *s, const tcp_flow *t, uint32_t seq,
                        uint32_t length) noexcept nogil:
    return length != 0 and seq == t.rcv_nxt and s.parts < NS_PARTS_MAX and \
        t.parked_head == NS_NIL and t.ooo_head == NS_NIL and \
        (s.parts == 0 or &s.tcp[s.parts_flow] == t)


cdef void hold(netstack *s, tcp_flow *t, const uint8_t *data, uint32_t length) noexcept nogil:
    s.part[s.parts].data = data
    s.part[s.parts].len = length
    s.parts += 1
    s.parts_flow = <uint32_t> (t - s.tcp)


cdef void receive_flush(netstack *s) noexcept nogil:
    cdef tcp_flow *t
    cdef uint32_t i, n = s.parts, taken, kept, total = 0

    if n == 0:
        return
    s.parts = 0
    t = &s.tcp[s.parts_flow]
    for i in range(n):
        total += s.part[i].len
    taken = offer_parts(s, t, s.part, n)
    total -= taken
    for i in range(n):
        if taken >= s.part[i].len:
            taken -= s.part[i].len
            continue
        kept = park(s, t, s.part[i].data + taken, s.part[i].len - taken)
        total -= kept
        if kept < s.part[i].len - taken:
            break
        taken = 0
    if total:
        # Not received after all: it comes again.
        t.rcv_nxt -= total
        drop(&s.drops, DROP_NS_RECEIVE_FULL)
        receive_owe_ack(s, t, True)


# -- out of order --
cdef bint insert_early(netstack *s, tcp_flow *t, uint32_t seq, const uint8_t *data,
                       uint32_t length, bint fin) noexcept nogil:
    """Queue what is missing of it; False when nothing of it was new or kept."""
    cdef uint32_t before = t.ooo_tail, after = NS_NIL, end = seq + length, index, n
    cdef block *b
    cdef bint kept = False

    # Nearly always it belongs at the end or close to it.
    while before != NS_NIL and seq_gt(slab_block(&s.slab, before).seq, seq):
        after = before
        before = slab_block(&s.slab, before).prev
    while seq_lt(seq, end) or fin:
        if before != NS_NIL:
            b = slab_block(&s.slab, before)
            if seq_leq(seq, b.seq + b.len) and seq_lt(seq, end):
                # Behind, or inside, the one before: skip what is there already.
                n = b.seq + b.len - seq
                if n >= end - seq:
                    if n == end - seq and fin and not b.flags & BLOCK_FIN:
                        b.flags |= BLOCK_FIN
                        kept = True
                    return kept
                seq += n
                data += n
            elif seq == end and seq_leq(seq, b.seq + b.len):
                # Only a FIN is left of it; one inside what came is not to be believed.
                if seq == b.seq + b.len and not b.flags & BLOCK_FIN:
                    b.flags |= BLOCK_FIN
                    kept = True
                return kept
        n = end - seq
        if n == 0 and after != NS_NIL:
            return kept  # a FIN in front of data that came: not to be believed
        if after != NS_NIL:
            b = slab_block(&s.slab, after)
            if seq_lt(b.seq, end):
                n = b.seq - seq
        if before != NS_NIL and n:
            b = slab_block(&s.slab, before)
            if b.seq + b.len == seq and not b.flags & BLOCK_FIN and room_behind(s, b) >= n:
                memcpy(block_data(b) + b.len, data, n)
                b.len += <uint16_t> n
                kept = True
                seq += n
                data += n
                if seq == end:
                    if fin:
                        b.flags |= BLOCK_FIN
                    return True
                before = after
                after = slab_block(&s.slab, after).next
                continue
        if n or after == NS_NIL:
            index = new_block(s, t, seq, data, n)
            if index == NS_NIL:
                return kept
            kept = True
            b = slab_block(&s.slab, index)
            b.prev = before
            b.next = after
            if before == NS_NIL:
                t.ooo_head = index
            else:
                slab_block(&s.slab, before).next = index
            if after == NS_NIL:
                t.ooo_tail = index
            else:
                slab_block(&s.slab, after).prev = index
            seq += n
            data += n
            before = index
            if seq == end:
                if fin:
                    b.flags |= BLOCK_FIN
                return True
        if after == NS_NIL:
            return kept
        before = after
        after = slab_block(&s.slab, after).next
    return kept


cdef bint take_early(netstack *s, tcp_flow *t) noexcept nogil:
    """Give what the out-of-order queue has at rcv_nxt; True when that reached a FIN."""
    cdef uint32_t index, skip, taken, left, ahead = 0
    cdef block *b
    cdef bint fin

    while t.ooo_head != NS_NIL:
        index = t.ooo_head
        b = slab_block(&s.slab, index)
        if seq_gt(b.seq, t.rcv_nxt):
            return False
        skip = t.rcv_nxt - b.seq
        if skip < b.len:
            left = b.len - skip
            if ahead == 0 and t.parked == 0:
                ahead = offer_chain(s, t, index, skip, True)
            taken = left if left < ahead else ahead
            ahead -= taken
            if taken < left:
                taken += park(s, t, block_data(b) + skip + taken, left - taken)
            t.rcv_nxt += taken
            if taken < left:
                return False
        fin = b.flags & BLOCK_FIN != 0 and t.rcv_nxt == b.seq + b.len
        t.ooo_head = b.next
        if b.next == NS_NIL:
            t.ooo_tail = NS_NIL
        else:
            slab_block(&s.slab, b.next).prev = NS_NIL
        t.rx_blocks -= 1
        slab_put(&s.slab, index)
        if fin:
            return True
    return False


cdef bint receive_segment(netstack *s, tcp_flow *t, uint32_t seq, const uint8_t *data,
                          uint32_t length, bint fin) noexcept nogil:
    cdef uint32_t taken, room, behind
    cdef bint at_once

    if seq_lt(seq, t.rcv_nxt):
        behind = t.rcv_nxt - seq
        receive_duplicate(s, t, seq, t.rcv_nxt if behind < length else seq + length)
        if behind > length or (behind == length and not fin):
            return False
        seq += behind
        data += behind
        length -= behind
    room = t.rcv_edge - seq
    if seq_gt(seq, t.rcv_edge):
        room = 0
    if length > room:
        # Beyond the window: what lies inside is kept (a FIN then is not). With none left
        # it is a probe, and the answer tells what there is.
        if room == 0:
            t.flags |= TF_EXPECT_WINDOW
        length = room
        fin = False
        receive_owe_ack(s, t, True)
        if length == 0:
            drop(&s.drops, DROP_NS_TCP_OUT_OF_WINDOW)
            return False
    if seq != t.rcv_nxt:
        s.statistics.out_of_order += 1
        fin = insert_early(s, t, seq, data, length, fin) and length != 0 and \
            add_range(t, seq, seq + length)
        # With SACK an ACK for each range that is new, without it one for each segment.
        if (fin or not t.flags & TF_SACK) and t.acks_owed < 255:
            t.acks_owed += 1
        receive_owe_ack(s, t, True)
        return False
    if s.host.tcp_parts != NULL and not fin and t.ooo_head != NS_NIL and t.parked == 0 and \
            slab_block(&s.slab, t.ooo_head).seq == seq + length and \
            insert_early(s, t, seq, data, length, False):
        # It fills the hole: a copy costs less than a call for this one segment.
        if t.quick_acks:
            t.quick_acks -= 1
        receive_owe_ack(s, t, True)
        fin = take_early(s, t)
        drop_ranges(t)
        return fin
    if s.host.tcp_parts != NULL and not fin and receive_joins(s, t, seq, length):
        hold(s, t, data, length)
        taken = length
    else:
        taken = give(s, t, data, length)
    t.rcv_nxt += taken
    if taken < length:
        drop(&s.drops, DROP_NS_RECEIVE_FULL)
        receive_owe_ack(s, t, True)
        return False
    # RFC 5681 section 4.2: an ACK for every second segment, at once while a hole fills.
    at_once = t.ooo_head != NS_NIL or fin or t.quick_acks != 0 or \
        t.rcv_nxt - t.last_ack_sent >= 2 * <uint32_t> t.mss
    if t.quick_acks:
        t.quick_acks -= 1
    receive_owe_ack(s, t, at_once)
    if fin:
        return True
    if t.ooo_head != NS_NIL:
        fin = take_early(s, t)
        drop_ranges(t)
        return fin
    return False


# -- the consumer --
cdef inline uint32_t open_space(const tcp_flow *t) noexcept nogil:
    """What may come beyond what is parked."""
    cdef uint32_t space = t.rcv_space if t.rcv_space < t.rcv_limit else t.rcv_limit

    return space - t.parked if space > t.parked else 0


cdef void window_update(netstack *s, tcp_flow *t) noexcept nogil:
    """Tell the peer that the window opened, if that is worth a packet."""
    cdef uint32_t shown = t.rcv_edge - t.rcv_nxt, now, most = t.rcv_limit

    if t.state < TCP_ESTABLISHED or t.flags & TF_FIN_RECEIVED:
        return
    now = open_space(t)
    if now <= shown:
        return
    if now - shown >= 2 * <uint32_t> t.mss or (shown < t.mss and now >= t.mss) or \
            now - shown >= most // 2:
        # Anything smaller than a quarter of what is left open can wait for an ACK.
        if shown < t.mss or now - shown >= shown // 2:
            receive_owe_ack(s, t, True)


cdef void receive_resume(netstack *s, tcp_flow *t) noexcept nogil:
    cdef uint32_t index, taken, n
    cdef block *b

    if t.flags & TF_GIVING:
        return
    while t.parked_head != NS_NIL and t.rcv_space:
        taken = offer_chain(s, t, t.parked_head, 0, False)
        if taken == 0:
            break
        t.parked -= taken
        while taken:
            index = t.parked_head
            b = slab_block(&s.slab, index)
            n = taken if taken < b.len else b.len
            b.offset += <uint16_t> n
            b.len -= <uint16_t> n
            taken -= n
            if b.len:
                unblock(s, t)
                return  # no more for now
            t.parked_head = b.next
            if t.parked_head == NS_NIL:
                t.parked_tail = NS_NIL
            t.rx_blocks -= 1
            slab_put(&s.slab, index)
    unblock(s, t)


cdef void unblock(netstack *s, tcp_flow *t) noexcept nogil:
    """Bytes were taken: go on with the queue, end the stream, open the window."""
    if t.parked == 0 and t.flags & TF_BLOCKED:
        t.flags &= ~<uint32_t> TF_BLOCKED
        if t.flags & TF_FIN_RECEIVED:
            tcp_event(s, t, NS_EVENT_PEER_CLOSED)
        if t.state == TCP_CLOSED:
            tcp_event(s, t, NS_EVENT_CLOSED)
    window_update(s, t)


cdef uint32_t receive_copy(netstack *s, tcp_flow *t, uint8_t *out, uint32_t length) noexcept nogil:
    cdef uint32_t n, done = 0, index
    cdef block *b

    while done < length and t.parked_head != NS_NIL:
        index = t.parked_head
        b = slab_block(&s.slab, index)
        n = length - done if length - done < b.len else b.len
        memcpy(out + done, block_data(b), n)
        done += n
        b.offset += <uint16_t> n
        b.len -= <uint16_t> n
        if b.len == 0:
            t.parked_head = b.next
            if t.parked_head == NS_NIL:
                t.parked_tail = NS_NIL
            t.rx_blocks -= 1
            slab_put(&s.slab, index)
    t.parked -= done
    taken_by_consumer(s, t, done)
    if done:
        unblock(s, t)
    return done


cdef uint32_t receive_window(netstack *s, tcp_flow *t) noexcept nogil:
    cdef uint32_t shown = t.rcv_edge - t.rcv_nxt, window, used = s.slab.used
    cdef uint32_t most = t.rcv_limit, step

    window = open_space(t)
    if used > s.slab.blocks - s.slab.blocks // 20:
        window = 0
    elif used > s.slab.blocks - s.slab.blocks // 4 and \
            <uint32_t> t.rx_blocks * s.tcp_pool.used > s.slab.blocks:
        window = 0
    # Silly windows: small steps are not worth telling, unless the peer asked.
    step = t.mss if t.mss < most // 2 else most // 2
    if window < shown + step and window != most and not t.flags & TF_EXPECT_WINDOW:
        window = shown
    if window < shown:
        window = shown
    # Rounded down to what can be written, unless that would move the edge back.
    window = window >> t.rcv_scale << t.rcv_scale
    if window < shown:
        window = (shown + (1 << t.rcv_scale) - 1) >> t.rcv_scale << t.rcv_scale
    if window > <uint32_t> 65535 << t.rcv_scale:
        window = <uint32_t> 65535 << t.rcv_scale
    t.rcv_edge = t.rcv_nxt + window
    t.flags &= ~<uint32_t> TF_EXPECT_WINDOW
    return window


cdef int receive_check(netstack *s, tcp_flow *t) noexcept nogil:
    cdef uint32_t at = t.ooo_head, before = NS_NIL, edge = t.rcv_nxt, blocks = 0, parked = 0
    cdef block *b

    while at != NS_NIL:
        b = slab_block(&s.slab, at)
        if b.prev != before:
            return 21
        if seq_lt(b.seq, edge) and before != NS_NIL:
            return 22
        edge = b.seq + b.len
        before = at
        at = b.next
        blocks += 1
    if before != t.ooo_tail:
        return 23
    at = t.parked_head
    while at != NS_NIL:
        b = slab_block(&s.slab, at)
        parked += b.len
        blocks += 1
        at = b.next
    if parked != t.parked or blocks != t.rx_blocks:
        return 24
    return 25 if seq_lt(t.rcv_edge, t.rcv_nxt) else 0
