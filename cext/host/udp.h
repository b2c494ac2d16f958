/* SPDX-License-Identifier: Apache-2.0 */
/* The outer UDP sockets: one port, both families, many datagrams a call. */
#ifndef WT_HOST_UDP_H
#define WT_HOST_UDP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "host/features.h"
#include "wire/endpoint.h"

/**
 * DOC: Theory of operation - outer sockets
 *
 * An IPv4 and an IPv6 socket are bound to the same port; port 0 picks one that
 * is free for both.  A host without IPv6 (or without IPv4) has only the other.
 *
 * Received datagrams carry the address they were sent to (IP_PKTINFO), which
 * becomes the source of our answers: a host with several addresses must answer
 * from the one that the peer talks to.  When that address is gone the kernel
 * refuses the send; it is repeated once without a source, and udp_run.source_lost
 * tells the caller to forget it.
 *
 * Sending:	a run is one or more datagrams of one length (the last may be
 *		shorter) to one peer.  UDP_SEGMENT sends a run as one message;
 *		sendmmsg sends several runs.  Without them: one call each.
 *		A device without checksum offload refuses UDP_SEGMENT with EIO,
 *		a path smaller than the segment with EINVAL: then the run is sent
 *		again one by one, in the first case for ever.
 * Receiving:	UDP_GRO yields many datagrams of one sender in one buffer.
 *
 * Nothing here blocks, except that a full send buffer is waited for a few
 * milliseconds: pressure on the sender is better than loss.  A buffer that does
 * not drain is waited for once a call, whatever the number of datagrams.
 */

/* Largest payload of a UDP datagram over IPv4; one less for IPv6 is no matter. */
#define UDP_PAYLOAD_MAX 65507
/* Linux before 6.9 takes at most this many segments (UDP_MAX_SEGMENTS). */
#define UDP_SEGMENTS_MAX 64
#define UDP_RECEIVE_MAX 64
#define UDP_SEND_MAX 32

enum udp_family { UDP_V4, UDP_V6, UDP_FAMILIES };

/**
 * struct udp_statistics - What the sockets did
 * @receive_calls:	recvmmsg and recvmsg calls
 * @receive_buffers:	Messages they yielded
 * @send_calls:		sendmmsg and sendmsg calls
 * @send_waits:		Times that a full send buffer was waited for
 * @send_failed:	Datagrams given up
 * @send_full:		Of those, because the send buffer stayed full
 * @truncated:		Received messages larger than the buffer
 */
struct udp_statistics {
	uint64_t receive_calls;
	uint64_t receive_buffers;
	uint64_t send_calls;
	uint64_t send_waits;
	uint64_t send_failed;
	uint64_t send_full;
	uint64_t truncated;
};

/**
 * struct udp_port - Both sockets and how they are set up
 * @fd:		By enum udp_family; -1 when there is none
 * @port:	As bound; 0 when closed
 * @features:	enum host_feature bits in use; a bit goes away when it fails
 * @fwmark:	SO_MARK, 0 is none
 * @interface:	SO_BINDTODEVICE, empty is none
 * @buffer_bytes: Wanted size of each socket buffer
 * @waits:	Waits for room since something was sent last
 * @statistics:	Counters; survive udp_close()
 */
struct udp_port {
	int fd[UDP_FAMILIES];
	uint16_t port;
	uint32_t features;
	uint32_t fwmark;
	char interface[16];
	int buffer_bytes;
	unsigned int waits;
	struct udp_statistics statistics;
};

/**
 * struct udp_buffer - One received message, possibly of several datagrams
 * @data:	Room given by the caller
 * @capacity:	Its size
 * @len:	Bytes received
 * @segment_len: Length of each datagram in it but the last; == @len if one
 * @tos:	TOS or traffic class of the outer header
 * @from:	Who sent it, and which of our addresses it was sent to
 */
struct udp_buffer {
	uint8_t *data;
	uint32_t capacity;
	uint32_t len;
	uint32_t segment_len;
	uint8_t tos;
	struct endpoint from;
};

/**
 * struct udp_run - Datagrams to one peer that lie back to back
 * @to:		Peer and, if known, our source address
 * @data:	First datagram
 * @len:	Bytes of all
 * @segment_len: Length of each but the last, which may be shorter
 * @tos:	TOS or traffic class of the outer header
 * @source_lost: Set by udp_send(): the source address is no longer ours
 * @error:	Set by udp_send(): 0, or the errno that lost (some of) them
 */
struct udp_run {
	struct endpoint to;
	uint8_t *data;
	uint32_t len;
	uint32_t segment_len;
	uint8_t tos;
	bool source_lost;
	int error;
};

/** udp_init() - No sockets yet */
void udp_init(struct udp_port *u, uint32_t features);

/**
 * udp_open() - Bind both sockets
 * @u:		Closed; @fwmark, @interface and @features are applied
 * @port:	0 picks one that is free for both families
 *
 * Return: 0, or -errno and still closed
 */
int udp_open(struct udp_port *u, uint16_t port);
void udp_close(struct udp_port *u);

/** udp_set_fwmark() - Change SO_MARK, also of open sockets. Return: 0, or -errno and as before */
int udp_set_fwmark(struct udp_port *u, uint32_t mark);

/** udp_set_interface() - The same with SO_BINDTODEVICE; NULL or "" is none */
int udp_set_interface(struct udp_port *u, const char *name);

/**
 * udp_receive() - Take what one socket has, without waiting
 * @buffers:	@n <= UDP_RECEIVE_MAX of them, @data and @capacity filled in
 *
 * Return: how many were filled, from the first on; -errno for a failed socket
 */
int udp_receive(struct udp_port *u, enum udp_family family, struct udp_buffer *buffers,
		unsigned int n);

/** udp_send() - Send @n <= UDP_SEND_MAX runs in order; each run's fate is left in it */
void udp_send(struct udp_port *u, struct udp_run *runs, unsigned int n);

#endif /* WT_HOST_UDP_H */
