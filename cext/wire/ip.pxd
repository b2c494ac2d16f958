# SPDX-License-Identifier: Apache-2.0
from libc.stdint cimport uint8_t, uint16_t, uint32_t


cdef extern from "wire/ip.h" nogil:
    enum:
        IPV4_MIN_LEN
        IPV4_TOS
        IPV4_TOTAL_LEN
        IPV4_ID
        IPV4_FRAGMENT
        IPV4_TTL
        IPV4_PROTOCOL
        IPV4_CHECKSUM
        IPV4_SOURCE
        IPV4_DESTINATION
        IPV4_DONT_FRAGMENT
        IPV4_MORE_FRAGMENTS
        IPV4_FRAGMENT_OFFSET
        IPV6_LEN
        IPV6_PAYLOAD_LEN
        IPV6_NEXT_HEADER
        IPV6_HOP_LIMIT
        IPV6_SOURCE
        IPV6_DESTINATION
        IPV6_MIN_MTU
        TCP_MIN_LEN
        TCP_SEQUENCE
        TCP_ACKNOWLEDGEMENT
        TCP_DATA_OFFSET
        TCP_FLAGS
        TCP_WINDOW
        TCP_CHECKSUM
        TCP_URGENT
        TCP_FIN
        TCP_SYN
        TCP_RST
        TCP_PSH
        TCP_ACK
        TCP_URG
        TCP_ECE
        TCP_CWR
        UDP_LEN
        UDP_LENGTH
        UDP_CHECKSUM
        ICMP_LEN
        ICMP_CHECKSUM
        IP_PROTOCOL_HOP_BY_HOP
        IP_PROTOCOL_ICMP
        IP_PROTOCOL_TCP
        IP_PROTOCOL_UDP
        IP_PROTOCOL_ROUTING
        IP_PROTOCOL_FRAGMENT
        IP_PROTOCOL_AH
        IP_PROTOCOL_ICMPV6
        IP_PROTOCOL_NONE
        IP_PROTOCOL_DESTINATION
        IP_ICMP_ERROR_MAX

    struct ip_info:
        uint8_t version
        uint8_t protocol
        bint first_fragment
        bint fragment
        uint16_t l4_offset
        uint16_t addresses
        uint16_t address_len
        uint32_t total_len

    unsigned int ip_version(const uint8_t *packet)
    bint ip_parse(ip_info *info, const uint8_t *packet, size_t length)
    size_t ip_icmp_unreachable(uint8_t *out, const uint8_t *packet, size_t length,
                               const uint8_t *source, uint8_t code_v4, uint8_t code_v6)
    size_t ip_icmp_too_big(uint8_t *out, const uint8_t *packet, size_t length,
                           const uint8_t *source, uint16_t mtu)
    size_t ip_icmp_time_exceeded(uint8_t *out, const uint8_t *packet, size_t length,
                                 const uint8_t *source)
