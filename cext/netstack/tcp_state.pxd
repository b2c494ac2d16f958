# SPDX-License-Identifier: Apache-2.0
# The life of a TCP flow: slot, state, timers' deadlines, end.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from cext.netstack.layout cimport (
    BLOCK_FIN, FLOW_TCP, block, flow_handle, flow_tuple, netstack, tcp_flow, time_wait,
)


# A flow in state CLOSED, in the table; NULL when there is no slot and nobody may go.
cdef tcp_flow *tcp_new(netstack *s, const flow_tuple *tuple, uint32_t peer) noexcept nogil
# The only place where a state changes.
cdef void tcp_set_state(netstack *s, tcp_flow *t, uint32_t state) noexcept nogil
# Over: forget all but parked bytes, tell the consumer (or free the slot of an orphan).
cdef void tcp_finish(netstack *s, tcp_flow *t, uint32_t reason) noexcept nogil
# We closed first and the peer's FIN is here: leave a time_wait behind, then finish.
cdef void tcp_time_wait(netstack *s, tcp_flow *t) noexcept nogil
# The consumer is done with a flow in CLOSED.
cdef void tcp_free(netstack *s, tcp_flow *t) noexcept nogil
cdef void time_wait_free(netstack *s, time_wait *w) noexcept nogil
cdef void time_wait_poll(netstack *s) noexcept nogil
cdef uint64_t time_wait_poll_at(const netstack *s) noexcept nogil
# The consumer has learned of a listener's flow: it no longer counts to the backlog.
cdef void tcp_seen(netstack *s, tcp_flow *t) noexcept nogil
# A repeated FIN: it lasts anew.
cdef void time_wait_restart(netstack *s, time_wait *w) noexcept nogil
# Let the wheel wake the flow at its earliest deadline.
cdef void tcp_arm(netstack *s, tcp_flow *t) noexcept nogil
cdef void tcp_set_timer(netstack *s, tcp_flow *t, uint32_t timer, uint32_t in_ms) noexcept nogil
# The flow was heard of: it is no candidate for eviction.
cdef void tcp_touch(netstack *s, tcp_flow *t) noexcept nogil
# MSS that a SYN of ours announces.
cdef uint16_t tcp_our_mss(const netstack *s, const flow_tuple *tuple) noexcept nogil
# RFC 6528: clock of 4 us plus a keyed hash of the tuple.
cdef uint32_t tcp_initial_sequence(const netstack *s, const flow_tuple *tuple) noexcept nogil
cdef uint32_t tcp_timestamp_offset(const netstack *s, const flow_tuple *tuple) noexcept nogil

# What both ends agreed on: `options` of the peer's SYN, TCP_HAS_*.
cdef void tcp_negotiate(netstack *s, tcp_flow *t, uint32_t options, uint16_t peer_mss,
                        uint8_t window_scale, uint32_t ts_value) noexcept nogil


cdef inline uint32_t tcp_handle(const netstack *s, const tcp_flow *t) noexcept nogil:
    return flow_handle(FLOW_TCP, <uint32_t> (t - s.tcp), t.generation)


# Sequence numbers that a block covers.
cdef inline uint32_t block_span(const block *b) noexcept nogil:
    return b.len + (1 if b.flags & BLOCK_FIN else 0)


# Bytes believed to be in the network (RFC 6675 "pipe").
cdef inline uint32_t tcp_pipe(const tcp_flow *t) noexcept nogil:
    return t.snd_nxt - t.snd_una - t.sacked - t.lost + t.retransmitted


# RFC 6298, kept at or above min_rto beyond the smoothed RTT, so that a delayed ACK never
# fires it.
cdef inline uint32_t tcp_rto_ms(const netstack *s, const tcp_flow *t) noexcept nogil:
    cdef uint32_t rto_us, shift = t.backoff

    if t.srtt_us == 0:
        rto_us = 1000000
    else:
        rto_us = t.rttvar_us
        if rto_us < s.limits.min_rto_ms * 1000:
            rto_us = s.limits.min_rto_ms * 1000
        rto_us += t.srtt_us >> 3
    rto_us = rto_us // 1000 + 1
    if shift > 10:
        shift = 10
    rto_us <<= shift
    return rto_us if rto_us < 120000 else 120000
