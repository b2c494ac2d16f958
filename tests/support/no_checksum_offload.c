/* SPDX-License-Identifier: Apache-2.0 */
/* Preloaded: sends with UDP_SEGMENT fail with EIO, as on a device without checksum offload. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>

static bool has_segments(const struct msghdr *message)
{
	struct msghdr m = *message;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c))
		if (c->cmsg_level == IPPROTO_UDP && c->cmsg_type == 103)
			return true;
	return false;
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
	ssize_t (*real)(int, const struct msghdr *, int) = dlsym(RTLD_NEXT, "sendmsg");

	if (has_segments(message)) {
		errno = EIO;
		return -1;
	}
	return real(fd, message, flags);
}

int sendmmsg(int fd, struct mmsghdr *messages, unsigned int n, int flags)
{
	int (*real)(int, struct mmsghdr *, unsigned int, int) = dlsym(RTLD_NEXT, "sendmmsg");
	unsigned int good = 0;

	while (good < n && !has_segments(&messages[good].msg_hdr))
		good++;
	if (n && good == 0) {
		errno = EIO;
		return -1;
	}
	return real(fd, messages, good, flags);
}
