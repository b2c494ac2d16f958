/* SPDX-License-Identifier: Apache-2.0 */
/* State of a Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s handshake. */
#ifndef WT_WIREGUARD_NOISE_H
#define WT_WIREGUARD_NOISE_H

#include <stdbool.h>
#include <stdint.h>

#include "wire/messages.h"

/**
 * DOC: Theory of operation - handshake
 *
 * The initiator keeps a wg_handshake from its initiation until the response; the
 * responder needs no state, it answers at once.  So a peer that initiates and
 * answers at the same time loses neither: both sides end with both sessions and
 * whichever becomes current at one side is at least previous at the other.
 *
 * Each step works on a copy and commits only when every check has passed: a
 * forged message leaves a pending handshake as it was.
 *
 * Making an ephemeral key pair costs as much as a Diffie-Hellman and needs nothing
 * of the message that it is for.  So a few are made ahead, while there is nothing
 * else to do.  Each is used once, by whichever handshake comes first, and erased
 * with that; when none is left one is made on the spot.
 *
 * A pair may be meant for an initiation to one peer: then its Diffie-Hellman with
 * the peer's static key is made ahead too.
 */

/* Key pairs that are kept ready; a handshake takes one, on either side. */
#define NOISE_EPHEMERALS 4

/**
 * struct noise_state - What both sides have mixed so far
 * @chaining_key:	Ci in the paper
 * @hash:		Hi in the paper
 */
struct noise_state {
	uint8_t chaining_key[32];
	uint8_t hash[32];
};

/**
 * struct noise_identity - A static key pair, ours
 * @known:	False until a private key is set
 */
struct noise_identity {
	bool known;
	uint8_t private_key[32];
	uint8_t public_key[32];
};

/**
 * struct noise_remote - What is kept of a peer for its handshakes
 * @static_static:	Diffie-Hellman of both static keys; zero for a low-order key,
 *			which no handshake accepts
 */
struct noise_remote {
	uint8_t public_key[32];
	uint8_t preshared_key[32];
	uint8_t static_static[32];
};

/**
 * struct noise_ephemeral - A key pair for one handshake
 * @shared:	With the static key of @remote
 * @remote:	Whom it is meant for, or NULL
 */
struct noise_ephemeral {
	uint8_t private_key[32];
	uint8_t public_key[32];
	uint8_t shared[32];
	const struct noise_remote *remote;
};

/**
 * struct noise_ephemerals - Key pairs made ahead
 * @pairs:	The first @count are ready, the others zero
 */
struct noise_ephemerals {
	struct noise_ephemeral pairs[NOISE_EPHEMERALS];
	uint32_t count;
};

/**
 * struct wg_handshake - An initiation of ours that waits for its response
 * @local_index:	In the index table; 0 when none is pending
 * @sent_ns:		When the initiation left
 */
struct wg_handshake {
	struct noise_state state;
	uint8_t ephemeral[32];
	uint64_t sent_ns;
	uint32_t local_index;
};

/**
 * struct noise_opened - An initiation of somebody else's while it is consumed
 * @state:		After the last part that was opened
 * @ephemeral:		The initiator's
 * @public_key:		The initiator's static key, once opened
 * @timestamp:		TAI64N, once opened
 * @sender:		The initiator's index
 */
struct noise_opened {
	struct noise_state state;
	uint8_t ephemeral[32];
	uint8_t public_key[32];
	uint8_t timestamp[WG_TIMESTAMP_LEN];
	uint32_t sender;
};

/**
 * struct noise_keys - What a finished handshake yields
 */
struct noise_keys {
	uint8_t send[32];
	uint8_t receive[32];
};

#endif /* WT_WIREGUARD_NOISE_H */
