# SPDX-License-Identifier: Apache-2.0
# Connections that others open: SYN requests, dials, listeners, SYN cookies.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cext.netstack.layout cimport flow_tuple, netstack, syn_request, tcp_flow
from cext.wire.ip cimport ip_info
from cext.wire.tcp cimport tcp_segment


# A SYN for which there is no flow. `floor`, when `reused`: the new initial sequence
# number must lie beyond it (RFC 6191).
cdef void listener_syn(netstack *s, const flow_tuple *tuple, const tcp_segment *seg,
                       const uint8_t *packet, const ip_info *info, uint32_t peer, bint reused,
                       uint32_t floor) noexcept nogil
# A segment for a request. The flow it became, for which the segment is to go on; or NULL.
cdef tcp_flow *listener_request(netstack *s, syn_request *r,
                                const tcp_segment *seg) noexcept nogil
# An ACK without a flow: the answer to a cookie of ours? The flow, or NULL; `later` when it
# was one but there is no room: its sender tries again.
cdef tcp_flow *listener_cookie(netstack *s, const flow_tuple *tuple, const tcp_segment *seg,
                               uint32_t peer, bint *later) noexcept nogil
# The consumer's decision about a dial.
cdef tcp_flow *listener_accept(netstack *s, syn_request *r, uint64_t user,
                               uint32_t receive_space) noexcept nogil
cdef void listener_refuse(netstack *s, syn_request *r, uint32_t refusal) noexcept nogil
cdef void listener_timer(netstack *s, syn_request *r) noexcept nogil
# A flow has become ESTABLISHED: first windows, timers, the event.
cdef void tcp_established(netstack *s, tcp_flow *t, uint32_t rtt_us) noexcept nogil
