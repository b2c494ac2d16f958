/* SPDX-License-Identifier: Apache-2.0 */
/* socket(2), connect(2), readv(2), send(2), sendmsg(2), shutdown(2), epoll(7) for relayed flows. */
#define _GNU_SOURCE
#include "host/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

union host_address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

static socklen_t to_host(union host_address *a, const struct endpoint *e)
{
	memset(a, 0, sizeof(*a));
	if (e->family == WT_AF_INET) {
		a->v4.sin_family = AF_INET;
		a->v4.sin_port = htons(e->port);
		memcpy(&a->v4.sin_addr, e->address, 4);
		return sizeof(a->v4);
	}
	a->v6.sin6_family = AF_INET6;
	a->v6.sin6_port = htons(e->port);
	a->v6.sin6_scope_id = e->scope_id;
	memcpy(&a->v6.sin6_addr, e->address, 16);
	return sizeof(a->v6);
}

static void from_host(struct endpoint *e, const union host_address *a)
{
	memset(e, 0, sizeof(*e));
	if (a->any.sa_family == AF_INET) {
		e->family = WT_AF_INET;
		e->port = ntohs(a->v4.sin_port);
		memcpy(e->address, &a->v4.sin_addr, 4);
	} else if (a->any.sa_family == AF_INET6) {
		e->family = WT_AF_INET6;
		e->port = ntohs(a->v6.sin6_port);
		e->scope_id = a->v6.sin6_scope_id;
		memcpy(e->address, &a->v6.sin6_addr, 16);
	}
}

int stream_set_open(int *set)
{
	*set = epoll_create1(EPOLL_CLOEXEC);
	return *set < 0 ? -errno : 0;
}

void stream_set_close(int *set)
{
	if (*set >= 0)
		close(*set);
	*set = -1;
}

int stream_watch(int set, int fd, uint64_t tag)
{
	struct epoll_event event;

	memset(&event, 0, sizeof(event));
	event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
	event.data.u64 = tag;
	return epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

int stream_wait(int set, struct stream_event *events)
{
	struct epoll_event ready[STREAM_EVENTS_MAX];
	int n = epoll_wait(set, ready, STREAM_EVENTS_MAX, 0);

	if (n < 0)
		return errno == EINTR ? 0 : -errno;
	for (int i = 0; i < n; i++) {
		events[i].tag = ready[i].data.u64;
		events[i].flags = 0;
		if (ready[i].events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP))
			events[i].flags |= STREAM_READABLE;
		if (ready[i].events & EPOLLOUT)
			events[i].flags |= STREAM_WRITABLE;
		if (ready[i].events & EPOLLERR)
			events[i].flags |= STREAM_FAILED;
	}
	return n;
}

int stream_prepare(int fd)
{
	const int on = 1;
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return -errno;
	/* Not every stream is TCP: a socket pair refuses, and needs nothing. */
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	return 0;
}

static int open_connected(const struct endpoint *to, int type)
{
	union host_address address;
	socklen_t len = to_host(&address, to);
	int fd = socket(address.any.sa_family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int error;

	if (fd < 0)
		return -errno;
	if (connect(fd, &address.any, len) < 0 && errno != EINPROGRESS) {
		error = -errno;
		close(fd);
		return error;
	}
	return fd;
}

int stream_connect(const struct endpoint *to)
{
	int fd = open_connected(to, SOCK_STREAM);

	if (fd >= 0)
		(void)stream_prepare(fd);
	return fd;
}

int stream_error(int fd)
{
	int error = 0;
	socklen_t len = sizeof(error);

	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
		return -errno;
	return -error;
}

int stream_read(int fd, const struct iovec *parts, unsigned int n)
{
	ssize_t got;

	do {
		got = readv(fd, parts, (int)n);
	} while (got < 0 && errno == EINTR);
	return got < 0 ? -errno : (int)got;
}

int stream_send(int fd, const uint8_t *data, uint32_t len)
{
	ssize_t sent;

	do {
		sent = send(fd, data, len, MSG_NOSIGNAL | MSG_DONTWAIT);
	} while (sent < 0 && errno == EINTR);
	return sent < 0 ? -errno : (int)sent;
}

int stream_send_parts(int fd, const struct iovec *parts, unsigned int n)
{
	struct msghdr message;
	ssize_t sent;

	memset(&message, 0, sizeof(message));
	message.msg_iov = (struct iovec *)(uintptr_t)parts;
	message.msg_iovlen = n;
	do {
		sent = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
	} while (sent < 0 && errno == EINTR);
	return sent < 0 ? -errno : (int)sent;
}

void stream_shutdown(int fd)
{
	(void)shutdown(fd, SHUT_WR);
}

void stream_close(int fd)
{
	close(fd);
}

void stream_reset(int fd)
{
	const struct linger now = { .l_onoff = 1, .l_linger = 0 };

	(void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	close(fd);
}

int datagram_bind(const struct endpoint *local)
{
	union host_address address;
	socklen_t len = to_host(&address, local);
	int fd = socket(address.any.sa_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int error;

	if (fd < 0)
		return -errno;
	if (bind(fd, &address.any, len) < 0) {
		error = -errno;
		close(fd);
		return error;
	}
	return fd;
}

int datagram_connect(const struct endpoint *to)
{
	return open_connected(to, SOCK_DGRAM);
}

int datagram_port(int fd)
{
	union host_address address;
	socklen_t size = sizeof(address);
	struct endpoint e;

	memset(&address, 0, sizeof(address));
	if (getsockname(fd, &address.any, &size) < 0)
		return -errno;
	from_host(&e, &address);
	return e.port;
}

int datagram_send(int fd, const struct endpoint *to, const uint8_t *data, uint32_t len)
{
	union host_address address;
	socklen_t size = to ? to_host(&address, to) : 0;
	ssize_t sent;

	do {
		sent = sendto(fd, data, len, MSG_NOSIGNAL | MSG_DONTWAIT, to ? &address.any : NULL,
			      size);
	} while (sent < 0 && errno == EINTR);
	return sent < 0 ? -errno : (int)sent;
}

int datagram_receive(int fd, struct endpoint *from, uint8_t *data, uint32_t capacity)
{
	union host_address address;
	socklen_t size = sizeof(address);
	ssize_t got;

	memset(&address, 0, sizeof(address));
	do {
		got = recvfrom(fd, data, capacity, MSG_DONTWAIT, &address.any, &size);
	} while (got < 0 && errno == EINTR);
	if (got < 0)
		return -errno;
	if (from)
		from_host(from, &address);
	return (int)got;
}
