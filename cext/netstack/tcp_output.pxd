# SPDX-License-Identifier: Apache-2.0
# Segments out: data where it stands, ACKs, SYNs, resets.
from libc.stdint cimport uint32_t

from cext.netstack.layout cimport flow_tuple, netstack, ns_packet, tcp_flow, time_wait
from cext.wire.tcp cimport tcp_segment


# The next packet of a flow, if it may send one now. Its memory is that of its block, or
# scratch that lasts as long as the batch.
cdef bint tcp_output(netstack *s, tcp_flow *t, ns_packet *out) noexcept nogil
# Queue an RST that answers a segment nobody wants (RFC 9293 section 3.10.7.1).
cdef void tcp_reset_segment(netstack *s, const flow_tuple *tuple, const tcp_segment *seg,
                            uint32_t peer) noexcept nogil
# Queue an RST for a flow that is given up.
cdef void tcp_reset(netstack *s, tcp_flow *t) noexcept nogil
# Queue a SYN-ACK for a request, or one that carries a cookie.
cdef void tcp_answer_syn(netstack *s, const flow_tuple *tuple, uint32_t iss, uint32_t irs,
                         uint32_t options, uint32_t ts_value, uint32_t ts_echo,
                         uint32_t window, uint32_t peer) noexcept nogil
# Queue an ACK for what is in TIME_WAIT.
cdef void tcp_answer_time_wait(netstack *s, const time_wait *w, uint32_t peer) noexcept nogil
# Queue an ACK at once, not only when the flow is asked for packets.
cdef void tcp_answer_flow(netstack *s, tcp_flow *t) noexcept nogil
