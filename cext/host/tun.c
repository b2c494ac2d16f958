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
#include <sys/stat.h>
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

/* A request about the device, by the name that it has now. */
static int about(struct tun *t, unsigned long code, struct ifreq *request)
{
	struct ifreq name;

	memset(&name, 0, sizeof(name));
	if (ioctl(t->fd, TUNGETIFF, &name) < 0)
		return -errno;
	memcpy(request->ifr_name, name.ifr_name, sizeof(name.ifr_name));
	return ioctl(t->control, code, request) < 0 ? -errno : 0;
}

static int apply_mtu(struct tun *t, uint32_t mtu)
{
	struct ifreq request;

	memset(&request, 0, sizeof(request));
	request.ifr_mtu = (int)mtu;
	return about(t, SIOCSIFMTU, &request);
}

/* On a thread that is in the device's namespace. */
static void apply_gso_max(struct tun *t, uint32_t mtu)
{
	t->features &= ~(uint32_t)HOST_GSO_MAX;
	if (netlink_set_gso_max(t->ifindex, gso_max_bytes(mtu), UDP_SEGMENTS_MAX) == 0)
		t->features |= HOST_GSO_MAX;
}

static int open_control(struct tun *t)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (t->control >= 0)
		close(t->control);
	t->control = fd;
	return 0;
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

/* Return: a descriptor of the device's namespace, or -errno. */
static int netns_of(const struct tun *t, uint64_t *inode)
{
	int fd = ioctl(t->fd, TUNGETDEVNETNS);
	struct stat status;

	*inode = 0;
	if (fd < 0)
		return errno == EINVAL || errno == ENOTTY ? -EOPNOTSUPP : -errno;
	if (fstat(fd, &status) == 0)
		*inode = status.st_ino;
	return fd;
}

static void close_netns(int fd)
{
	if (fd >= 0)
		close(fd);
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
	error = open_control(t);
	if (error)
		return error;
	if (ioctl(t->control, SIOCGIFINDEX, &request) < 0)
		return -errno;
	t->ifindex = (uint32_t)request.ifr_ifindex;
	error = apply_mtu(t, mtu);
	if (error)
		return error;
	t->mtu = mtu;
	apply_queue_length(t);
	if (t->features & HOST_TSO && wanted & HOST_GSO_MAX)
		apply_gso_max(t, mtu);
	close_netns(netns_of(t, &t->netns));
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
	t->netns = 0;
	t->ifindex = 0;
	t->features = 0;
}

/* What there is to do in the device's namespace. */
struct visit {
	struct tun *tun;
	int netns_fd;
	uint64_t netns;
	uint32_t gso_mtu;
	int result;
};

static void *visit_there(void *argument)
{
	struct visit *v = argument;
	struct ifreq request;

	v->result = setns(v->netns_fd, CLONE_NEWNET) < 0 ? -errno : 0;
	if (!v->result && v->netns != v->tun->netns) {
		v->result = open_control(v->tun);
		memset(&request, 0, sizeof(request));
		if (!v->result)
			v->result = about(v->tun, SIOCGIFINDEX, &request);
		/* Where its number was taken it has another one. */
		if (!v->result) {
			v->tun->ifindex = (uint32_t)request.ifr_ifindex;
			v->tun->netns = v->netns;
		}
	}
	if (!v->result && v->gso_mtu)
		apply_gso_max(v->tun, v->gso_mtu);
	return NULL;
}

/*
 * Make @control fit to where the device is now, and with @gso_mtu bound its
 * super-packets.  Return: 0, -EOPNOTSUPP when the kernel does not say where.
 */
static int visit(struct tun *t, uint32_t gso_mtu)
{
	struct visit v = { t, -1, 0, gso_mtu, 0 };
	pthread_t thread;

	v.netns_fd = netns_of(t, &v.netns);
	if (v.netns_fd < 0)
		return v.netns_fd;
	if (v.netns != t->netns || gso_mtu) {
		v.result = -pthread_create(&thread, NULL, visit_there, &v);
		if (!v.result)
			pthread_join(thread, NULL);
	}
	close(v.netns_fd);
	return v.result;
}

int tun_set_mtu(struct tun *t, uint32_t mtu)
{
	int error = 0;

	if (!mtu_is_possible(mtu))
		return -EINVAL;
	if (t->kind == TUN_DEVICE) {
		visit(t, 0);
		error = apply_mtu(t, mtu);
	}
	if (error)
		return error;
	/* Super-packets that do not fit into one send still get out, in two. */
	if (t->kind == TUN_DEVICE && t->features & HOST_GSO_MAX)
		visit(t, mtu);
	t->mtu = mtu;
	return 0;
}

int tun_look(struct tun *t, struct tun_link *link)
{
	struct ifreq request;
	int error;

	if (t->kind != TUN_DEVICE)
		return -ENODEV;
	error = visit(t, 0);
	if (error)
		return error;
	memset(&request, 0, sizeof(request));
	error = about(t, SIOCGIFMTU, &request);
	if (error)
		return error;
	link->mtu = (uint32_t)request.ifr_mtu;
	error = about(t, SIOCGIFFLAGS, &request);
	if (error)
		return error;
	link->is_up = request.ifr_flags & IFF_UP;
	link->ifindex = t->ifindex;
	return 0;
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
