/* SPDX-License-Identifier: Apache-2.0 */
/* Finds out beforehand which socket features this kernel has. */
#define _GNU_SOURCE
#include "host/features.h"

#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "host/kernel.h"

const char *host_feature_name(unsigned int index)
{
	static const char *const names[HOST_FEATURE_COUNT] = {
#define X(name, text) [HOST_FEATURE_##name] = text,
		WT_HOST_FEATURES(X)
#undef X
	};

	return index < HOST_FEATURE_COUNT ? names[index] : "none";
}

uint32_t host_probe(uint32_t wanted)
{
	int one = 1, fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int fd6 = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int any = fd >= 0 ? fd : fd6;
	int zero = 0;

	if (fd6 < 0)
		wanted &= ~(uint32_t)HOST_IPV6;
	if (setsockopt(any, IPPROTO_UDP, UDP_SEGMENT, &zero, sizeof(zero)) < 0)
		wanted &= ~(uint32_t)HOST_UDP_GSO;
	if (setsockopt(any, IPPROTO_UDP, UDP_GRO, &one, sizeof(one)) < 0)
		wanted &= ~(uint32_t)HOST_UDP_GRO;
	/* On no descriptor at all a kernel that has the calls says EBADF. */
	if ((recvmmsg(-1, NULL, 0, 0, NULL) < 0 && errno == ENOSYS) ||
	    (sendmmsg(-1, NULL, 0, 0) < 0 && errno == ENOSYS))
		wanted &= ~(uint32_t)HOST_MMSG;
	if (fd >= 0)
		close(fd);
	if (fd6 >= 0)
		close(fd6);
	return wanted;
}
