/* SPDX-License-Identifier: Apache-2.0 */
/* Opening, receiving from and sending to the outer UDP sockets; see udp.h. */
#define _GNU_SOURCE
#include "host/udp.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "host/kernel.h"
#include "host/udp_message.h"

/* Times to look for a port that is free for both families. */
#define PORT_ATTEMPTS 32
/*
 * A full send buffer drains within a few ms or not at all.  So many waits without
 * anything sent between them are all that one udp_send() takes.
 */
#define SEND_WAIT_MS 5
#define SEND_WAITS_MAX 4

void udp_init(struct udp_port *u, uint32_t features)
{
	memset(u, 0, sizeof(*u));
	u->fd[UDP_V4] = -1;
	u->fd[UDP_V6] = -1;
	u->features = features;
}

static void set_buffer(int fd, int forced, int plain, int bytes)
{
	/* FORCE needs CAP_NET_ADMIN; without it the host's maximum has to do. */
	if (setsockopt(fd, SOL_SOCKET, forced, &bytes, sizeof(bytes)) < 0)
		setsockopt(fd, SOL_SOCKET, plain, &bytes, sizeof(bytes));
}

static int set_mark(int fd, const void *mark)
{
	return setsockopt(fd, SOL_SOCKET, SO_MARK, mark, sizeof(uint32_t)) < 0 ? -errno : 0;
}

static int set_interface(int fd, const void *name)
{
	if (setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, name, (socklen_t)strlen(name)) < 0)
		return -errno;
	return 0;
}

/* Change an option of all open sockets, or of none. */
static int set_all(const struct udp_port *u, int (*set)(int fd, const void *value),
		   const void *value, const void *before)
{
	for (int f = 0; f < UDP_FAMILIES; f++) {
		int error = u->fd[f] >= 0 ? set(u->fd[f], value) : 0;

		if (!error)
			continue;
		while (f-- > 0) {
			if (u->fd[f] >= 0)
				set(u->fd[f], before);
		}
		return error;
	}
	return 0;
}

/* What a socket can do without is only tried. */
static void set_options(struct udp_port *u, int fd, enum udp_family family)
{
	int one = 1, dont = IP_PMTUDISC_DONT;

	if (u->buffer_bytes) {
		set_buffer(fd, SO_RCVBUFFORCE, SO_RCVBUF, u->buffer_bytes);
		set_buffer(fd, SO_SNDBUFFORCE, SO_SNDBUF, u->buffer_bytes);
	}
	if (u->features & HOST_UDP_GRO &&
	    setsockopt(fd, IPPROTO_UDP, UDP_GRO, &one, sizeof(one)) < 0)
		u->features &= ~(uint32_t)HOST_UDP_GRO;
	if (family == UDP_V4) {
		/* Like the kernel module: a path too small fragments, never a black hole. */
		setsockopt(fd, IPPROTO_IP, IP_MTU_DISCOVER, &dont, sizeof(dont));
		setsockopt(fd, IPPROTO_IP, IP_RECVTOS, &one, sizeof(one));
		if (u->features & HOST_PKTINFO)
			setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &one, sizeof(one));
	} else {
		setsockopt(fd, IPPROTO_IPV6, IPV6_RECVTCLASS, &one, sizeof(one));
		if (u->features & HOST_PKTINFO)
			setsockopt(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, &one, sizeof(one));
	}
}

static int bind_port(int fd, enum udp_family family, uint16_t port)
{
	union udp_address address;
	socklen_t len = sizeof(address.v4);

	memset(&address, 0, sizeof(address));
	if (family == UDP_V4) {
		address.v4.sin_family = AF_INET;
		address.v4.sin_port = htons(port);
	} else {
		address.v6.sin6_family = AF_INET6;
		address.v6.sin6_port = htons(port);
		len = sizeof(address.v6);
	}
	if (bind(fd, &address.any, len) < 0)
		return -errno;
	len = sizeof(address);
	if (getsockname(fd, &address.any, &len) < 0)
		return -errno;
	return ntohs(family == UDP_V4 ? address.v4.sin_port : address.v6.sin6_port);
}

/* Return: the port, or -errno. */
static int open_one(struct udp_port *u, enum udp_family family, uint16_t port)
{
	int one = 1, result = 0;
	int fd = socket(family == UDP_V4 ? AF_INET : AF_INET6,
			SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_UDP);

	if (fd < 0)
		return -errno;
	if (family == UDP_V6 &&
	    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one)) < 0)
		result = -errno;
	if (!result && u->fwmark)
		result = set_mark(fd, &u->fwmark);
	if (!result && u->interface[0])
		result = set_interface(fd, u->interface);
	if (!result)
		result = bind_port(fd, family, port);
	if (result < 0) {
		close(fd);
		return result;
	}
	set_options(u, fd, family);
	u->fd[family] = fd;
	return result;
}

/* Whether the host simply does not have this family. */
static bool family_missing(int error)
{
	return error == -EAFNOSUPPORT || error == -EADDRNOTAVAIL || error == -EPROTONOSUPPORT;
}

static int open_both(struct udp_port *u, uint16_t port)
{
	int v4 = open_one(u, UDP_V4, port), v6;

	if (v4 < 0 && !family_missing(v4))
		return v4;
	if (!(u->features & HOST_IPV6))
		return v4;
	v6 = open_one(u, UDP_V6, v4 > 0 ? (uint16_t)v4 : port);
	if (v6 >= 0)
		return v6;
	if (family_missing(v6) && v4 > 0)
		return v4;
	udp_close(u);
	return v6;
}

int udp_open(struct udp_port *u, uint16_t port)
{
	int bound = -EADDRINUSE;

	for (int i = 0; i < PORT_ATTEMPTS && bound == -EADDRINUSE; i++) {
		bound = open_both(u, port);
		if (port)
			break;
	}
	if (bound < 0)
		return bound;
	u->port = (uint16_t)bound;
	return 0;
}

void udp_close(struct udp_port *u)
{
	for (int f = 0; f < UDP_FAMILIES; f++) {
		if (u->fd[f] >= 0)
			close(u->fd[f]);
		u->fd[f] = -1;
	}
	u->port = 0;
}

int udp_set_fwmark(struct udp_port *u, uint32_t mark)
{
	int error = set_all(u, set_mark, &mark, &u->fwmark);

	if (!error)
		u->fwmark = mark;
	return error;
}

int udp_set_interface(struct udp_port *u, const char *name)
{
	size_t len = name ? strlen(name) : 0;
	int error;

	if (len >= sizeof(u->interface))
		return -ENODEV;
	error = set_all(u, set_interface, len ? name : "", u->interface);
	if (error)
		return error;
	memset(u->interface, 0, sizeof(u->interface));
	if (len)
		memcpy(u->interface, name, len);
	return 0;
}

static int receive_one(struct udp_port *u, int fd, struct msghdr *header, unsigned int *len)
{
	ssize_t n = recvmsg(fd, header, MSG_DONTWAIT);

	u->statistics.receive_calls++;
	if (n < 0)
		return -errno;
	*len = (unsigned int)n;
	return 1;
}

int udp_receive(struct udp_port *u, enum udp_family family, struct udp_buffer *buffers,
		unsigned int n)
{
	struct mmsghdr headers[UDP_RECEIVE_MAX];
	struct udp_message messages[UDP_RECEIVE_MAX];
	int got, fd = u->fd[family];

	if (fd < 0)
		return 0;
	if (!(u->features & HOST_MMSG))
		n = 1;
	for (unsigned int i = 0; i < n; i++)
		udp_message_room(&headers[i].msg_hdr, &messages[i], &buffers[i]);
	if (n > 1) {
		got = recvmmsg(fd, headers, n, MSG_DONTWAIT, NULL);
		u->statistics.receive_calls++;
		if (got < 0 && errno == ENOSYS) {
			u->features &= ~(uint32_t)HOST_MMSG;
			got = receive_one(u, fd, &headers[0].msg_hdr, &headers[0].msg_len);
		} else if (got < 0) {
			got = -errno;
		}
	} else {
		got = receive_one(u, fd, &headers[0].msg_hdr, &headers[0].msg_len);
	}
	/* Pending ICMP errors of other destinations are nobody's concern here. */
	if (got == -EAGAIN || got == -EINTR || got == -ECONNREFUSED || got == -EHOSTUNREACH ||
	    got == -ENETUNREACH || got == -EMSGSIZE || got == -ENOMEM || got == -ENOBUFS)
		return 0;
	for (int i = 0; i < got; i++) {
		udp_message_from(&headers[i].msg_hdr, &messages[i], &buffers[i],
				 headers[i].msg_len);
		if (headers[i].msg_hdr.msg_flags & MSG_TRUNC) {
			buffers[i].len = 0;
			u->statistics.truncated++;
		}
		u->statistics.receive_buffers++;
	}
	return got;
}

/* Whether waiting for the socket's buffer makes sense once more. */
static bool wait_writable(struct udp_port *u, int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLOUT };

	if (u->waits == SEND_WAITS_MAX)
		return false;
	u->waits++;
	u->statistics.send_waits++;
	/* ENOBUFS: the device's queue is full although the socket has room. */
	if (poll(&p, 1, SEND_WAIT_MS) > 0 && u->waits > 1)
		poll(NULL, 0, 1);
	return true;
}

static bool is_full(int error)
{
	return error == EAGAIN || error == ENOBUFS || error == ENOMEM;
}

static bool is_source_error(int error)
{
	return error == EINVAL || error == EADDRNOTAVAIL || error == ENETUNREACH ||
	       error == EHOSTUNREACH || error == ENODEV || error == ENXIO;
}

/* Send part of a run as one message. Return: 0 or the errno that remains. */
static int send_part(struct udp_port *u, int fd, struct udp_run *run, const uint8_t *data,
		     uint32_t len)
{
	struct udp_message message;
	struct msghdr header;
	int error;

	for (;;) {
		udp_message_to(&header, &message, run, data, len);
		u->statistics.send_calls++;
		if (sendmsg(fd, &header, MSG_DONTWAIT) >= 0) {
			u->waits = 0;
			return 0;
		}
		error = errno;
		if (error == EINTR || (is_full(error) && wait_writable(u, fd)))
			continue;
		/* A run may be refused for its segments instead: that is tried first. */
		if (run->to.source_known && is_source_error(error) && len <= run->segment_len) {
			run->to.source_known = 0;
			run->source_lost = true;
			continue;
		}
		return error;
	}
}

static uint32_t segments(const struct udp_run *run)
{
	return (run->len + run->segment_len - 1) / run->segment_len;
}

static void count_lost(struct udp_port *u, struct udp_run *run, int error, uint32_t n)
{
	run->error = error;
	u->statistics.send_failed += n;
	if (is_full(error))
		u->statistics.send_full += n;
}

/* One by one: without UDP_SEGMENT, or where it was refused. */
static void send_segments(struct udp_port *u, int fd, struct udp_run *run)
{
	for (uint32_t at = 0; at < run->len; at += run->segment_len) {
		uint32_t left = run->len - at;
		uint32_t len = left < run->segment_len ? left : run->segment_len;
		int error = send_part(u, fd, run, run->data + at, len);

		if (error)
			count_lost(u, run, error, 1);
	}
}

/* A run that sendmmsg did not take, or that has to go without it. */
static void send_alone(struct udp_port *u, int fd, struct udp_run *run)
{
	int error = 0;

	if (run->len > run->segment_len) {
		if (u->features & HOST_UDP_GSO) {
			error = send_part(u, fd, run, run->data, run->len);
			if (!error)
				return;
			/* No checksum offload on the device: it will not come back. */
			if (error == EIO || error == ENOPROTOOPT || error == EOPNOTSUPP)
				u->features &= ~(uint32_t)HOST_UDP_GSO;
			else if (is_full(error)) {
				count_lost(u, run, error, segments(run));
				return;
			}
		}
		send_segments(u, fd, run);
		return;
	}
	error = send_part(u, fd, run, run->data, run->len);
	if (error)
		count_lost(u, run, error, 1);
}

static int socket_for(const struct udp_port *u, const struct udp_run *run)
{
	if (run->to.family == WT_AF_INET)
		return u->fd[UDP_V4];
	return run->to.family == WT_AF_INET6 ? u->fd[UDP_V6] : -1;
}

/* Whether a run is one message and may share a sendmmsg call. */
static bool is_one_message(const struct udp_port *u, const struct udp_run *run)
{
	return u->features & HOST_UDP_GSO || run->len <= run->segment_len;
}

/* Datagrams of one run, where there is no UDP_SEGMENT but sendmmsg. */
static void send_spread(struct udp_port *u, int fd, struct udp_run *run)
{
	struct mmsghdr headers[UDP_SEND_MAX];
	struct udp_message messages[UDP_SEND_MAX];
	uint32_t at = 0;

	while (at < run->len) {
		uint32_t sizes[UDP_SEND_MAX], from = at;
		unsigned int n = 0;
		int sent;

		for (; n < UDP_SEND_MAX && from < run->len; n++) {
			uint32_t left = run->len - from;

			sizes[n] = left < run->segment_len ? left : run->segment_len;
			udp_message_to(&headers[n].msg_hdr, &messages[n], run, run->data + from,
				       sizes[n]);
			from += sizes[n];
		}
		u->statistics.send_calls++;
		sent = sendmmsg(fd, headers, n, MSG_DONTWAIT);
		if (sent <= 0) {
			int error = send_part(u, fd, run, run->data + at, sizes[0]);

			if (error)
				count_lost(u, run, error, 1);
			sent = 1;
		} else {
			u->waits = 0;
		}
		for (int i = 0; i < sent; i++)
			at += sizes[i];
	}
}

/* Runs of one family that are one message each. Return: how many were dealt with. */
static unsigned int send_together(struct udp_port *u, int fd, struct udp_run *runs,
				  unsigned int n)
{
	struct mmsghdr headers[UDP_SEND_MAX];
	struct udp_message messages[UDP_SEND_MAX];
	int sent;

	for (unsigned int i = 0; i < n; i++)
		udp_message_to(&headers[i].msg_hdr, &messages[i], &runs[i], runs[i].data,
			       runs[i].len);
	u->statistics.send_calls++;
	sent = sendmmsg(fd, headers, n, MSG_DONTWAIT);
	if (sent < 0 && errno == ENOSYS)
		u->features &= ~(uint32_t)HOST_MMSG;
	if (sent > 0) {
		u->waits = 0;
		return (unsigned int)sent;
	}
	send_alone(u, fd, &runs[0]);
	return 1;
}

void udp_send(struct udp_port *u, struct udp_run *runs, unsigned int n)
{
	unsigned int done = 0, last;

	u->waits = 0;
	for (unsigned int i = 0; i < n; i++) {
		runs[i].source_lost = false;
		runs[i].error = 0;
	}
	while (done < n) {
		struct udp_run *run = &runs[done];
		int fd = socket_for(u, run);

		if (fd < 0) {
			count_lost(u, run, EAFNOSUPPORT, segments(run));
			done++;
			continue;
		}
		for (last = done; last < n && runs[last].to.family == run->to.family &&
				  is_one_message(u, &runs[last]);)
			last++;
		if (u->features & HOST_MMSG && last - done > 1) {
			done += send_together(u, fd, run, last - done);
		} else if (u->features & HOST_MMSG && !is_one_message(u, run)) {
			send_spread(u, fd, run);
			done++;
		} else {
			send_alone(u, fd, run);
			done++;
		}
	}
}
