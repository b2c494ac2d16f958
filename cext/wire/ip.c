/* SPDX-License-Identifier: Apache-2.0 */
/* A bounded walk over IP headers, and the ICMP errors that answer a packet. */
#include "wire/ip.h"

#include <string.h>

#include "wire/checksum.h"

#define EXTENSION_HEADERS_MAX 8

static bool parse_v4(struct ip_info *info, const uint8_t *p, size_t len)
{
	uint32_t header, total;
	uint16_t fragment;

	if (len < IPV4_MIN_LEN)
		return false;
	header = (p[0] & 15u) * 4;
	total = load_be16(p + IPV4_TOTAL_LEN);
	if (header < IPV4_MIN_LEN || total < header || total > len)
		return false;
	fragment = load_be16(p + IPV4_FRAGMENT);
	info->version = 4;
	info->protocol = p[IPV4_PROTOCOL];
	info->fragment = (fragment & (IPV4_MORE_FRAGMENTS | IPV4_FRAGMENT_OFFSET)) != 0;
	info->first_fragment = (fragment & IPV4_FRAGMENT_OFFSET) == 0;
	info->l4_offset = (uint16_t)header;
	info->addresses = IPV4_SOURCE;
	info->address_len = 4;
	info->total_len = total;
	return true;
}

static bool is_extension(uint8_t next)
{
	return next == IP_PROTOCOL_HOP_BY_HOP || next == IP_PROTOCOL_ROUTING ||
	       next == IP_PROTOCOL_FRAGMENT || next == IP_PROTOCOL_DESTINATION ||
	       next == IP_PROTOCOL_AH;
}

static bool parse_v6(struct ip_info *info, const uint8_t *p, size_t len)
{
	uint32_t at = IPV6_LEN, total, step;
	uint8_t next;

	if (len < IPV6_LEN)
		return false;
	total = IPV6_LEN + (uint32_t)load_be16(p + IPV6_PAYLOAD_LEN);
	if (total > len)
		return false;
	info->version = 6;
	info->fragment = false;
	info->first_fragment = true;
	info->addresses = IPV6_SOURCE;
	info->address_len = 16;
	info->total_len = total;
	next = p[IPV6_NEXT_HEADER];
	for (int i = 0; is_extension(next) && info->first_fragment; i++) {
		if (i == EXTENSION_HEADERS_MAX || total - at < 8)
			return false;
		if (next == IP_PROTOCOL_FRAGMENT) {
			uint16_t field = load_be16(p + at + 2);

			step = 8;
			info->fragment = (field & 0xfff9u) != 0;
			info->first_fragment = (field & 0xfff8u) == 0;
		} else if (next == IP_PROTOCOL_AH) {
			step = (p[at + 1] + 2u) * 4;
		} else {
			step = (p[at + 1] + 1u) * 8;
		}
		if (step > total - at)
			return false;
		next = p[at];
		at += step;
	}
	info->protocol = next;
	info->l4_offset = (uint16_t)at;
	return true;
}

bool ip_parse(struct ip_info *info, const uint8_t *packet, size_t len)
{
	if (len == 0)
		return false;
	switch (ip_version(packet)) {
	case 4:
		return parse_v4(info, packet, len);
	case 6:
		return parse_v6(info, packet, len);
	default:
		return false;
	}
}

/* Whether a host could have sent it, and to a single other one. */
static bool is_single_host_v4(const uint8_t *a)
{
	return a[0] != 0 && a[0] < 224;
}

static bool is_single_host_v6(const uint8_t *a)
{
	static const uint8_t unspecified[16];

	return a[0] != 0xff && memcmp(a, unspecified, 16) != 0;
}

static bool may_answer(const struct ip_info *info, const uint8_t *p)
{
	const uint8_t *source = p + info->addresses;
	const uint8_t *l4 = p + info->l4_offset;

	if (!info->first_fragment)
		return false;
	if (info->version == 4) {
		if (!is_single_host_v4(source) || !is_single_host_v4(source + 4))
			return false;
		if (info->protocol != IP_PROTOCOL_ICMP)
			return true;
		/* Of ICMP only the queries: echo, timestamp and their replies. */
		return info->total_len > info->l4_offset &&
		       (l4[0] == 0 || l4[0] == 8 || l4[0] == 13 || l4[0] == 14);
	}
	if (!is_single_host_v6(source) || source[16] == 0xff)
		return false;
	if (info->protocol != IP_PROTOCOL_ICMPV6)
		return true;
	return info->total_len > info->l4_offset && l4[0] >= 128 && l4[0] < 133;
}

/* Fill in an error of @type and @code that quotes as much as it may. */
static size_t icmp_error(uint8_t *out, const uint8_t *packet, size_t len, const uint8_t *source,
			 uint8_t type_v4, uint8_t code_v4, uint8_t type_v6, uint8_t code_v6,
			 uint32_t value)
{
	struct ip_info info;
	size_t quoted, total;
	uint64_t from = 0;
	uint8_t *icmp;

	if (!ip_parse(&info, packet, len) || !may_answer(&info, packet))
		return 0;
	if (!source)
		source = packet + info.addresses + info.address_len;
	memset(out, 0, IPV6_LEN + ICMP_LEN);
	if (info.version == 4) {
		quoted = info.total_len < 576 - 28 ? info.total_len : 576 - 28;
		total = IPV4_MIN_LEN + ICMP_LEN + quoted;
		out[0] = 0x45;
		out[IPV4_TOS] = 0xc0; /* RFC 1812 4.3.2.5: internetwork control */
		store_be16(out + IPV4_TOTAL_LEN, (uint16_t)total);
		out[IPV4_TTL] = 64;
		out[IPV4_PROTOCOL] = IP_PROTOCOL_ICMP;
		memcpy(out + IPV4_SOURCE, source, 4);
		memcpy(out + IPV4_DESTINATION, packet + IPV4_SOURCE, 4);
		checksum_store(out + IPV4_CHECKSUM, checksum_add(0, out, IPV4_MIN_LEN));
		icmp = out + IPV4_MIN_LEN;
		icmp[0] = type_v4;
		icmp[1] = code_v4;
	} else {
		quoted = IPV6_MIN_MTU - IPV6_LEN - ICMP_LEN;
		if (info.total_len < quoted)
			quoted = info.total_len;
		total = IPV6_LEN + ICMP_LEN + quoted;
		out[0] = 0x60;
		store_be16(out + IPV6_PAYLOAD_LEN, (uint16_t)(ICMP_LEN + quoted));
		out[IPV6_NEXT_HEADER] = IP_PROTOCOL_ICMPV6;
		out[IPV6_HOP_LIMIT] = 64;
		memcpy(out + IPV6_SOURCE, source, 16);
		memcpy(out + IPV6_DESTINATION, packet + IPV6_SOURCE, 16);
		icmp = out + IPV6_LEN;
		icmp[0] = type_v6;
		icmp[1] = code_v6;
		from = checksum_pseudo(out + IPV6_SOURCE, 16, IP_PROTOCOL_ICMPV6,
				       (uint32_t)(ICMP_LEN + quoted));
	}
	store_be32(icmp + 4, value);
	memcpy(icmp + ICMP_LEN, packet, quoted);
	checksum_store(icmp + ICMP_CHECKSUM, checksum_add(from, icmp, ICMP_LEN + quoted));
	return total;
}

size_t ip_icmp_unreachable(uint8_t *out, const uint8_t *packet, size_t len,
			   const uint8_t *source, uint8_t code_v4, uint8_t code_v6)
{
	return icmp_error(out, packet, len, source, 3, code_v4, 1, code_v6, 0);
}

size_t ip_icmp_too_big(uint8_t *out, const uint8_t *packet, size_t len, const uint8_t *source,
		       uint16_t mtu)
{
	return icmp_error(out, packet, len, source, 3, 4, 2, 0, mtu);
}

size_t ip_icmp_time_exceeded(uint8_t *out, const uint8_t *packet, size_t len,
			     const uint8_t *source)
{
	return icmp_error(out, packet, len, source, 11, 0, 3, 0, 0);
}
