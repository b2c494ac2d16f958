/* SPDX-License-Identifier: Apache-2.0 */
/* Who talks to whom: tuples, and the hash table that finds a flow by one. */
#ifndef WT_NETSTACK_FLOW_H
#define WT_NETSTACK_FLOW_H

#include <stdint.h>
#include <string.h>

#include "base/endian.h"

/**
 * DOC: Theory of operation - flow table
 *
 * Open addressing with linear probing over slots of hash and reference, at
 * most half full, deletion by moving back: no tombstones, no list to walk.
 * The hash is SipHash-1-3 under a key drawn when the stack is made, so that
 * nobody outside can aim at one chain.
 *
 * A reference is a kind and an index into that kind's array.  TCP flow, SYN
 * request and TIME_WAIT of one connection follow each other under one tuple.
 */
enum flow_kind {
	FLOW_TCP = 0,
	FLOW_SYN_REQUEST = 1,
	FLOW_TIME_WAIT = 2,
	FLOW_UDP = 3,	/* and echo: the identifier stands for the remote port */
};

#define FLOW_INDEX_BITS	20
#define FLOW_INDEX_MASK	((1u << FLOW_INDEX_BITS) - 1u)
#define FLOW_INDEX_MAX	FLOW_INDEX_MASK
#define FLOW_GENERATION_MASK 0x3ffu

/**
 * struct flow_tuple - Addresses and ports of one flow, seen from this stack
 * @local:		v4 as ::ffff:a.b.c.d, so that one layout serves both
 * @remote:		The same for the other end
 * @local_port:		Host order; 0 for echo
 * @remote_port:	Host order; echo: identifier
 */
struct flow_tuple {
	uint8_t local[16];
	uint8_t remote[16];
	uint16_t local_port;
	uint16_t remote_port;
};

_Static_assert(sizeof(struct flow_tuple) == 36, "no padding: tuples are compared bytewise");

struct flow_slot {
	uint32_t hash;
	uint32_t ref;
};

/**
 * struct flow_table - The slots
 * @slot:	mask + 1 of them, ref NS_NIL when free
 * @mask:	Power of two less one
 * @used:	How many hold a flow
 * @key:	SipHash key
 */
struct flow_table {
	struct flow_slot *slot;
	uint32_t mask;
	uint32_t used;
	uint64_t key[2];
};

static inline uint32_t flow_ref(uint32_t kind, uint32_t index)
{
	return kind << 30 | index;
}

static inline uint32_t ref_kind(uint32_t ref)
{
	return ref >> 30;
}

static inline uint32_t ref_index(uint32_t ref)
{
	return ref & FLOW_INDEX_MASK;
}

/* A handle is a reference with the generation of its slot between the two. */
static inline uint32_t flow_handle(uint32_t kind, uint32_t index, uint32_t generation)
{
	return kind << 30 | (generation & FLOW_GENERATION_MASK) << FLOW_INDEX_BITS | index;
}

static inline uint32_t handle_generation(uint32_t handle)
{
	return handle >> FLOW_INDEX_BITS & FLOW_GENERATION_MASK;
}

static inline int address_is_v4(const uint8_t *address)
{
	static const uint8_t mapped[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };

	return memcmp(address, mapped, sizeof(mapped)) == 0;
}

static inline void address_from_v4(uint8_t *address, const uint8_t *v4)
{
	memset(address, 0, 10);
	address[10] = 0xff;
	address[11] = 0xff;
	memcpy(address + 12, v4, 4);
}

static inline uint64_t siphash_rotate(uint64_t x, unsigned int by)
{
	return x << by | x >> (64 - by);
}

#define SIPHASH_ROUND(v)                                                       \
	do {                                                                   \
		v[0] += v[1];                                                  \
		v[1] = siphash_rotate(v[1], 13) ^ v[0];                        \
		v[0] = siphash_rotate(v[0], 32);                               \
		v[2] += v[3];                                                  \
		v[3] = siphash_rotate(v[3], 16) ^ v[2];                        \
		v[0] += v[3];                                                  \
		v[3] = siphash_rotate(v[3], 21) ^ v[0];                        \
		v[2] += v[1];                                                  \
		v[1] = siphash_rotate(v[1], 17) ^ v[2];                        \
		v[2] = siphash_rotate(v[2], 32);                               \
	} while (0)

/**
 * siphash() - SipHash with @c rounds a word and @d at the end
 * @key:	Two words
 * @p:		Input, from any alignment
 * @len:	Its length
 */
static inline uint64_t siphash(const uint64_t key[2], const void *p, size_t len, int c, int d)
{
	uint64_t v[4] = { key[0] ^ 0x736f6d6570736575u, key[1] ^ 0x646f72616e646f6du,
			  key[0] ^ 0x6c7967656e657261u, key[1] ^ 0x7465646279746573u };
	const uint8_t *in = p;
	uint64_t word, last = (uint64_t)len << 56;
	size_t i;

	for (; len >= 8; len -= 8, in += 8) {
		word = load_le64(in);
		v[3] ^= word;
		for (int round = 0; round < c; round++)
			SIPHASH_ROUND(v);
		v[0] ^= word;
	}
	for (i = 0; i < len; i++)
		last |= (uint64_t)in[i] << (8 * i);
	v[3] ^= last;
	for (int round = 0; round < c; round++)
		SIPHASH_ROUND(v);
	v[0] ^= last;
	v[2] ^= 0xff;
	for (int round = 0; round < d; round++)
		SIPHASH_ROUND(v);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

#endif /* WT_NETSTACK_FLOW_H */
