/* SPDX-License-Identifier: Apache-2.0 */
/* Which transport counters a session has already accepted. */
#ifndef WT_WIREGUARD_REPLAY_H
#define WT_WIREGUARD_REPLAY_H

#include <stdbool.h>
#include <stdint.h>

#include "wireguard/constants.h"

/**
 * DOC: Theory of operation - replay window
 *
 * A receiver takes each counter at most once, yet lets the network reorder
 * packets.  It remembers the last REPLAY_WINDOW counters in a ring of 64-bit
 * words (the scheme of RFC 6479).
 *
 *	counter / 64 % REPLAY_WORDS	the word that holds the counter's bit
 *	counter % 64			the bit inside it
 *
 * Moving the edge forward clears the words it passes, never single bits: one
 * spare word makes that safe, hence REPLAY_WORDS - 1 below.
 *
 * Call only with a counter that the AEAD tag has already vouched for: a forged
 * one would move the window.
 */
#define REPLAY_WORDS	128u
#define REPLAY_WINDOW	((REPLAY_WORDS - 1u) * 64u)

/**
 * struct replay_window - Counters already accepted from one keypair
 * @edge:	One more than the highest accepted counter, 0 when none yet
 * @seen:	Ring of bits, 1 for an accepted counter
 */
struct replay_window {
	uint64_t edge;
	uint64_t seen[REPLAY_WORDS];
};

bool replay_accept(struct replay_window *w, uint64_t counter);

#endif /* WT_WIREGUARD_REPLAY_H */
