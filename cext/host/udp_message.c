/* SPDX-License-Identifier: Apache-2.0 */
/* Socket addresses and control messages of the outer sockets. */
#define _GNU_SOURCE
#include "host/udp_message.h"

#include <string.h>

#include "host/kernel.h"

static socklen_t write_address(union udp_address *a, const struct endpoint *e)
{
	if (e->family == WT_AF_INET6) {
		memset(&a->v6, 0, sizeof(a->v6));
		a->v6.sin6_family = AF_INET6;
		a->v6.sin6_port = htons(e->port);
		a->v6.sin6_scope_id = e->scope_id;
		memcpy(&a->v6.sin6_addr, e->address, 16);
		return sizeof(a->v6);
	}
	memset(&a->v4, 0, sizeof(a->v4));
	a->v4.sin_family = AF_INET;
	a->v4.sin_port = htons(e->port);
	memcpy(&a->v4.sin_addr, e->address, 4);
	return sizeof(a->v4);
}

/* The next control message; msg_controllen grows by what was added. */
static void add_control(struct msghdr *h, struct udp_message *m, int level, int type,
			const void *value, size_t size)
{
	struct cmsghdr *c = (struct cmsghdr *)(void *)(m->control.bytes + h->msg_controllen);

	c->cmsg_level = level;
	c->cmsg_type = type;
	c->cmsg_len = CMSG_LEN(size);
	memcpy(CMSG_DATA(c), value, size);
	h->msg_control = m->control.bytes;
	h->msg_controllen += CMSG_SPACE(size);
}

static bool is_link_local(const uint8_t *a)
{
	return a[0] == 0xfe && (a[1] & 0xc0) == 0x80;
}

/*
 * Only the address is pinned, not the interface: routing may move to another
 * uplink that still owns the address.  Link-local addresses mean nothing
 * without their interface.
 */
static void add_source(struct msghdr *h, struct udp_message *m, const struct endpoint *e)
{
	if (e->family == WT_AF_INET6) {
		struct in6_pktinfo info;

		memset(&info, 0, sizeof(info));
		memcpy(&info.ipi6_addr, e->source, 16);
		if (is_link_local(e->source))
			info.ipi6_ifindex = e->source_ifindex;
		add_control(h, m, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof(info));
	} else {
		struct in_pktinfo info;

		memset(&info, 0, sizeof(info));
		memcpy(&info.ipi_spec_dst, e->source, 4);
		add_control(h, m, IPPROTO_IP, IP_PKTINFO, &info, sizeof(info));
	}
}

void udp_message_to(struct msghdr *h, struct udp_message *m, const struct udp_run *run,
		    const uint8_t *data, uint32_t len)
{
	memset(h, 0, sizeof(*h));
	memset(&m->control, 0, sizeof(m->control));
	h->msg_namelen = write_address(&m->address, &run->to);
	h->msg_name = &m->address;
	m->iov.iov_base = (void *)(uintptr_t)data;
	m->iov.iov_len = len;
	h->msg_iov = &m->iov;
	h->msg_iovlen = 1;
	if (run->to.source_known)
		add_source(h, m, &run->to);
	if (run->tos) {
		int tos = run->tos;

		if (run->to.family == WT_AF_INET6)
			add_control(h, m, IPPROTO_IPV6, IPV6_TCLASS, &tos, sizeof(tos));
		else
			add_control(h, m, IPPROTO_IP, IP_TOS, &tos, sizeof(tos));
	}
	if (len > run->segment_len) {
		uint16_t segment = (uint16_t)run->segment_len;

		add_control(h, m, IPPROTO_UDP, UDP_SEGMENT, &segment, sizeof(segment));
	}
}

void udp_message_room(struct msghdr *h, struct udp_message *m, const struct udp_buffer *buffer)
{
	memset(h, 0, sizeof(*h));
	m->iov.iov_base = buffer->data;
	m->iov.iov_len = buffer->capacity;
	h->msg_name = &m->address;
	h->msg_namelen = sizeof(m->address);
	h->msg_iov = &m->iov;
	h->msg_iovlen = 1;
	h->msg_control = m->control.bytes;
	h->msg_controllen = sizeof(m->control.bytes);
}

static void read_address(struct endpoint *e, const union udp_address *a)
{
	memset(e, 0, sizeof(*e));
	if (a->any.sa_family == AF_INET6) {
		e->family = WT_AF_INET6;
		e->port = ntohs(a->v6.sin6_port);
		memcpy(e->address, &a->v6.sin6_addr, 16);
		if (is_link_local(e->address))
			e->scope_id = a->v6.sin6_scope_id;
	} else if (a->any.sa_family == AF_INET) {
		e->family = WT_AF_INET;
		e->port = ntohs(a->v4.sin_port);
		memcpy(e->address, &a->v4.sin_addr, 4);
	}
}

static void read_control(struct udp_buffer *b, const struct cmsghdr *c)
{
	const uint8_t *data = CMSG_DATA(c);

	if (c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_GRO) {
		int segment; /* the kernel puts an int, although a u16 is documented */

		memcpy(&segment, data, sizeof(segment));
		if (segment > 0 && (uint32_t)segment < b->len)
			b->segment_len = (uint32_t)segment;
	} else if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
		struct in_pktinfo info;

		memcpy(&info, data, sizeof(info));
		memcpy(b->from.source, &info.ipi_spec_dst, 4);
		b->from.source_ifindex = (uint32_t)info.ipi_ifindex;
		b->from.source_known = 1;
	} else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
		struct in6_pktinfo info;

		memcpy(&info, data, sizeof(info));
		memcpy(b->from.source, &info.ipi6_addr, 16);
		b->from.source_ifindex = info.ipi6_ifindex;
		b->from.source_known = 1;
	} else if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_TOS) {
		b->tos = data[0];
	} else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_TCLASS) {
		int tclass;

		memcpy(&tclass, data, sizeof(tclass));
		b->tos = (uint8_t)tclass;
	}
}

void udp_message_from(const struct msghdr *h, const struct udp_message *m, struct udp_buffer *b,
		      uint32_t len)
{
	struct msghdr header = *h;

	b->len = len;
	b->segment_len = len;
	b->tos = 0;
	read_address(&b->from, &m->address);
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&header); c; c = CMSG_NXTHDR(&header, c))
		read_control(b, c);
}
