/* SPDX-License-Identifier: Apache-2.0 */
/* The four messages of WireGuard, as they lie in a datagram. */
#ifndef WT_WIRE_MESSAGES_H
#define WT_WIRE_MESSAGES_H

#include <stdint.h>

/*
 * Section 5.4 of the WireGuard paper.  Every member is an array of bytes, so
 * that a message may lie at any alignment; multi-byte fields are little endian
 * and go through base/endian.h.  The three bytes behind the type are reserved
 * and zero: type and reserved bytes are compared as one 32-bit value.
 */
enum wg_message_type {
	WG_MESSAGE_INITIATION = 1,
	WG_MESSAGE_RESPONSE = 2,
	WG_MESSAGE_COOKIE = 3,
	WG_MESSAGE_DATA = 4,
};

#define WG_TIMESTAMP_LEN 12
#define WG_MAC_LEN 16
#define WG_COOKIE_LEN 16
#define WG_COOKIE_NONCE_LEN 24

/**
 * struct wg_macs - The last 32 bytes of both handshake messages
 * @mac1:	Over everything before it, keyed with the receiver's public key
 * @mac2:	Over everything before it, keyed with a cookie; zero without one
 */
struct wg_macs {
	uint8_t mac1[WG_MAC_LEN];
	uint8_t mac2[WG_MAC_LEN];
};

struct wg_message_initiation {
	uint8_t type[4];
	uint8_t sender[4];
	uint8_t ephemeral[32];
	uint8_t static_key[32 + 16];			/* sealed */
	uint8_t timestamp[WG_TIMESTAMP_LEN + 16];	/* sealed */
	struct wg_macs macs;
};

struct wg_message_response {
	uint8_t type[4];
	uint8_t sender[4];
	uint8_t receiver[4];
	uint8_t ephemeral[32];
	uint8_t nothing[16];				/* sealed: only the tag */
	struct wg_macs macs;
};

struct wg_message_cookie {
	uint8_t type[4];
	uint8_t receiver[4];
	uint8_t nonce[WG_COOKIE_NONCE_LEN];
	uint8_t cookie[WG_COOKIE_LEN + 16];		/* sealed */
};

/* Followed by the sealed, padded inner packet and its 16-byte tag. */
struct wg_message_data {
	uint8_t type[4];
	uint8_t receiver[4];
	uint8_t counter[8];
};

#define WG_MESSAGE_DATA_MIN (sizeof(struct wg_message_data) + 16)

_Static_assert(sizeof(struct wg_macs) == 32, "layout");
_Static_assert(sizeof(struct wg_message_initiation) == 148, "layout");
_Static_assert(sizeof(struct wg_message_response) == 92, "layout");
_Static_assert(sizeof(struct wg_message_cookie) == 64, "layout");
_Static_assert(sizeof(struct wg_message_data) == 16, "layout");

#endif /* WT_WIRE_MESSAGES_H */
