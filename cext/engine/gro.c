/* SPDX-License-Identifier: Apache-2.0 */
/* Which packets may be written as one, and as what; see gro.h. */
#include "engine/gro.h"

#include <string.h>

#include "base/endian.h"
#include "wire/checksum.h"
#include "wire/ip.h"

#define JOINABLE_TCP_FLAGS (TCP_ACK | TCP_PSH | TCP_ECE)

/* What one look at a packet says. */
struct look {
	const uint8_t *data;
	uint32_t len;
	uint8_t version;
	uint8_t protocol;
	uint8_t l4_offset;
	uint8_t header_len;
	bool has_flow;	/* ports are readable */
	bool joinable;	/* may begin or join a group */
};

static void look_at_tcp(struct look *l)
{
	const uint8_t *tcp = l->data + l->l4_offset;
	uint32_t header;

	if (l->len - l->l4_offset < TCP_MIN_LEN)
		return;
	header = l->l4_offset + (tcp[TCP_DATA_OFFSET] >> 4) * 4u;
	l->has_flow = true;
	if (header < (uint32_t)l->l4_offset + TCP_MIN_LEN || header >= l->len)
		return;
	l->header_len = (uint8_t)header;
	l->joinable = tcp[TCP_FLAGS] & TCP_ACK && !(tcp[TCP_FLAGS] & ~JOINABLE_TCP_FLAGS);
}

static void look_at_udp(struct look *l)
{
	const uint8_t *udp = l->data + l->l4_offset;

	if (l->len - l->l4_offset < UDP_LEN)
		return;
	l->has_flow = true;
	l->header_len = (uint8_t)(l->l4_offset + UDP_LEN);
	l->joinable = l->len > l->header_len && load_be16(udp + UDP_CHECKSUM) != 0 &&
		      load_be16(udp + UDP_LENGTH) == l->len - l->l4_offset;
}

static void look_at(struct look *l, const struct gro_packet *p, bool tcp, bool udp)
{
	const uint8_t *d = p->data;

	memset(l, 0, sizeof(*l));
	l->data = d;
	l->len = p->len;
	if (p->len < IPV4_MIN_LEN)
		return;
	l->version = (uint8_t)ip_version(d);
	if (d[0] == 0x45) {
		uint16_t fragment = load_be16(d + IPV4_FRAGMENT);

		if (load_be16(d + IPV4_TOTAL_LEN) != p->len ||
		    fragment & (IPV4_MORE_FRAGMENTS | IPV4_FRAGMENT_OFFSET))
			return;
		l->protocol = d[IPV4_PROTOCOL];
		l->l4_offset = IPV4_MIN_LEN;
	} else if (l->version == 6 && p->len >= IPV6_LEN) {
		if (IPV6_LEN + load_be16(d + IPV6_PAYLOAD_LEN) != p->len)
			return;
		l->protocol = d[IPV6_NEXT_HEADER];
		l->l4_offset = IPV6_LEN;
	} else {
		return;
	}
	if (l->protocol == IP_PROTOCOL_TCP && tcp)
		look_at_tcp(l);
	else if (l->protocol == IP_PROTOCOL_UDP && udp)
		look_at_udp(l);
	/* The host would drop it; a group would hide it. */
	if (l->joinable && l->version == 4)
		l->joinable = checksum_valid(checksum_add(0, d, IPV4_MIN_LEN));
}

static bool same_flow(const struct look *l, const uint8_t *first, const struct gro_group *g)
{
	if (l->protocol != g->protocol || l->l4_offset != g->l4_offset)
		return false;
	if (memcmp(l->data + l->l4_offset, first + l->l4_offset, 4) != 0)
		return false;
	if (l->version == 4)
		return memcmp(l->data + IPV4_SOURCE, first + IPV4_SOURCE, 8) == 0;
	return memcmp(l->data + IPV6_SOURCE, first + IPV6_SOURCE, 32) == 0;
}

static bool checksum_is_right(const uint8_t *d, uint32_t len, uint32_t l4_offset,
			      uint8_t protocol)
{
	uint64_t sum;

	if (l4_offset == IPV4_MIN_LEN)
		sum = checksum_pseudo(d + IPV4_SOURCE, 4, protocol, len - l4_offset);
	else
		sum = checksum_pseudo(d + IPV6_SOURCE, 16, protocol, len - l4_offset);
	return checksum_valid(checksum_add(sum, d + l4_offset, len - l4_offset));
}

static bool ip_headers_match(const struct look *l, const uint8_t *first,
			     const struct gro_group *g)
{
	if (l->version == 6)
		return memcmp(l->data, first, 4) == 0 &&
		       l->data[IPV6_HOP_LIMIT] == first[IPV6_HOP_LIMIT];
	if (l->data[IPV4_TOS] != first[IPV4_TOS] || l->data[IPV4_TTL] != first[IPV4_TTL] ||
	    memcmp(l->data + IPV4_FRAGMENT, first + IPV4_FRAGMENT, 2) != 0)
		return false;
	return load_be16(first + IPV4_FRAGMENT) & IPV4_DONT_FRAGMENT ||
	       load_be16(l->data + IPV4_ID) == (uint16_t)(load_be16(first + IPV4_ID) + g->count);
}

static bool tcp_headers_match(const struct look *l, const uint8_t *first,
			      const struct gro_group *g)
{
	const uint8_t *a = l->data + l->l4_offset, *b = first + l->l4_offset;

	return load_be32(a + TCP_SEQUENCE) == g->sequence &&
	       /* acknowledgement and data offset */
	       memcmp(a + TCP_ACKNOWLEDGEMENT, b + TCP_ACKNOWLEDGEMENT, 5) == 0 &&
	       (a[TCP_FLAGS] & ~TCP_PSH) == b[TCP_FLAGS] &&
	       memcmp(a + TCP_WINDOW, b + TCP_WINDOW, 2) == 0 &&
	       memcmp(a + TCP_URGENT, b + TCP_URGENT,
		      (size_t)(l->header_len - l->l4_offset - TCP_URGENT)) == 0;
}

/* Everything but the checksums, which cost most. */
static bool may_join(const struct look *l, const uint8_t *first, const struct gro_group *g)
{
	uint32_t payload = l->len - l->header_len;

	if (!l->joinable || l->header_len != g->header_len || payload > g->segment_len ||
	    g->bytes + payload > GRO_BYTES_MAX)
		return false;
	if (!ip_headers_match(l, first, g))
		return false;
	if (l->protocol == IP_PROTOCOL_TCP)
		return tcp_headers_match(l, first, g);
	return g->count < GRO_UDP_SEGMENTS_MAX;
}

static void close_group(struct gro_batch *b, unsigned int at)
{
	b->groups[b->open[at]].closed = true;
	b->open_count--;
	memmove(&b->open[at], &b->open[at + 1], (b->open_count - at) * sizeof(b->open[0]));
}

static bool ends_group(const struct look *l, const struct gro_group *g)
{
	if (l->len - l->header_len < g->segment_len)
		return true;
	return l->protocol == IP_PROTOCOL_TCP &&
	       l->data[l->l4_offset + TCP_FLAGS] & TCP_PSH;
}

/* Return: whether packet @i is now part of an open group. */
static bool join(struct gro_batch *b, uint16_t i, const struct look *l)
{
	for (unsigned int at = b->open_count; at-- > 0;) {
		struct gro_group *g = &b->groups[b->open[at]];
		const struct gro_packet *first = &b->packets[g->first];

		if (!same_flow(l, first->data, g))
			continue;
		if (!may_join(l, first->data, g)) {
			close_group(b, at);
			return false;
		}
		if (!g->verified &&
		    !checksum_is_right(first->data, first->len, g->l4_offset, g->protocol)) {
			close_group(b, at);
			return false;
		}
		g->verified = true;
		if (!checksum_is_right(l->data, l->len, l->l4_offset, l->protocol)) {
			close_group(b, at);
			return false;
		}
		b->packets[g->last].next = i;
		g->last = i;
		g->count++;
		g->bytes += l->len - l->header_len;
		g->sequence += l->len - l->header_len;
		if (ends_group(l, g))
			close_group(b, at);
		return true;
	}
	return false;
}

static void begin(struct gro_batch *b, uint16_t i, const struct look *l)
{
	struct gro_group *g = &b->groups[b->group_count];

	memset(g, 0, sizeof(*g));
	g->first = i;
	g->last = i;
	g->count = 1;
	g->bytes = l->len;
	g->closed = !l->joinable;
	if (g->closed) {
		b->group_count++;
		return;
	}
	g->segment_len = (uint16_t)(l->len - l->header_len);
	g->l4_offset = l->l4_offset;
	g->header_len = l->header_len;
	g->protocol = l->protocol;
	if (l->protocol == IP_PROTOCOL_TCP)
		g->sequence = load_be32(l->data + l->l4_offset + TCP_SEQUENCE) + g->segment_len;
	if (ends_group(l, g)) {
		g->closed = true;
	} else {
		if (b->open_count == GRO_OPEN_MAX)
			close_group(b, 0);
		b->open[b->open_count++] = b->group_count;
	}
	b->group_count++;
}

void gro_coalesce(struct gro_batch *b, bool tcp, bool udp)
{
	struct look l;

	b->group_count = 0;
	b->open_count = 0;
	for (uint16_t i = 0; i < b->packet_count; i++) {
		b->packets[i].next = GRO_NONE;
		look_at(&l, &b->packets[i], tcp, udp);
		if (!l.has_flow || !join(b, i, &l))
			begin(b, i, &l);
	}
}

/* Make the first packet's header that of the whole group. */
static void rewrite(struct gro_batch *b, const struct gro_group *g, struct vnet_header *header)
{
	uint8_t *d = b->packets[g->first].data, *l4 = d + g->l4_offset;
	const uint8_t *last = b->packets[g->last].data;
	uint32_t l4_len = g->bytes - g->l4_offset;
	uint64_t sum;

	if (g->l4_offset == IPV4_MIN_LEN) {
		store_be16(d + IPV4_TOTAL_LEN, (uint16_t)g->bytes);
		store_be16(d + IPV4_CHECKSUM, 0);
		checksum_store(d + IPV4_CHECKSUM, checksum_add(0, d, IPV4_MIN_LEN));
		sum = checksum_pseudo(d + IPV4_SOURCE, 4, g->protocol, l4_len);
		header->gso_type = VNET_GSO_TCPV4;
	} else {
		store_be16(d + IPV6_PAYLOAD_LEN, (uint16_t)(g->bytes - IPV6_LEN));
		sum = checksum_pseudo(d + IPV6_SOURCE, 16, g->protocol, l4_len);
		header->gso_type = VNET_GSO_TCPV6;
	}
	if (g->protocol == IP_PROTOCOL_TCP) {
		l4[TCP_FLAGS] |= last[g->l4_offset + TCP_FLAGS] & TCP_PSH;
		header->checksum_offset = TCP_CHECKSUM;
	} else {
		store_be16(l4 + UDP_LENGTH, (uint16_t)l4_len);
		header->gso_type = VNET_GSO_UDP_L4;
		header->checksum_offset = UDP_CHECKSUM;
	}
	checksum_store_partial(l4 + header->checksum_offset, sum);
	header->flags = VNET_NEEDS_CHECKSUM;
	header->header_len = g->header_len;
	header->segment_len = g->segment_len;
	header->checksum_start = g->l4_offset;
}

unsigned int gro_vectors(struct gro_batch *b, unsigned int i, struct vnet_header *header,
			 struct iovec *vectors)
{
	const struct gro_group *g = &b->groups[i];
	const struct gro_packet *p = &b->packets[g->first];
	unsigned int n = 1;

	memset(header, 0, sizeof(*header));
	if (g->count > 1)
		rewrite(b, g, header);
	vectors[n].iov_base = p->data;
	vectors[n++].iov_len = p->len;
	while (p->next != GRO_NONE) {
		p = &b->packets[p->next];
		vectors[n].iov_base = p->data + g->header_len;
		vectors[n++].iov_len = (size_t)p->len - g->header_len;
	}
	return n;
}
