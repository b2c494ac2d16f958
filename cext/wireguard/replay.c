/* SPDX-License-Identifier: Apache-2.0 */
/* The replay window's one operation. */
#include "wireguard/replay.h"

/**
 * replay_accept() - Take a counter unless it is a replay or too old
 * @w:		Window of the keypair that authenticated the packet
 * @counter:	Counter from the transport header
 *
 * Return: true if the packet may be delivered
 */
bool replay_accept(struct replay_window *w, uint64_t counter)
{
	uint64_t word = counter / 64, bit = UINT64_C(1) << (counter % 64);

	if (counter >= REJECT_AFTER_MESSAGES)
		return false;
	if (counter + REPLAY_WINDOW + 1 < w->edge)
		return false;

	if (counter >= w->edge) {
		uint64_t newest = w->edge ? (w->edge - 1) / 64 : 0;
		uint64_t passed = word - newest;

		if (passed > REPLAY_WORDS)
			passed = REPLAY_WORDS;
		while (passed--)
			w->seen[(word - passed) % REPLAY_WORDS] = 0;
		w->edge = counter + 1;
	}

	if (w->seen[word % REPLAY_WORDS] & bit)
		return false;
	w->seen[word % REPLAY_WORDS] |= bit;
	return true;
}
