/* SPDX-License-Identifier: Apache-2.0 */
/* Joining decrypted segments of one flow into super-packets for TUN. */
#ifndef WT_ENGINE_GRO_H
#define WT_ENGINE_GRO_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "wire/vnet.h"

/**
 * DOC: Theory of operation - coalescing
 *
 * The packets of one receive batch are put into groups; each group is written to
 * TUN as one packet.  A group keeps the order of its flow, groups are written in
 * the order of their first packets; different flows may overtake each other.
 *
 * A packet joins the open group of its flow when cutting the result again gives
 * back exactly these packets (RFC 6864 makes the IPv4 identification of a packet
 * with DF meaningless, so it alone may differ):
 *
 *	IP	20-byte IPv4 header with a right checksum, or IPv6 without extension
 *		headers; no fragment; same TOS/class, flow label, TTL, DF; without DF
 *		the identification counts up
 *	TCP	same ports, acknowledgement, window, flags and options; sequence
 *		follows on; only ACK, PSH and ECE may be set; PSH ends the group
 *	UDP	same ports, a checksum is present
 *	both	payload as long as the first one's; a shorter one ends the group
 *
 * The host takes a super-packet's inner checksums for verified.  So they are: a
 * packet whose checksum is wrong joins nothing and is written alone, where the
 * host finds out for itself.
 *
 * What cannot join but belongs to an open group's flow closes that group, so that
 * nothing of the flow is overtaken.
 */

#define GRO_PACKETS_MAX 256
#define GRO_OPEN_MAX 8
#define GRO_UDP_SEGMENTS_MAX 64
#define GRO_BYTES_MAX 65535
/* The free one for the vnet header, then one a packet. */
#define GRO_VECTORS_MAX (GRO_PACKETS_MAX + 1)
#define GRO_NONE UINT16_MAX

/**
 * struct gro_packet - One inner packet
 * @data:	Whole IP packet; the header of a group's first one gets rewritten
 * @len:	Its length by the IP header
 * @next:	Following packet of its group, GRO_NONE at the end
 * @peer:	Number of the peer that sent it, 0 for one of our own
 */
struct gro_packet {
	uint8_t *data;
	uint16_t len;
	uint16_t next;
	uint32_t peer;
};

/**
 * struct gro_group - Packets that are written as one
 * @first:	Index of the first packet, whose header the group gets
 * @last:	Index of the last one
 * @count:	How many
 * @segment_len: Payload of all but the last
 * @bytes:	Length of the super-packet so far
 * @sequence:	TCP: sequence number that follows
 * @l4_offset:	Where the transport header begins; 0 if nothing can join
 * @header_len:	IP and transport header
 * @protocol:	TCP or UDP
 * @verified:	The first packet's checksum was found right
 * @closed:	Nothing may join any more
 */
struct gro_group {
	uint16_t first;
	uint16_t last;
	uint16_t count;
	uint16_t segment_len;
	uint32_t bytes;
	uint32_t sequence;
	uint8_t l4_offset;
	uint8_t header_len;
	uint8_t protocol;
	bool verified;
	bool closed;
};

/**
 * struct gro_batch - Packets and what they were joined to
 * @packets:	Filled by the caller, in order of arrival
 * @packet_count: How many
 * @groups:	Filled by gro_coalesce(), in order
 * @group_count: How many
 * @open:	Groups that may still grow, newest last
 * @open_count:	How many
 */
struct gro_batch {
	struct gro_packet packets[GRO_PACKETS_MAX];
	struct gro_group groups[GRO_PACKETS_MAX];
	uint16_t open[GRO_OPEN_MAX];
	uint16_t packet_count;
	uint16_t group_count;
	uint16_t open_count;
};

/** gro_coalesce() - Group the packets; without @tcp or @udp those stay alone */
void gro_coalesce(struct gro_batch *b, bool tcp, bool udp);

/**
 * gro_vectors() - Describe group @i as one packet
 * @b:		Its first packet's header is rewritten when it holds several
 * @i:		Index of the group; once only
 * @header:	Filled; zeros for a packet alone
 * @vectors:	Room for GRO_VECTORS_MAX; filled from [1] on
 *
 * Return: how many vectors, the free first one included
 */
unsigned int gro_vectors(struct gro_batch *b, unsigned int i, struct vnet_header *header,
			 struct iovec *vectors);

#endif /* WT_ENGINE_GRO_H */
