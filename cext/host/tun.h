/* SPDX-License-Identifier: Apache-2.0 */
/* Where inner packets come from and go to: a TUN device, or a socket in its place. */
#ifndef WT_HOST_TUN_H
#define WT_HOST_TUN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "host/features.h"
#include "wire/vnet.h"

/**
 * DOC: Theory of operation - TUN
 *
 * With IFF_VNET_HDR the kernel hands out TCP (and since 6.2 UDP) super-packets of
 * up to 64 KiB with unfinished checksums, and takes such back.  What is missing
 * is done without, step by step:
 *
 *	all offloads -> without USO -> checksums only -> no offloads
 *	IFF_VNET_HDR -> plain packets (disabled, or a kernel before 2.6.27)
 *
 * The device's gso_max_size is set so that one super-packet fills one UDP send of
 * at most UDP_PAYLOAD_MAX bytes; where rtnetlink refuses that (before 4.16), a
 * super-packet just takes two sends.
 *
 * Another network namespace is entered on a short-lived thread, because setns(2)
 * changes the calling thread for good.  @control stays open in that namespace
 * for the later requests.  When somebody moves the device to yet another one, the
 * descriptor goes on working and knows where the device is (TUNGETDEVNETNS, Linux
 * 5.2): each request about the device makes @control anew if that has changed.
 */

/* Room that tun_read() may use in front of the packet. */
#define TUN_HEADROOM 16
/* The largest packet, super-packets included. */
#define TUN_PACKET_MAX 65535

enum tun_kind { TUN_NONE, TUN_DEVICE, TUN_SOCKET };

/**
 * struct tun_statistics - What crossed the border to the host
 * @reads:	Packets and super-packets read
 * @writes:	Packets and super-packets written
 */
struct tun_statistics {
	uint64_t reads;
	uint64_t writes;
};

/**
 * struct tun - The inner side's descriptor
 * @kind:	TUN_NONE when closed
 * @fd:		Non-blocking
 * @control:	Socket for requests about the device, in its namespace; or -1
 * @netns:	Inode of that namespace, 0 when not known
 * @ifindex:	0 for a socket
 * @mtu:	Inner MTU in bytes
 * @features:	HOST_VNET_HDR, HOST_TSO, HOST_USO, HOST_GSO_MAX as found
 * @name:	Of the device
 * @statistics:	Counters; survive tun_close()
 */
struct tun {
	enum tun_kind kind;
	int fd;
	int control;
	uint64_t netns;
	uint32_t ifindex;
	uint32_t mtu;
	uint32_t features;
	char name[16];
	struct tun_statistics statistics;
};

void tun_init(struct tun *t);

/**
 * tun_open() - Make the device, or attach to the one of this name
 * @t:		Closed
 * @name:	Interface name, may hold one %d
 * @mtu:	To set
 * @netns_fd:	Network namespace to make it in, or -1 for ours
 * @wanted:	enum host_feature bits to try
 *
 * Return: 0 or -errno
 */
int tun_open(struct tun *t, const char *name, uint32_t mtu, int netns_fd, uint32_t wanted);

/** tun_attach() - Take over an open TUN descriptor (IFF_TUN | IFF_NO_PI)
 *
 * Return: 0 or -errno; -EINVAL when it has packet information headers.  Only
 * after success @fd belongs to @t
 */
int tun_attach(struct tun *t, int fd, uint32_t mtu, uint32_t wanted);

/** tun_attach_socket() - Take over a message socket: one packet a message */
int tun_attach_socket(struct tun *t, int fd, uint32_t mtu);

void tun_close(struct tun *t);

/** tun_set_mtu() - Change @mtu, also the device's, and what goes by it. Return: 0 or -errno */
int tun_set_mtu(struct tun *t, uint32_t mtu);

/**
 * struct tun_link - The device as somebody else may have changed it
 */
struct tun_link {
	uint32_t ifindex;
	uint32_t mtu;
	bool is_up;
};

/**
 * tun_look() - Ask what has become of the device, wherever it is now
 *
 * Return: 0; -EOPNOTSUPP when the kernel cannot tell where it is, -ENODEV for a
 * socket, or another -errno
 */
int tun_look(struct tun *t, struct tun_link *link);

/**
 * tun_read() - Take one packet, without waiting
 * @packet:	Where the packet begins; TUN_HEADROOM bytes before it get spoilt
 * @capacity:	Room from @packet on
 * @header:	Filled; zeros when there is no vnet header
 *
 * Return: length of the packet, -EAGAIN when there is none, -EMSGSIZE when one
 * did not fit and is lost, other -errno when the device is gone
 */
int tun_read(struct tun *t, uint8_t *packet, uint32_t capacity, struct vnet_header *header);

/**
 * tun_write() - Give the host one packet
 * @header:	Not used without HOST_VNET_HDR
 * @vectors:	The packet from vectors[1] on; vectors[0] is ours to fill
 * @n:		Number of vectors, the free one included
 *
 * Return: 0 or -errno
 */
int tun_write(struct tun *t, const struct vnet_header *header, struct iovec *vectors,
	      unsigned int n);

#endif /* WT_HOST_TUN_H */
