/* SPDX-License-Identifier: Apache-2.0 */
/* Layout of IPv4, IPv6, TCP, UDP and ICMP headers, and one bounded look at a packet. */
#ifndef WT_WIRE_IP_H
#define WT_WIRE_IP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/endian.h"

/* Offsets from the start of each header; RFC 791, 8200, 9293, 768, 792, 4443. */
enum {
	IPV4_MIN_LEN = 20,
	IPV4_TOS = 1,
	IPV4_TOTAL_LEN = 2,
	IPV4_ID = 4,
	IPV4_FRAGMENT = 6,
	IPV4_TTL = 8,
	IPV4_PROTOCOL = 9,
	IPV4_CHECKSUM = 10,
	IPV4_SOURCE = 12,
	IPV4_DESTINATION = 16,
	IPV4_DONT_FRAGMENT = 0x4000,
	IPV4_MORE_FRAGMENTS = 0x2000,
	IPV4_FRAGMENT_OFFSET = 0x1fff,

	IPV6_LEN = 40,
	IPV6_PAYLOAD_LEN = 4,
	IPV6_NEXT_HEADER = 6,
	IPV6_HOP_LIMIT = 7,
	IPV6_SOURCE = 8,
	IPV6_DESTINATION = 24,
	IPV6_MIN_MTU = 1280,

	TCP_MIN_LEN = 20,
	TCP_SEQUENCE = 4,
	TCP_ACKNOWLEDGEMENT = 8,
	TCP_DATA_OFFSET = 12,
	TCP_FLAGS = 13,
	TCP_WINDOW = 14,
	TCP_CHECKSUM = 16,
	TCP_URGENT = 18,
	TCP_FIN = 0x01,
	TCP_SYN = 0x02,
	TCP_RST = 0x04,
	TCP_PSH = 0x08,
	TCP_ACK = 0x10,
	TCP_URG = 0x20,
	TCP_ECE = 0x40,
	TCP_CWR = 0x80,

	UDP_LEN = 8,
	UDP_LENGTH = 4,
	UDP_CHECKSUM = 6,

	ICMP_LEN = 8,
	ICMP_CHECKSUM = 2,
};

enum ip_protocol {
	IP_PROTOCOL_HOP_BY_HOP = 0,
	IP_PROTOCOL_ICMP = 1,
	IP_PROTOCOL_TCP = 6,
	IP_PROTOCOL_UDP = 17,
	IP_PROTOCOL_ROUTING = 43,
	IP_PROTOCOL_FRAGMENT = 44,
	IP_PROTOCOL_AH = 51,
	IP_PROTOCOL_ICMPV6 = 58,
	IP_PROTOCOL_NONE = 59,
	IP_PROTOCOL_DESTINATION = 60,
};

/**
 * struct ip_info - Where the parts of one packet are; offsets from its first byte
 * @version:	4 or 6
 * @protocol:	Upper layer protocol, behind any extension headers
 * @first_fragment: False for a fragment that does not begin with the upper layer
 * @fragment:	Part of a fragmented packet
 * @l4_offset:	Where the upper layer begins; == @total_len when there is none
 * @total_len:	Length by the header; never more than the bytes that are there
 * @addresses:	Offset of the source address, the destination right behind it
 * @address_len: 4 or 16
 */
struct ip_info {
	uint8_t version;
	uint8_t protocol;
	bool first_fragment;
	bool fragment;
	uint16_t l4_offset;
	uint16_t addresses;
	uint16_t address_len;
	uint32_t total_len;
};

/** ip_version() - 4, 6 or whatever else the first nibble says */
static inline unsigned int ip_version(const uint8_t *packet)
{
	return packet[0] >> 4;
}

/**
 * ip_parse() - Check the IP header's lengths and find the upper layer
 * @info:	Filled on success
 * @packet:	First byte of the IP header
 * @len:	Bytes that are there; padding behind the packet is fine
 *
 * IPv6 extension headers are walked, at most eight of them.  The header
 * checksum and everything above the IP layer are not looked at.
 *
 * Return: false if this is no whole IPv4 or IPv6 packet
 */
bool ip_parse(struct ip_info *info, const uint8_t *packet, size_t len);

/**
 * ip_icmp_unreachable() - Write the ICMP or ICMPv6 error that answers a packet
 * @out:	Room for IP_ICMP_ERROR_MAX bytes
 * @packet:	The packet that cannot be passed on
 * @len:	Its length
 * @source:	4 or 16 bytes: whom the error comes from; NULL takes the
 *		packet's own destination
 * @code_v4:	Code of an ICMP type 3 message, e.g. 1: host unreachable
 * @code_v6:	Code of an ICMPv6 type 1 message, e.g. 3: address unreachable
 *
 * RFC 1122 3.2.2 and RFC 4443 2.4: nothing answers an ICMP error, a fragment
 * that is not the first, or a packet to or from no single host.
 *
 * Return: bytes written; 0 when no error may be sent
 */
size_t ip_icmp_unreachable(uint8_t *out, const uint8_t *packet, size_t len,
			   const uint8_t *source, uint8_t code_v4, uint8_t code_v6);

/**
 * ip_icmp_too_big() - The same for a packet larger than the path's MTU
 * @mtu:	What would fit (RFC 1191 "fragmentation needed", RFC 4443 "too big")
 */
size_t ip_icmp_too_big(uint8_t *out, const uint8_t *packet, size_t len, const uint8_t *source,
		       uint16_t mtu);

/** ip_icmp_time_exceeded() - The same for a packet whose TTL or hop limit ran out */
size_t ip_icmp_time_exceeded(uint8_t *out, const uint8_t *packet, size_t len,
			     const uint8_t *source);

/* An ICMPv6 error fills at most the minimum MTU; ours for v4 stop at 576 bytes. */
#define IP_ICMP_ERROR_MAX 1280

#endif /* WT_WIRE_IP_H */
