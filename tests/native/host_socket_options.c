/* SPDX-License-Identifier: Apache-2.0 */
/* Options of the outer sockets, where the second socket refuses: is the first as before? */
#define _GNU_SOURCE
#include "host/udp.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

enum { FIRST = 100, SECOND = 101 };

static uint32_t mark[2];
static char bound[2][16];
static int refuses;

/* In the place of the C library's. */
int setsockopt(int fd, int level, int option, const void *value, socklen_t len)
{
	int i = fd - FIRST;

	if (level != SOL_SOCKET || (refuses && fd == SECOND)) {
		errno = EPERM;
		return -1;
	}
	if (option == SO_MARK)
		memcpy(&mark[i], value, sizeof(mark[i]));
	if (option == SO_BINDTODEVICE) {
		memset(bound[i], 0, sizeof(bound[i]));
		memcpy(bound[i], value, len);
	}
	return 0;
}

static void show(const struct udp_port *u, int error)
{
	printf("%d %u/%u/%u %s/%s/%s\n", error, u->fwmark, mark[0], mark[1], u->interface,
	       bound[0], bound[1]);
}

int main(void)
{
	struct udp_port port;

	udp_init(&port, 0);
	port.fd[UDP_V4] = FIRST;
	port.fd[UDP_V6] = SECOND;
	udp_set_fwmark(&port, 7);
	show(&port, udp_set_interface(&port, "eth0"));
	refuses = 1;
	show(&port, udp_set_fwmark(&port, 8));
	show(&port, udp_set_interface(&port, "eth1"));
	refuses = 0;
	show(&port, udp_set_interface(&port, NULL));
	return 0;
}
