/* SPDX-License-Identifier: Apache-2.0 */
/* RTM_NEWLINK with two attributes, and its acknowledgement. */
#define _GNU_SOURCE
#include "host/netlink.h"

#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "host/kernel.h"

struct attribute_u32 {
	struct rtattr head;
	uint32_t value;
};

struct gso_request {
	struct nlmsghdr head;
	struct ifinfomsg link;
	struct attribute_u32 bytes;
	struct attribute_u32 segments;
};

static void set_attribute(struct attribute_u32 *a, unsigned short type, uint32_t value)
{
	a->head.rta_type = type;
	a->head.rta_len = sizeof(*a);
	a->value = value;
}

static int read_answer(int fd)
{
	union {
		struct nlmsghdr head;
		uint8_t bytes[1024];
	} answer;
	struct nlmsgerr verdict;
	ssize_t n = recv(fd, &answer, sizeof(answer), 0);

	if (n < 0)
		return -errno;
	if ((size_t)n < NLMSG_LENGTH(sizeof(verdict)) || answer.head.nlmsg_type != NLMSG_ERROR)
		return -EPROTO;
	memcpy(&verdict, NLMSG_DATA(&answer.head), sizeof(verdict));
	return verdict.error;
}

int netlink_set_gso_max(uint32_t ifindex, uint32_t bytes, uint32_t segments)
{
	struct timeval patience = { .tv_sec = 1 };
	struct gso_request r;
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE), result;

	if (fd < 0)
		return -errno;
	memset(&r, 0, sizeof(r));
	r.head.nlmsg_len = sizeof(r);
	r.head.nlmsg_type = RTM_NEWLINK;
	r.head.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
	r.link.ifi_family = AF_UNSPEC;
	r.link.ifi_index = (int)ifindex;
	set_attribute(&r.bytes, WT_IFLA_GSO_MAX_SIZE, bytes);
	set_attribute(&r.segments, WT_IFLA_GSO_MAX_SEGS, segments);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	if (send(fd, &r, sizeof(r), 0) < 0)
		result = -errno;
	else
		result = read_answer(fd);
	close(fd);
	return result;
}
