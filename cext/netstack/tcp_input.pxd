# SPDX-License-Identifier: Apache-2.0
# Segments in: the state machine of RFC 9293 section 3.10.7 with RFC 5961.
from libc.stdint cimport uint8_t, uint32_t

from cext.netstack.layout cimport icmp_error, netstack
from cext.wire.ip cimport ip_info


cdef void tcp_input(netstack *s, const uint8_t *packet, const ip_info *info,
                    uint32_t peer) noexcept nogil
cdef void tcp_icmp(netstack *s, const icmp_error *error) noexcept nogil
