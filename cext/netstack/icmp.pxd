# SPDX-License-Identifier: Apache-2.0
# ICMP and ICMPv6: errors and echo, both ways.
from libc.stdint cimport uint8_t, uint16_t, uint32_t

from cext.netstack.layout cimport flow_tuple, icmp_error, netstack
from cext.wire.ip cimport ip_info


cdef enum icmp_kind:
    ICMP_IGNORED
    ICMP_ECHO_REQUEST
    ICMP_ECHO_REPLY
    ICMP_ERROR


# What an ICMP packet is; `error` is filled in for ICMP_ERROR. Counts what it ignores.
cdef icmp_kind icmp_parse(netstack *s, const uint8_t *packet, const ip_info *info,
                          icmp_error *error) noexcept nogil
# Answer a packet with an error as an enum ns_refusal says (not NS_REFUSE_RESET).
cdef void icmp_refuse(netstack *s, const uint8_t *packet, uint32_t length, uint32_t refusal,
                      uint32_t peer) noexcept nogil
cdef void icmp_time_exceeded(netstack *s, const uint8_t *packet, uint32_t length,
                             uint32_t peer) noexcept nogil
# The same for a flow whose packet is gone: one is made up from the tuple; `seq` is for TCP.
cdef void icmp_refuse_tuple(netstack *s, const flow_tuple *tuple, uint32_t protocol,
                            uint32_t seq, uint32_t refusal, uint32_t peer) noexcept nogil
# Send an echo message; `request` or reply.
cdef bint icmp_send_echo(netstack *s, const flow_tuple *tuple, bint request, uint16_t sequence,
                         const uint8_t *data, uint32_t length, uint32_t ttl, uint32_t owner,
                         uint32_t peer) noexcept nogil
# Whether another error or reset may be sent in this second.
cdef bint error_allowed(netstack *s) noexcept nogil
