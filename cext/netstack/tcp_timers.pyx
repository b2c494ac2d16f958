# SPDX-License-Identifier: Apache-2.0
"""What happens to a TCP flow when its time has come.

    handshake   SYN or SYN-ACK again, doubling from 1 s; given up after six
    RTO, TLP, reordering: tcp_recovery
    persist     a probe of a shut window, or what fits into a small one; doubling up to
                a minute, for ever as long as the peer answers (RFC 9293 section 3.8.6)
    delayed ACK an ACK alone
    idle        keepalive: after keepalive_s a probe, then one every 75 s, nine in all
                (RFC 9293 section 3.8.4); an orphan in FIN_WAIT_2 ends after 2 MSL

User timeout (RFC 5482): when what is in flight, or a probe, was not answered for
user_timeout_s, the flow ends with an RST.
"""

from libc.stdint cimport uint32_t

from cext.netstack.flow cimport at_or_after, tcp_ready
from cext.netstack.layout cimport (
    NS_REASON_TIMEOUT, TCP_CLOSED, TCP_ESTABLISHED, TCP_FIN_WAIT_2, TCP_FREE, TCP_SYN_RECEIVED,
    TF_ACK_DELAYED, TF_ACK_NOW, TF_ORPHAN, TF_PROBE, TIMER_HANDSHAKE, TIMER_OFF, TIMER_PERSIST,
    TIMER_REORDER, TIMER_TLP, netstack, tcp_flow,
)
from cext.netstack.tcp_output cimport tcp_reset
from cext.netstack.tcp_receive cimport receive_owe_ack
from cext.netstack.tcp_recovery cimport recovery_reorder, recovery_tail_probe, recovery_timeout
from cext.netstack.tcp_state cimport tcp_arm, tcp_finish, tcp_rto_ms, tcp_set_timer


cdef enum:
    HANDSHAKE_TRIES = 6
    PERSIST_MAX_MS = 60000
    KEEPALIVE_INTERVAL_MS = 75000
    KEEPALIVE_PROBES = 9


cdef void tcp_idle_start(netstack *s, tcp_flow *t) noexcept nogil:
    cdef uint32_t in_ms

    if t.state == TCP_FIN_WAIT_2 and t.flags & TF_ORPHAN:
        in_ms = s.limits.time_wait_ms
    elif t.keepalive_s and t.state >= TCP_ESTABLISHED:
        in_ms = <uint32_t> t.keepalive_s * 1000
    else:
        t.idle_due_ms = 0
        return
    t.idle_due_ms = s.now_ms + in_ms
    if t.idle_due_ms == 0:
        t.idle_due_ms = 1
    tcp_arm(s, t)


cdef void give_up(netstack *s, tcp_flow *t) noexcept nogil:
    tcp_reset(s, t)
    tcp_finish(s, t, NS_REASON_TIMEOUT)


cdef inline bint timed_out(const netstack *s, const tcp_flow *t) noexcept nogil:
    return t.user_timeout_s != 0 and \
        s.now_ms - t.stalled_ms >= <uint32_t> t.user_timeout_s * 1000


cdef void handshake(netstack *s, tcp_flow *t) noexcept nogil:
    if t.backoff >= HANDSHAKE_TRIES or timed_out(s, t):
        if t.state == TCP_SYN_RECEIVED:
            tcp_reset(s, t)
        tcp_finish(s, t, NS_REASON_TIMEOUT)
        return
    t.backoff += 1
    t.timer = TIMER_OFF
    t.flags |= TF_ACK_NOW
    s.statistics.retransmits += 1
    tcp_ready(s, t)


cdef void persist(netstack *s, tcp_flow *t) noexcept nogil:
    cdef uint32_t wait_ms = tcp_rto_ms(s, t)

    if t.probes == 0:
        t.stalled_ms = s.now_ms
    elif timed_out(s, t):
        give_up(s, t)
        return
    if t.probes < 32:
        t.probes += 1
    wait_ms <<= t.probes if t.probes < 9 else 9
    s.statistics.window_probes += 1
    t.flags |= TF_PROBE
    tcp_ready(s, t)
    tcp_set_timer(s, t, TIMER_PERSIST, wait_ms if wait_ms < PERSIST_MAX_MS else PERSIST_MAX_MS)


cdef void send_timer(netstack *s, tcp_flow *t) noexcept nogil:
    if t.timer == TIMER_HANDSHAKE:
        handshake(s, t)
    elif t.timer == TIMER_PERSIST:
        persist(s, t)
    elif t.timer == TIMER_TLP:
        recovery_tail_probe(s, t)
    elif t.timer == TIMER_REORDER:
        recovery_reorder(s, t)
    elif timed_out(s, t):
        give_up(s, t)
    else:
        recovery_timeout(s, t)


cdef void idle_timer(netstack *s, tcp_flow *t) noexcept nogil:
    cdef uint32_t silent_ms = s.now_ms - t.last_rx_ms, keepalive_ms

    t.idle_due_ms = 0
    if t.state == TCP_FIN_WAIT_2 and t.flags & TF_ORPHAN:
        tcp_finish(s, t, NS_REASON_TIMEOUT)
        return
    keepalive_ms = <uint32_t> t.keepalive_s * 1000
    if keepalive_ms == 0:
        return
    if silent_ms < keepalive_ms:
        t.probes = 0
        t.idle_due_ms = s.now_ms + (keepalive_ms - silent_ms)
    elif t.snd_nxt != t.snd_una or t.timer == TIMER_PERSIST:
        # Retransmissions and probes ask already.
        t.idle_due_ms = s.now_ms + keepalive_ms
    elif t.probes >= KEEPALIVE_PROBES:
        give_up(s, t)
        return
    else:
        t.probes += 1
        s.statistics.keepalives += 1
        t.flags |= TF_PROBE
        tcp_ready(s, t)
        t.idle_due_ms = s.now_ms + KEEPALIVE_INTERVAL_MS
    if t.idle_due_ms == 0:
        t.idle_due_ms = 1


cdef void tcp_timer(netstack *s, tcp_flow *t) noexcept nogil:
    if t.state == TCP_CLOSED or t.state == TCP_FREE:
        return
    if t.flags & TF_ACK_DELAYED and at_or_after(s.now_ms, t.ack_due_ms):
        t.flags &= ~<uint32_t> TF_ACK_DELAYED
        receive_owe_ack(s, t, True)
    if t.timer != TIMER_OFF and at_or_after(s.now_ms, t.send_due_ms):
        send_timer(s, t)
        if t.state == TCP_CLOSED or t.state == TCP_FREE:
            return
    if t.idle_due_ms != 0 and at_or_after(s.now_ms, t.idle_due_ms):
        idle_timer(s, t)
        if t.state == TCP_CLOSED or t.state == TCP_FREE:
            return
    tcp_arm(s, t)
