/* SPDX-License-Identifier: Apache-2.0 */
/* The keys and counters of one session. */
#ifndef WT_WIREGUARD_KEYPAIR_H
#define WT_WIREGUARD_KEYPAIR_H

#include <stdbool.h>
#include <stdint.h>

#include "wireguard/replay.h"

/**
 * DOC: Theory of operation - three keypairs
 *
 * A handshake yields a keypair.  A peer has up to three at a time:
 *
 *	current		sends and receives
 *	previous	only receives: packets that were under way at a rekey
 *	next		only receives: we answered an initiation and wait for the
 *			first packet that proves that our response arrived
 *
 *	initiator, response received:	previous := next ? next : current
 *					current  := new
 *	responder, response sent:	next := new, previous := none
 *	packet authenticated by next:	previous := current, current := next
 *
 * The structures stay in their slots, only the three pointers move: a job of a
 * batch may point to a key while a packet of the same batch moves its keypair
 * from next to current.
 */

/**
 * struct wg_keypair - One session; receiving members first, sending behind
 * @receive_key:	What the peer seals with
 * @created_ns:		When the keys were derived
 * @local_index:	The peer puts it into its packets; 0 marks a free slot
 * @remote_index:	We put it into ours
 * @initiator:		We began the handshake, so renewing it in time is our task
 * @can_receive:	Cleared when age or counters end the session
 * @can_send:		The same for our direction, or when told to expire
 * @window:		Counters received
 * @send_key:		What we seal with
 * @send_counter:	Next counter; 64 bits on every machine
 */
struct wg_keypair {
	uint8_t receive_key[32];
	uint64_t created_ns;
	uint32_t local_index;
	uint32_t remote_index;
	bool initiator;
	bool can_receive;
	bool can_send;
	uint8_t send_key[32];
	uint64_t send_counter;
	struct replay_window window;
};

#endif /* WT_WIREGUARD_KEYPAIR_H */
