/* SPDX-License-Identifier: Apache-2.0 */
/* Cutting a super-packet from TUN into the packets that go on the wire. */
#ifndef WT_ENGINE_GSO_H
#define WT_ENGINE_GSO_H

#include <stdbool.h>
#include <stdint.h>

#include "base/drops.h"
#include "wire/vnet.h"

enum gso_kind { GSO_WHOLE, GSO_TCP, GSO_UDP };

/**
 * struct gso - One packet from TUN on its way to being cut
 * @packet:	As read, behind the vnet header
 * @len:	Its length
 * @kind:	GSO_WHOLE is passed on as it is
 * @version:	4 or 6
 * @ecn:	CWR belongs to the first segment only
 * @header_len:	IP and transport header; each segment gets a copy
 * @l4_offset:	Where the transport header begins
 * @segment_len: Payload of each segment but the last
 * @segments:	How many, at least 1
 */
struct gso {
	uint8_t *packet;
	uint32_t len;
	enum gso_kind kind;
	uint8_t version;
	bool ecn;
	uint32_t header_len;
	uint32_t l4_offset;
	uint32_t segment_len;
	uint32_t segments;
};

/**
 * gso_begin() - Check what TUN says about a packet, finish a lone checksum
 * @g:		Filled on success
 * @packet:	May be written to
 * @len:	Its length
 * @header:	Zeros for a finished packet
 *
 * Return: DROP_NONE, or why it cannot be sent
 */
enum drop_reason gso_begin(struct gso *g, uint8_t *packet, uint32_t len,
			   const struct vnet_header *header);

/** gso_packet_len() - Length of segment @i, headers included; only the last differs */
static inline uint32_t gso_packet_len(const struct gso *g, uint32_t i)
{
	uint32_t payload = g->len - g->header_len;

	if (g->kind == GSO_WHOLE)
		return g->len;
	if (i + 1 < g->segments)
		return g->header_len + g->segment_len;
	return g->header_len + payload - i * g->segment_len;
}

/** gso_write() - Write segment @i, gso_packet_len() bytes, with all checksums right */
void gso_write(const struct gso *g, uint32_t i, uint8_t *out);

#endif /* WT_ENGINE_GSO_H */
