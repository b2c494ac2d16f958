# SPDX-License-Identifier: Apache-2.0
# How much may be in flight: initial window, slow start with HyStart++, CUBIC.
from libc.stdint cimport uint32_t, uint64_t

from cext.netstack.layout cimport netstack, tcp_flow


cdef void congestion_init(netstack *s, tcp_flow *t) noexcept nogil
# `acked` bytes left the network (cumulatively or by SACK) while nothing is missing.
cdef void congestion_acked(netstack *s, tcp_flow *t, uint32_t acked) noexcept nogil
# New data went out.
cdef void congestion_sent(tcp_flow *t) noexcept nogil
# One RTT sample of the present round, for HyStart++.
cdef void congestion_rtt(netstack *s, tcp_flow *t, uint32_t rtt_us) noexcept nogil
# Loss: the new ssthresh. cwnd is the caller's.
cdef void congestion_reduce(netstack *s, tcp_flow *t) noexcept nogil
# cwnd and ssthresh were given back what a needless reduction took.
cdef void congestion_undone(netstack *s, tcp_flow *t) noexcept nogil
# Nothing was sent for longer than an RTO (RFC 5681 section 4.1).
cdef void congestion_idle(netstack *s, tcp_flow *t, uint32_t idle_ms) noexcept nogil
# Integer cube root, rounded down; for CUBIC's K.
cdef uint32_t cube_root(uint64_t x) noexcept nogil
