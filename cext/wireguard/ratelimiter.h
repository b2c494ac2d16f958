/* SPDX-License-Identifier: Apache-2.0 */
/* How many handshakes one source may ask for while the device is under load. */
#ifndef WT_WIREGUARD_RATELIMITER_H
#define WT_WIREGUARD_RATELIMITER_H

#include <stdint.h>

/**
 * DOC: Theory of operation - rate limiter
 *
 * One token bucket per source: PACKETS_PER_SECOND, PACKETS_BURSTABLE at once.  A
 * source is an IPv4 address or the /64 of an IPv6 address.
 *
 * A bucket is kept as the time at which it will be full again.  A bucket that is
 * full is the same as no bucket, so entries need no removal: a new source takes
 * the place of any entry of its set that is full by now, and where none is, the
 * new source is refused.  The table has sets of RATELIMITER_WAYS entries; a keyed
 * hash chooses the set, so that nobody can aim at one.
 */
#define RATELIMITER_WAYS 8

/**
 * struct ratelimiter_entry - One source
 * @source:	First 8 bytes of the address, v4 in the upper half
 * @family:	WT_AF_*, so that a v4 address is no v6 prefix; 0 when never used
 * @full_at_ns:	When the bucket has all of its tokens again
 */
struct ratelimiter_entry {
	uint64_t source;
	uint64_t full_at_ns;
	uint32_t family;
};

struct ratelimiter {
	struct ratelimiter_entry *entries;
	uint32_t set_mask;	/* sets - 1, a power of two minus one */
	uint8_t hash_key[16];
};

#endif /* WT_WIREGUARD_RATELIMITER_H */
