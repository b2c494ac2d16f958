# SPDX-License-Identifier: Apache-2.0
# UDP and echo flows.
from libc.stdint cimport uint8_t, uint32_t

from cext.netstack.layout cimport flow_tuple, icmp_error, netstack, ns_datagram, udp_flow
from cext.wire.ip cimport ip_info


cdef void udp_input(netstack *s, const uint8_t *packet, const ip_info *info,
                    uint32_t peer) noexcept nogil
# An echo request for somebody else, or an echo reply.
cdef void echo_input(netstack *s, const uint8_t *packet, const ip_info *info, bint request,
                     uint32_t peer) noexcept nogil
cdef void udp_error(netstack *s, const icmp_error *error) noexcept nogil
cdef void udp_timer(netstack *s, udp_flow *u) noexcept nogil
# NULL when the table is full and nothing may go.
cdef udp_flow *udp_open(netstack *s, const flow_tuple *tuple, uint32_t protocol, uint32_t peer,
                        bint passive) noexcept nogil
cdef void udp_free(netstack *s, udp_flow *u) noexcept nogil
cdef int udp_send(netstack *s, udp_flow *u, const ns_datagram *d) noexcept nogil
cdef uint32_t udp_handle(const netstack *s, const udp_flow *u) noexcept nogil
# 0, or the number of an invariant that does not hold.
cdef int udp_check(netstack *s) noexcept nogil
