/* SPDX-License-Identifier: Apache-2.0 */
/* udp_send() into a socket whose buffer never drains: how often does it wait? */
#define _GNU_SOURCE
#include "host/udp.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#define SEGMENT 100
#define SEGMENTS 20

static unsigned int waits;

/* In the place of the C library's. */
ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
	(void)fd, (void)message, (void)flags;
	errno = EAGAIN;
	return -1;
}

int sendmmsg(int fd, struct mmsghdr *messages, unsigned int n, int flags)
{
	(void)fd, (void)messages, (void)n, (void)flags;
	errno = EAGAIN;
	return -1;
}

int poll(struct pollfd *fds, nfds_t n, int timeout_ms)
{
	(void)fds, (void)n, (void)timeout_ms;
	waits++;
	return 0;
}

static void measure(const char *name, uint32_t features)
{
	static uint8_t data[UDP_SEND_MAX][SEGMENT * SEGMENTS];
	struct udp_run runs[UDP_SEND_MAX];
	struct udp_port port;

	udp_init(&port, features);
	port.fd[UDP_V4] = 0;
	memset(runs, 0, sizeof(runs));
	for (int i = 0; i < UDP_SEND_MAX; i++) {
		runs[i].to.family = WT_AF_INET;
		runs[i].data = data[i];
		runs[i].len = sizeof(data[i]);
		runs[i].segment_len = SEGMENT;
	}
	waits = 0;
	for (int call = 0; call < 2; call++)
		udp_send(&port, runs, UDP_SEND_MAX);
	printf("%s %u %llu\n", name, waits, (unsigned long long)port.statistics.send_full);
}

int main(void)
{
	measure("all", HOST_MMSG | HOST_UDP_GSO);
	measure("mmsg", HOST_MMSG);
	measure("none", 0);
	return 0;
}
