/* SPDX-License-Identifier: Apache-2.0 */
/* Which session a random 32-bit index on the wire means. */
#ifndef WT_WIREGUARD_INDEX_TABLE_H
#define WT_WIREGUARD_INDEX_TABLE_H

#include <stdint.h>

/**
 * DOC: Theory of operation - index table
 *
 * Every handshake that we begin and every session of ours has an index that the
 * other side puts into its messages.  Indices are random: they tell nothing about
 * how many sessions there are, and they spread over the table without a hash.
 * 0 is never given out, it marks a free entry.
 *
 * Open addressing with linear probing; removal shifts entries back, so that there
 * are no tombstones and a miss ends at the first free entry.  The table is at most
 * half full.  It grows when a peer is added (index_table_reserve), so inserting
 * on behalf of a packet never allocates and never fails.
 */
struct wg_peer;

/* What an index belongs to: one of a peer's keypair slots, or its handshake. */
#define INDEX_SLOT_HANDSHAKE 3

/**
 * struct index_entry - One index in use
 * @index:	As on the wire, host order; 0 is free
 * @slot:	0 to 2: peer->keypairs[slot]; INDEX_SLOT_HANDSHAKE
 * @peer:	Whose
 */
struct index_entry {
	uint32_t index;
	uint32_t slot;
	struct wg_peer *peer;
};

struct index_table {
	struct index_entry *entries;
	uint32_t mask;		/* entries - 1, a power of two minus one */
	uint32_t used;
};

#endif /* WT_WIREGUARD_INDEX_TABLE_H */
