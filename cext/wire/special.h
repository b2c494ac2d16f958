/* SPDX-License-Identifier: Apache-2.0 */
/* Which inner addresses can be one host that somebody connects to: one table for all. */
#ifndef WT_WIRE_SPECIAL_H
#define WT_WIRE_SPECIAL_H

#include <stdbool.h>
#include <stdint.h>

/**
 * address_is_host - Whether an address can be one host at the far end of a connection
 * @family:	WT_AF_INET or WT_AF_INET6
 * @address:	4 or 16 bytes, network order
 *
 * Refused are addresses that mean this host or network, one link, a group or nothing
 * (IANA's special-purpose registries), also where an IPv6 address only carries such an
 * IPv4 address: as a mapped one, behind a NAT64, in 6to4 or Teredo.  Private addresses
 * are hosts: a tunnel is full of them.
 */
bool address_is_host(uint8_t family, const uint8_t *address);

#endif /* WT_WIRE_SPECIAL_H */
