/* SPDX-License-Identifier: Apache-2.0 */
/* Opening, configuring, reading and writing a TUN device; see tun.h. */
#define _GNU_SOURCE
#include "host/tun.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "host/kernel.h"
#include "host/netlink.h"
#include "host/udp.h"

/*
 * Packets that the kernel keeps for us while we do something else.  TUN's own
 * 500 are 10 ms of small packets on a busy router; the kernel's WireGuard queues
 * as many as this.
 */
#define QUEUE_PACKETS 1000

void tun_init(struct tun *t)
{
	memset(t, 0, sizeof(*t));
	t->kind = TUN_NONE;
	t->fd = -1;
	t->control = -1;
}

static void drop_features(struct tun *t, uint32_t missing)
{
	t->features &= ~missing;
}

/* Ask for as much as the kernel grants; the vnet header is there already. */
static void set_offloads(struct tun *t)
{
	unsigned long checksum = TUN_F_CSUM;
	unsigned long tso = TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
	unsigned long uso = TUN_F_USO4 | TUN_F_USO6;

	if ((t->features & (HOST_TSO | HOST_USO)) == (HOST_TSO | HOST_USO) &&
	    ioctl(t->fd, TUNSETOFFLOAD, checksum | tso | uso) == 0)
		return;
	drop_features(t, HOST_USO);
	if (t->features & HOST_TSO && ioctl(t->fd, TUNSETOFFLOAD, checksum | tso) == 0)
		return;
	drop_features(t, HOST_TSO);
	if (ioctl(t->fd, TUNSETOFFLOAD, checksum) < 0)
		ioctl(t->fd, TUNSETOFFLOAD, 0ul);
}

/* Bytes of super-packet that become one UDP send, timestamps and headers counted. */
static uint32_t gso_max_bytes(uint32_t mtu)
{
	uint32_t segments = UDP_PAYLOAD_MAX / (mtu + 32), bytes;

	if (segments > UDP_SEGMENTS_MAX)
		segments = UDP_SEGMENTS_MAX;
	/* TCP reserves up to 320 bytes of headers from this limit. */
	bytes = segments * (mtu - 52) + 400;
	return bytes < TUN_PACKET_MAX ? bytes : TUN_PACKET_MAX;
}

static int apply_mtu(struct tun *t, uint32_t mtu)
{
	struct ifreq request;

	memset(&request, 0, sizeof(request));
	memcpy(request.ifr_name, t->name, sizeof(t->name));
	request.ifr_mtu = (int)mtu;
	return ioctl(t->control, SIOCSIFMTU, &request) < 0 ? -errno : 0;
}

/* The host's own bursts have to wait somewhere; what the kernel will not lengthen stays. */
static void apply_queue_length(struct tun *t)
{
	struct ifreq request;

	memset(&request, 0, sizeof(request));
	memcpy(request.ifr_name, t->name, sizeof(t->name));
	if (ioctl(t->control, SIOCGIFTXQLEN, &request) < 0 || request.ifr_qlen >= QUEUE_PACKETS)
		return;
	request.ifr_qlen = QUEUE_PACKETS;
	ioctl(t->control, SIOCSIFTXQLEN, &request);
}

/* What an opened device still needs; on the thread that is in its namespace. */
static int configure(struct tun *t, uint32_t mtu, uint32_t wanted)
{
	struct ifreq request;
	unsigned int flags;
	int header = VNET_HEADER_LEN, error;

	memset(&request, 0, sizeof(request));
	if (ioctl(t->fd, TUNGETIFF, &request) < 0)
		return -errno;
	flags = (unsigned short)request.ifr_flags;
	if ((flags & (IFF_TUN | IFF_NO_PI)) != (IFF_TUN | IFF_NO_PI))
		return -EINVAL;
	memcpy(t->name, request.ifr_name, sizeof(t->name));
	t->name[sizeof(t->name) - 1] = 0;
	t->features = 0;
	if (flags & IFF_VNET_HDR) {
		if (ioctl(t->fd, TUNSETVNETHDRSZ, &header) < 0 && errno != ENOTTY &&
		    errno != EINVAL)
			return -errno;
		t->features = wanted & (HOST_VNET_HDR | HOST_TSO | HOST_USO);
		t->features |= HOST_VNET_HDR;
		set_offloads(t);
	}
	t->control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (t->control < 0)
		t->control = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (t->control < 0)
		return -errno;
	if (ioctl(t->control, SIOCGIFINDEX, &request) < 0)
		return -errno;
	t->ifindex = (uint32_t)request.ifr_ifindex;
	error = apply_mtu(t, mtu);
	if (error)
		return error;
	t->mtu = mtu;
	apply_queue_length(t);
	if (t->features & HOST_TSO && wanted & HOST_GSO_MAX &&
	    netlink_set_gso_max(t->ifindex, gso_max_bytes(mtu), UDP_SEGMENTS_MAX) == 0)
		t->features |= HOST_GSO_MAX;
	t->kind = TUN_DEVICE;
	return 0;
}

static int create(struct tun *t, const char *name, uint32_t wanted)
{
	short flags = IFF_TUN | IFF_NO_PI;
	struct ifreq request;

	t->fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (t->fd < 0)
		return -errno;
	memset(&request, 0, sizeof(request));
	memcpy(request.ifr_name, name, strlen(name));
	if (wanted & HOST_VNET_HDR) {
		request.ifr_flags = (short)(flags | IFF_VNET_HDR);
		if (ioctl(t->fd, TUNSETIFF, &request) == 0)
			return 0;
		if (errno != EINVAL)
			return -errno;
	}
	request.ifr_flags = flags;
	return ioctl(t->fd, TUNSETIFF, &request) < 0 ? -errno : 0;
}

struct open_request {
	struct tun *tun;
	const char *name;
	uint32_t mtu;
	uint32_t wanted;
	int netns_fd;
	int result;
};

static void *open_there(void *argument)
{
	struct open_request *r = argument;

	r->result = 0;
	if (r->netns_fd >= 0 && setns(r->netns_fd, CLONE_NEWNET) < 0)
		r->result = -errno;
	if (!r->result)
		r->result = create(r->tun, r->name, r->wanted);
	if (!r->result)
		r->result = configure(r->tun, r->mtu, r->wanted);
	return NULL;
}

static bool mtu_is_possible(uint32_t mtu)
{
	return mtu >= 68 && mtu <= TUN_PACKET_MAX - 32;
}

int tun_open(struct tun *t, const char *name, uint32_t mtu, int netns_fd, uint32_t wanted)
{
	struct open_request request = { t, name, mtu, wanted, netns_fd, 0 };
	pthread_t thread;

	if (strlen(name) >= sizeof(t->name) || !mtu_is_possible(mtu))
		return -EINVAL;
	if (netns_fd < 0) {
		open_there(&request);
	} else {
		int error = pthread_create(&thread, NULL, open_there, &request);

		if (error)
			return -error;
		pthread_join(thread, NULL);
	}
	if (request.result)
		tun_close(t);
	return request.result;
}

/* A descriptor of somebody else: never block on it, never leak it to a child. */
static int adopt(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ||
	    fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
		return -errno;
	return 0;
}

int tun_attach(struct tun *t, int fd, uint32_t mtu, uint32_t wanted)
{
	int error = adopt(fd);

	if (error)
		return error;
	if (!mtu_is_possible(mtu))
		return -EINVAL;
	t->fd = fd;
	error = configure(t, mtu, wanted);
	if (error) {
		t->fd = -1;
		tun_close(t);
	}
	return error;
}

int tun_attach_socket(struct tun *t, int fd, uint32_t mtu)
{
	int error = adopt(fd), type = 0;
	socklen_t len = sizeof(type);

	if (error)
		return error;
	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0)
		return -errno;
	if ((type != SOCK_SEQPACKET && type != SOCK_DGRAM) || !mtu_is_possible(mtu))
		return -EINVAL;
	t->kind = TUN_SOCKET;
	t->fd = fd;
	t->mtu = mtu;
	t->features = 0;
	return 0;
}

void tun_close(struct tun *t)
{
	if (t->fd >= 0)
		close(t->fd);
	if (t->control >= 0)
		close(t->control);
	t->kind = TUN_NONE;
	t->fd = -1;
	t->control = -1;
	t->ifindex = 0;
	t->features = 0;
}

int tun_set_mtu(struct tun *t, uint32_t mtu)
{
	int error = 0;

	if (!mtu_is_possible(mtu))
		return -EINVAL;
	if (t->kind == TUN_DEVICE)
		error = apply_mtu(t, mtu);
	if (!error)
		t->mtu = mtu;
	return error;
}

/* One message; the kernel tells when it was cut. */
static int read_socket(struct tun *t, uint8_t *packet, uint32_t capacity)
{
	ssize_t n = recv(t->fd, packet, capacity, MSG_DONTWAIT | MSG_TRUNC);

	if (n < 0)
		return -errno;
	/* A packet is never empty: this is the end of a SOCK_SEQPACKET. */
	if (n == 0)
		return -EPIPE;
	return (size_t)n > capacity ? -EMSGSIZE : (int)n;
}

int tun_read(struct tun *t, uint8_t *packet, uint32_t capacity, struct vnet_header *header)
{
	int result;

	memset(header, 0, sizeof(*header));
	if (t->kind == TUN_SOCKET) {
		result = read_socket(t, packet, capacity);
	} else if (t->features & HOST_VNET_HDR) {
		ssize_t n = read(t->fd, packet - VNET_HEADER_LEN, capacity + VNET_HEADER_LEN);

		result = n < 0 ? -errno : (int)(n - VNET_HEADER_LEN);
		if (n >= VNET_HEADER_LEN)
			memcpy(header, packet - VNET_HEADER_LEN, VNET_HEADER_LEN);
		else if (n >= 0)
			result = -EMSGSIZE;
	} else {
		ssize_t n = read(t->fd, packet, capacity);

		result = n < 0 ? -errno : (int)n;
	}
	if (result >= 0)
		t->statistics.reads++;
	return result == -EINTR ? -EAGAIN : result;
}

int tun_write(struct tun *t, const struct vnet_header *header, struct iovec *vectors,
	      unsigned int n)
{
	ssize_t written;

	t->statistics.writes++;
	if (t->kind == TUN_SOCKET) {
		struct msghdr message;

		memset(&message, 0, sizeof(message));
		message.msg_iov = vectors + 1;
		message.msg_iovlen = n - 1;
		written = sendmsg(t->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
	} else if (t->features & HOST_VNET_HDR) {
		vectors[0].iov_base = (void *)(uintptr_t)header;
		vectors[0].iov_len = VNET_HEADER_LEN;
		written = writev(t->fd, vectors, (int)n);
	} else {
		written = writev(t->fd, vectors + 1, (int)n - 1);
	}
	return written < 0 ? -errno : 0;
}
