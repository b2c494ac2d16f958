/* SPDX-License-Identifier: Apache-2.0 */
/* MAC1, MAC2 and cookies: the proof of address that a loaded device asks for. */
#ifndef WT_WIREGUARD_COOKIE_H
#define WT_WIREGUARD_COOKIE_H

#include <stdbool.h>
#include <stdint.h>

#include "wire/messages.h"

/**
 * DOC: Theory of operation - cookies (paper, section 5.4.7)
 *
 * MAC1 proves that the sender knows our public key; without it a message costs
 * one BLAKE2s and gets no answer.  Under load that is not enough: we then reply
 * with a cookie, a MAC over the sender's address and port under a secret that
 * changes every 120 s, sealed so that only who saw the message can open it.  The
 * sender repeats its message after its normal timeout with MAC2, keyed with the
 * cookie, which proves that it receives at the address it sends from.
 */

/**
 * struct cookie_checker - The side that may be under load; one per device
 * @mac1_key:		H("mac1----" || our public key)
 * @cookie_key:		H("cookie--" || our public key), seals replies
 * @secret:		Keys the cookies
 * @secret_born_ns:	When @secret was drawn, 0 when none is
 */
struct cookie_checker {
	uint8_t mac1_key[32];
	uint8_t cookie_key[32];
	uint8_t secret[32];
	uint64_t secret_born_ns;
};

/**
 * struct cookie_maker - The side that sends handshake messages; one per peer
 * @mac1_key:		H("mac1----" || the peer's public key)
 * @cookie_key:		H("cookie--" || the peer's public key), opens replies
 * @cookie:		What the peer last gave us
 * @last_mac1:		MAC1 of our last message, bound into the reply to it
 * @born_ns:		When @cookie came, 0 when there is none
 * @awaits_reply:	@last_mac1 is of a message that had no reply yet
 */
struct cookie_maker {
	uint8_t mac1_key[32];
	uint8_t cookie_key[32];
	uint8_t cookie[WG_COOKIE_LEN];
	uint8_t last_mac1[WG_MAC_LEN];
	uint64_t born_ns;
	bool awaits_reply;
};

#endif /* WT_WIREGUARD_COOKIE_H */
