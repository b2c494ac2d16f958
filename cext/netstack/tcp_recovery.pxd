# SPDX-License-Identifier: Apache-2.0
# What to do about loss: RACK-TLP, PRR, timeouts, undo.
from libc.stdint cimport uint32_t

from cext.netstack.layout cimport netstack, tcp_flow
from cext.netstack.tcp_scoreboard cimport ack_sample
from cext.wire.tcp cimport tcp_segment


# An acceptable ACK was entered into the scoreboard. `duplicate`: it is one by RFC 5681.
cdef void recovery_ack(netstack *s, tcp_flow *t, const tcp_segment *seg, ack_sample *sample,
                       bint duplicate) noexcept nogil
# RFC 6298: an RTT sample.
cdef void recovery_rtt(netstack *s, tcp_flow *t, uint32_t rtt_us) noexcept nogil
# The timers that belong here have fired.
cdef void recovery_timeout(netstack *s, tcp_flow *t) noexcept nogil
cdef void recovery_tail_probe(netstack *s, tcp_flow *t) noexcept nogil
cdef void recovery_reorder(netstack *s, tcp_flow *t) noexcept nogil
# Choose and set the timer for what is in flight; after ACKs and transmissions. `restart`
# pushes a running RTO back (RFC 6298 rule 5.3).
cdef void recovery_set_timer(netstack *s, tcp_flow *t, bint restart) noexcept nogil
# The path's MTU shrank: what is larger than the new MSS is sent again, without blame.
cdef void recovery_mtu(netstack *s, tcp_flow *t) noexcept nogil
