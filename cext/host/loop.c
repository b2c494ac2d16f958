/* SPDX-License-Identifier: Apache-2.0 */
/* epoll(7) and eventfd(2). */
#define _GNU_SOURCE
#include "host/loop.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

int wake_open(int *wake)
{
	*wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	return *wake < 0 ? -errno : 0;
}

void wake_close(int *wake)
{
	if (*wake >= 0)
		close(*wake);
	*wake = -1;
}

void wake_signal(int wake)
{
	uint64_t one = 1;
	ssize_t n;

	/* A counter that is full is readable already. */
	do {
		n = write(wake, &one, sizeof(one));
	} while (n < 0 && errno == EINTR);
}

void wake_clear(int wake)
{
	uint64_t count;
	ssize_t n;

	do {
		n = read(wake, &count, sizeof(count));
	} while (n < 0 && errno == EINTR);
}

int loop_open(int *loop)
{
	*loop = epoll_create1(EPOLL_CLOEXEC);
	return *loop < 0 ? -errno : 0;
}

void loop_close(int *loop)
{
	if (*loop >= 0)
		close(*loop);
	*loop = -1;
}

int loop_watch(int loop, int fd, uint32_t tag, bool writable_too)
{
	struct epoll_event event;

	memset(&event, 0, sizeof(event));
	event.events = writable_too ? EPOLLIN | EPOLLOUT : EPOLLIN;
	event.data.u32 = tag;
	if (epoll_ctl(loop, EPOLL_CTL_ADD, fd, &event) == 0)
		return 0;
	if (errno == EEXIST && epoll_ctl(loop, EPOLL_CTL_MOD, fd, &event) == 0)
		return 0;
	return -errno;
}

void loop_forget(int loop, int fd)
{
	struct epoll_event unused; /* kernels before 2.6.9 want a pointer */

	memset(&unused, 0, sizeof(unused));
	epoll_ctl(loop, EPOLL_CTL_DEL, fd, &unused);
}

int loop_wait(int loop, struct loop_event *events, int64_t timeout_ns)
{
	struct epoll_event ready[LOOP_EVENTS_MAX];
	int64_t ms = -1;
	int n;

	if (timeout_ns >= 0) {
		ms = timeout_ns / 1000000 + (timeout_ns % 1000000 != 0);
		if (ms > INT_MAX)
			ms = INT_MAX;
	}
	n = epoll_wait(loop, ready, LOOP_EVENTS_MAX, (int)ms);
	if (n < 0)
		return errno == EINTR ? 0 : -errno;
	for (int i = 0; i < n; i++) {
		events[i].tag = ready[i].data.u32;
		events[i].flags = 0;
		if (ready[i].events & EPOLLIN)
			events[i].flags |= LOOP_READABLE;
		if (ready[i].events & EPOLLOUT)
			events[i].flags |= LOOP_WRITABLE;
		if (ready[i].events & (EPOLLERR | EPOLLHUP))
			events[i].flags |= LOOP_FAILED;
	}
	return n;
}
