/* SPDX-License-Identifier: Apache-2.0 */
/* Names that SOCKS clients send datagrams to: what they mean, and datagrams that wait for it. */
#ifndef WT_ENGINE_RELAY_NAMES_H
#define WT_ENGINE_RELAY_NAMES_H

#include <stdbool.h>
#include <stdint.h>

/**
 * DOC: Theory of operation - names
 *
 * A datagram's SOCKS header may carry a name (RFC 1928, 7).  The interpreter
 * resolves names; what it said is kept here, so that only the first datagrams
 * to a name wait for it:
 *
 *	datagram -> names_find() -> known: sent to the address, or dropped where
 *		    there is none	 -> unknown: names_hold()
 *	names_next_asked() -> the interpreter -> names_learn() -> names_release()
 *
 * Limits: RELAY_NAMES known ones, the one that ends first gives way; RELAY_HELD
 * datagrams of at most RELAY_HELD_BYTES, RELAY_HELD_SHARE of them of one association,
 * so that names which nobody answers for hold no other client up; what finds no room is
 * dropped.
 */
enum {
	RELAY_NAMES = 64,
	RELAY_HELD = 32,
	RELAY_HELD_SHARE = 8,
	RELAY_HELD_BYTES = 2048,
	RELAY_NAME_OFFSET = 5,		/* of a name in its SOCKS header, behind its length */
};

/**
 * struct relay_name - A name that was resolved
 * @until_ns:	From then on it is unknown again; 0 is a free slot
 * @family:	Of @address; 0: the name has none
 */
struct relay_name {
	uint64_t until_ns;
	uint8_t address[16];
	uint8_t family;
	uint8_t length;
	uint8_t name[255];
};

/**
 * struct relay_held - A datagram that waits, as its client sent it
 * @association: Id of where it came in
 * @length:	Of @data; 0 is a free slot
 * @asked:	The interpreter has its name
 */
struct relay_held {
	uint32_t association;
	uint16_t length;
	bool asked;
	uint8_t data[RELAY_HELD_BYTES];
};

struct relay_names {
	struct relay_name known[RELAY_NAMES];
	struct relay_held held[RELAY_HELD];
};

const struct relay_name *names_find(const struct relay_names *n, const uint8_t *name,
				    uint8_t length, uint64_t now_ns);
/* @data begins with its SOCKS header, which was checked. False: no room. */
bool names_hold(struct relay_names *n, uint32_t association, const uint8_t *data, uint32_t length);
/* A name that nobody was asked for yet; NULL when there is none. Its length precedes it. */
const uint8_t *names_next_asked(struct relay_names *n);
/* @address NULL: it has none. */
void names_learn(struct relay_names *n, const uint8_t *name, uint8_t length, uint8_t family,
		 const uint8_t *address, uint64_t until_ns);
/* Take a datagram to this name out; good until the next call of names_hold(). NULL: none. */
const struct relay_held *names_release(struct relay_names *n, const uint8_t *name,
				       uint8_t length, uint16_t *datagram_len);
/* Everything that is known. */
void names_forget(struct relay_names *n);

#endif /* WT_ENGINE_RELAY_NAMES_H */
