/* SPDX-License-Identifier: Apache-2.0 */
/* Segmentation of TCP and UDP super-packets, IPv4 and IPv6. */
#include "engine/gso.h"

#include <string.h>

#include "base/endian.h"
#include "wire/checksum.h"
#include "wire/ip.h"

/* A packet that is one already; its checksum may be left to us. */
static enum drop_reason begin_whole(struct gso *g, const struct vnet_header *v)
{
	uint32_t at = (uint32_t)v->checksum_start + v->checksum_offset;

	g->kind = GSO_WHOLE;
	g->segments = 1;
	if (!(v->flags & VNET_NEEDS_CHECKSUM))
		return DROP_NONE;
	if (at + 2 > g->len)
		return DROP_HOST_BAD_VNET_HEADER;
	/* The field holds the pseudo header's sum and takes part. */
	checksum_store_udp(g->packet + at, checksum_add(0, g->packet + v->checksum_start,
							g->len - v->checksum_start));
	return DROP_NONE;
}

/* Where the transport header may begin; extension headers are the kernel's business. */
static bool l4_offset_is_right(const struct gso *g)
{
	if (g->version == 4)
		return g->l4_offset == (g->packet[0] & 15u) * 4 && g->l4_offset >= IPV4_MIN_LEN;
	return g->version == 6 && g->l4_offset >= IPV6_LEN;
}

static enum drop_reason begin_super(struct gso *g, const struct vnet_header *v)
{
	uint8_t type = v->gso_type & (uint8_t)~VNET_GSO_ECN;
	uint32_t l4_len = UDP_LEN, payload;

	g->l4_offset = v->checksum_start;
	g->segment_len = v->segment_len;
	g->ecn = (v->gso_type & VNET_GSO_ECN) != 0;
	if (!l4_offset_is_right(g) || g->segment_len == 0 || !(v->flags & VNET_NEEDS_CHECKSUM))
		return DROP_HOST_BAD_VNET_HEADER;
	if ((type == VNET_GSO_TCPV4 && g->version == 4) ||
	    (type == VNET_GSO_TCPV6 && g->version == 6)) {
		g->kind = GSO_TCP;
		if (g->l4_offset + TCP_MIN_LEN > g->len)
			return DROP_HOST_BAD_VNET_HEADER;
		l4_len = (g->packet[g->l4_offset + TCP_DATA_OFFSET] >> 4) * 4u;
		if (l4_len < TCP_MIN_LEN)
			return DROP_HOST_BAD_VNET_HEADER;
	} else if (type == VNET_GSO_UDP_L4) {
		g->kind = GSO_UDP;
	} else {
		return DROP_HOST_BAD_VNET_HEADER;
	}
	g->header_len = g->l4_offset + l4_len;
	if (g->header_len >= g->len)
		return DROP_HOST_BAD_VNET_HEADER;
	payload = g->len - g->header_len;
	g->segments = (payload + g->segment_len - 1) / g->segment_len;
	return DROP_NONE;
}

enum drop_reason gso_begin(struct gso *g, uint8_t *packet, uint32_t len,
			   const struct vnet_header *header)
{
	memset(g, 0, sizeof(*g));
	g->packet = packet;
	g->len = len;
	if (len < IPV4_MIN_LEN || len > UINT16_MAX + IPV6_LEN)
		return DROP_HOST_BAD_VNET_HEADER;
	g->version = (uint8_t)ip_version(packet);
	if (header->gso_type == VNET_GSO_NONE)
		return begin_whole(g, header);
	return begin_super(g, header);
}

/* Length and identification of the IP header; its checksum. */
static void finish_ip(const struct gso *g, uint32_t i, uint8_t *out, uint32_t len)
{
	if (g->version == 6) {
		store_be16(out + IPV6_PAYLOAD_LEN, (uint16_t)(len - IPV6_LEN));
		return;
	}
	store_be16(out + IPV4_TOTAL_LEN, (uint16_t)len);
	store_be16(out + IPV4_ID, (uint16_t)(load_be16(g->packet + IPV4_ID) + i));
	store_be16(out + IPV4_CHECKSUM, 0);
	checksum_store(out + IPV4_CHECKSUM, checksum_add(0, out, g->l4_offset));
}

static void finish_tcp_flags(const struct gso *g, uint32_t i, uint8_t *tcp)
{
	store_be32(tcp + TCP_SEQUENCE,
		   load_be32(g->packet + g->l4_offset + TCP_SEQUENCE) + i * g->segment_len);
	/* What ends the stream's piece belongs to the last, what begins it to the first. */
	if (i + 1 < g->segments)
		tcp[TCP_FLAGS] &= (uint8_t)~(TCP_FIN | TCP_PSH);
	if (i > 0 && g->ecn)
		tcp[TCP_FLAGS] &= (uint8_t)~TCP_CWR;
}

void gso_write(const struct gso *g, uint32_t i, uint8_t *out)
{
	uint32_t len = gso_packet_len(g, i), l4_len = len - g->l4_offset;
	uint8_t *l4 = out + g->l4_offset;
	uint64_t sum;

	if (g->kind == GSO_WHOLE) {
		memcpy(out, g->packet, g->len);
		return;
	}
	memcpy(out, g->packet, g->header_len);
	finish_ip(g, i, out, len);
	if (g->version == 4)
		sum = checksum_pseudo(out + IPV4_SOURCE, 4, out[IPV4_PROTOCOL], l4_len);
	else
		sum = checksum_pseudo(out + IPV6_SOURCE, 16,
				      g->kind == GSO_TCP ? IP_PROTOCOL_TCP : IP_PROTOCOL_UDP,
				      l4_len);
	if (g->kind == GSO_TCP) {
		finish_tcp_flags(g, i, l4);
		store_be16(l4 + TCP_CHECKSUM, 0);
	} else {
		store_be16(l4 + UDP_LENGTH, (uint16_t)l4_len);
		store_be16(l4 + UDP_CHECKSUM, 0);
	}
	sum = checksum_add(sum, l4, g->header_len - g->l4_offset);
	sum = checksum_copy(sum, out + g->header_len,
			    g->packet + g->header_len + i * g->segment_len, len - g->header_len);
	if (g->kind == GSO_TCP)
		checksum_store(l4 + TCP_CHECKSUM, sum);
	else
		checksum_store_udp(l4 + UDP_CHECKSUM, sum);
}
