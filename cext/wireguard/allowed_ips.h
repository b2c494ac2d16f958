/* SPDX-License-Identifier: Apache-2.0 */
/* Which peer an inner address belongs to: longest prefix wins. */
#ifndef WT_WIREGUARD_ALLOWED_IPS_H
#define WT_WIREGUARD_ALLOWED_IPS_H

#include <stdint.h>

/**
 * DOC: Theory of operation - allowed IPs
 *
 * One binary trie with path compression per family.  A node is a prefix; it either
 * has an owner or exists because two prefixes part there.  An address is kept as
 * two 64-bit words in host order, IPv4 in the upper half of the first, so that one
 * piece of code serves both families and a step of a lookup is two XORs.
 *
 *	lookup		walks while the node's prefix contains the address and
 *			remembers the last owner
 *	insert		moves the prefix to its new owner if it is already there
 *	remove		takes the owner away, then every node that has become
 *			neither owned nor a fork
 *
 * Nodes lie in one array and point to each other by position, 0 being none.  The
 * array grows only in insert, which only configuration calls.  The nodes that an
 * owner has form a list, so that removing an owner does not visit the others.
 */
#define ALLOWED_IPS_NONE 0u

/**
 * struct allowed_node - A prefix
 * @high:	First 64 bits of the address, bits behind the prefix are zero
 * @low:	Last 64 bits
 * @owner:	Who gets addresses under it, NULL for a fork
 * @child:	Longer prefixes, by the first bit behind this one
 * @parent:	The shorter prefix above, ALLOWED_IPS_NONE at the root
 * @cidr:	Length
 * @family:	WT_AF_INET or WT_AF_INET6; chooses the root
 * @owned_next:	The owner's next node
 * @owned_previous: The owner's previous node, ALLOWED_IPS_NONE for its first
 */
struct allowed_node {
	uint64_t high;
	uint64_t low;
	void *owner;
	uint32_t child[2];
	uint32_t parent;
	uint8_t cidr;
	uint8_t family;
	uint32_t owned_next;
	uint32_t owned_previous;
};

/**
 * struct allowed_ips - Both tries
 * @nodes:	nodes[0] is not used
 * @capacity:	Nodes allocated
 * @fresh:	First node that was never used
 * @free:	List of given back nodes through @child[0]
 * @root:	[0] IPv4, [1] IPv6
 * @prefixes:	Nodes with an owner
 * @limit:	Most prefixes
 */
struct allowed_ips {
	struct allowed_node *nodes;
	uint32_t capacity;
	uint32_t fresh;
	uint32_t free;
	uint32_t root[2];
	uint32_t prefixes;
	uint32_t limit;
};

#endif /* WT_WIREGUARD_ALLOWED_IPS_H */
