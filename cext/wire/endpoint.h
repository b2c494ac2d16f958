/* SPDX-License-Identifier: Apache-2.0 */
/* An outer UDP address pair: where a peer is, and from where we answer it. */
#ifndef WT_WIRE_ENDPOINT_H
#define WT_WIRE_ENDPOINT_H

#include <stdint.h>

#define WT_AF_NONE 0
#define WT_AF_INET 4
#define WT_AF_INET6 6

/**
 * struct endpoint - Remote address and port, and the sticky local source
 * @family:		WT_AF_NONE, WT_AF_INET or WT_AF_INET6; not the host's AF_*
 * @source_known:	1 if @source and @source_ifindex hold the address that the
 *			peer last reached us at; 0 lets the host's routing choose
 * @port:		UDP port, host order
 * @scope_id:		Zone of a link-local @address, else 0
 * @source_ifindex:	Interface index of @source, 0 when not known
 * @address:		Remote address, network order; v4 in the first 4 bytes,
 *			the rest zero
 * @source:		Local address of the same family, same layout
 */
struct endpoint {
	uint8_t family;
	uint8_t source_known;
	uint16_t port;
	uint32_t scope_id;
	uint32_t source_ifindex;
	uint8_t address[16];
	uint8_t source[16];
};

_Static_assert(sizeof(struct endpoint) == 44, "no padding: endpoints are compared bytewise");

#endif /* WT_WIRE_ENDPOINT_H */
