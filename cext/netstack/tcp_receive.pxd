# SPDX-License-Identifier: Apache-2.0
# What arrives: order, the consumer, the window, SACK blocks to report.
from libc.stdint cimport uint8_t, uint32_t

from cext.netstack.layout cimport netstack, tcp_flow


# Payload [seq, seq + length) of an acceptable segment, and whether a FIN follows it.
# Sets what is to be acknowledged; True when the FIN was reached in order.
cdef bint receive_segment(netstack *s, tcp_flow *t, uint32_t seq, const uint8_t *data,
                          uint32_t length, bint fin) noexcept nogil
# Give host.tcp_parts() what receive_segment() holds back for it.
cdef void receive_flush(netstack *s) noexcept nogil
# Whether a segment of a flow may join what is held, so that it need not be given first.
cdef bint receive_joins(const netstack *s, const tcp_flow *t, uint32_t seq,
                        uint32_t length) noexcept nogil
# The consumer has room again: give it what is parked. Sends a window update when it pays.
cdef void receive_resume(netstack *s, tcp_flow *t) noexcept nogil
# Copy parked bytes out; how many.
cdef uint32_t receive_copy(netstack *s, tcp_flow *t, uint8_t *out, uint32_t length) noexcept nogil
# The window to advertise now, in bytes; moves rcv_edge.
cdef uint32_t receive_window(netstack *s, tcp_flow *t) noexcept nogil
# Owe an ACK: at once, or within the delayed-ACK time.
cdef void receive_owe_ack(netstack *s, tcp_flow *t, bint now) noexcept nogil
# A segment lay wholly or in part below rcv_nxt: report it (RFC 2883).
cdef void receive_duplicate(netstack *s, tcp_flow *t, uint32_t start, uint32_t end) noexcept nogil
# 0, or the number of the rule that the queues break (tests and fuzzing).
cdef int receive_check(netstack *s, tcp_flow *t) noexcept nogil
