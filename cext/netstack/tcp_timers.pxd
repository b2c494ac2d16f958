# SPDX-License-Identifier: Apache-2.0
# What happens to a flow when its time has come.
from cext.netstack.layout cimport netstack, tcp_flow


# The wheel has popped the flow's timer.
cdef void tcp_timer(netstack *s, tcp_flow *t) noexcept nogil
# Begin to count idleness anew: keepalive, or the end of FIN_WAIT_2.
cdef void tcp_idle_start(netstack *s, tcp_flow *t) noexcept nogil
