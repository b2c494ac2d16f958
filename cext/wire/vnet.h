/* SPDX-License-Identifier: Apache-2.0 */
/* The virtio-net header that a TUN device puts before a packet with work left to do. */
#ifndef WT_WIRE_VNET_H
#define WT_WIRE_VNET_H

#include <stdint.h>

#define VNET_HEADER_LEN 10

/* enum vnet_flags, struct vnet_header.flags: virtio 1.2, section 5.1.6 */
#define VNET_NEEDS_CHECKSUM 1 /* the field holds the pseudo header's sum only */
#define VNET_DATA_VALID 2     /* somebody has verified the checksum */

/* struct vnet_header.gso_type */
#define VNET_GSO_NONE 0
#define VNET_GSO_TCPV4 1
#define VNET_GSO_TCPV6 4
#define VNET_GSO_UDP_L4 5 /* independent datagrams, Linux 6.2 */
#define VNET_GSO_ECN 0x80 /* or-ed to TCP: CWR is set in the first segment only */

/**
 * struct vnet_header - As TUN reads and writes it: fields in the host's byte order
 * @flags:		VNET_NEEDS_CHECKSUM and the like
 * @gso_type:		VNET_GSO_*
 * @header_len:		Length of all headers; a hint that may be wrong
 * @segment_len:	Payload bytes of each segment (gso_size)
 * @checksum_start:	Where the checksummed part, i.e. the upper layer, begins
 * @checksum_offset:	Where its checksum field is, from @checksum_start
 */
struct vnet_header {
	uint8_t flags;
	uint8_t gso_type;
	uint16_t header_len;
	uint16_t segment_len;
	uint16_t checksum_start;
	uint16_t checksum_offset;
};

_Static_assert(sizeof(struct vnet_header) == VNET_HEADER_LEN, "the kernel's layout");

#endif /* WT_WIRE_VNET_H */
