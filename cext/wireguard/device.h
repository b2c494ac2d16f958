/* SPDX-License-Identifier: Apache-2.0 */
/* The WireGuard device as its user sees it: what goes in, what comes out, when. */
#ifndef WT_WIREGUARD_DEVICE_H
#define WT_WIREGUARD_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/drops.h"
#include "crypto/crypto.h"
#include "wire/endpoint.h"

/**
 * DOC: Theory of operation - a WireGuard device without sockets, clock or threads
 *
 * The caller owns sockets, clock, packet memory and the AEAD batches; the device
 * owns keys, sessions, timers and the decision what becomes of each packet.
 * Functions lie in four modules: device (life, configuration, observation),
 * receive, send and timers; their .pxd files list them.
 *
 * One turn of the caller's loop, all on one thread:
 *
 *	for each datagram:	wg_receive_prepare()	-> WG_IN_OPEN fills a job
 *	aead_open_batch(jobs)
 *	for each WG_IN_OPEN:	wg_receive_finish()	-> WG_IN_DELIVER: payload
 *	wg_process_handshakes(budget)			Diffie-Hellman happens here
 *	while wg_next_staged():	wg_send_prepare() ...	what waited for a session
 *	for each inner packet:	wg_route(), wg_send_prepare()
 *							-> WG_OUT_READY fills a job
 *							-> WG_OUT_STAGE: wg_stage()
 *	aead_seal_batch(jobs), send, wg_send_done() per peer
 *	wg_advance()					timers, when wg_poll_at() is due
 *	while wg_next_transmit(): send			handshakes, cookies, keepalives
 *	while wg_next_event()
 *	sleep until wg_poll_at() or a descriptor is ready
 *
 * Time is now_ns, monotonic, never 0 and never going back between two calls.
 * wg_device_set_unix_time() relates it to the wall clock, for the timestamps in
 * initiations and for what users see.
 *
 * The batch rule.  Between wg_receive_prepare() and wg_receive_finish() of a
 * packet, call only wg_receive_prepare(), wg_receive_finish(), aead_open_batch(),
 * wg_route(), wg_stage() and wg_send_done().  Between wg_send_prepare() and the
 * sealing of its job call only wg_route(), wg_send_prepare(), wg_stage(),
 * wg_send_done() and the inbound pair.  Everything else may erase or replace the
 * key that a job points to.  Inbound, breaking the rule by a configuration call
 * (a peer removed, a key replaced) is still harmless: the memory of a removed
 * peer lives until the next wg_advance(), and wg_receive_finish() drops a packet
 * whose session is gone, whatever its tag said.
 *
 * Memory.  Everything that packets can fill is reserved by wg_device_create():
 * handshake queue, outbox, rate limiter, staged packets, events.  Peers and
 * allowed IPs take memory when configuration commands add them, never because of
 * a packet.  At a limit something is dropped and counted in wg_drops().
 *
 * Silence.  Nothing is sent in reaction to a message that fails its checks.  The
 * one exception is the protocol's own: under load a handshake message whose MAC1
 * is right gets a cookie reply, which is smaller than the message.
 */

struct wg_device;
struct wg_peer;
struct wg_keypair;

#define WG_KEY_LEN 32
/* Room in front of an inner packet for the transport header. */
#define WG_HEADER_LEN 16
/* Room behind it: up to 15 bytes of padding and the tag. */
#define WG_TRAILER_LEN 31
/* Keepalive: a transport message without payload. */
#define WG_KEEPALIVE_LEN 32
/* The longest message that the device itself sends: an initiation. */
#define WG_TRANSMIT_MAX 148
#define WG_MAX_STAGED_PER_PEER 128
#define WG_NEVER UINT64_MAX

/**
 * typedef wg_random_fn - Fill @out with @len unpredictable bytes; never fails
 * @ctx: What was given to wg_device_create()
 */
typedef void (*wg_random_fn)(void *ctx, uint8_t *out, size_t len);

/**
 * struct wg_limits - What a device may use; 0 takes the default
 * @max_peers:		Peers, default 65536
 * @max_allowed_ips:	Prefixes over all peers, default 262144
 * @max_staged_packets:	Inner packets that wait for a handshake, over all peers;
 *			default 256, at most WG_MAX_STAGED_PER_PEER for one peer
 * @staged_packet_bytes: Longest packet that can wait, default 1500
 * @handshake_queue:	Handshake messages that passed MAC1 and wait for their
 *			turn, default 256; an eighth of it waiting means load
 * @handshake_rate:	Initiations and responses a second above which the device
 *			considers itself under load, default 200 (burst: the same)
 * @ratelimiter_entries: Sources that are limited at the same time, default 4096
 * @outbox:		Handshake responses and cookie replies that wait to be
 *			sent, default 256
 * @events:		Events that wait to be read, default 256
 * @build_unix_ns:	Initiations never carry an older time than this
 * @floor_step_ns:	How far ahead WG_EVENT_TIMESTAMP_FLOOR asks to save,
 *			default 4 hours
 */
struct wg_limits {
	uint32_t max_peers;
	uint32_t max_allowed_ips;
	uint32_t max_staged_packets;
	uint32_t staged_packet_bytes;
	uint32_t handshake_queue;
	uint32_t handshake_rate;
	uint32_t ratelimiter_entries;
	uint32_t outbox;
	uint32_t events;
	uint64_t build_unix_ns;
	uint64_t floor_step_ns;
};

/* What configuration calls return besides 0. */
enum wg_error {
	WG_ERROR_NO_MEMORY = -1,
	WG_ERROR_LIMIT = -2,	/* max_peers or max_allowed_ips is reached */
	WG_ERROR_OWN_KEY = -3,	/* the peer's public key is the device's own */
	WG_ERROR_RANGE = -4,	/* family or prefix length is none */
};

enum wg_inbound_verdict {
	WG_IN_DROPPED = 0,	/* counted; forget it */
	WG_IN_CONSUMED,		/* was for the device itself; forget it */
	WG_IN_OPEN,		/* prepare only: the job is filled, finish after the batch */
	WG_IN_DELIVER,		/* finish only: payload, len and peer are set */
};

/**
 * struct wg_inbound - One datagram between prepare and finish
 * @peer:	Who sent it; after finish, valid until the next configuration call
 * @keypair:	Session that the receiver index named
 * @job:	The caller's job, filled by prepare, read by finish
 * @from:	As given to prepare; must stay readable until finish
 * @payload:	After WG_IN_DELIVER: the inner packet, decrypted in place
 * @counter:	From the transport header
 * @index:	Receiver index, to notice a session that ended in between
 * @len:	Bytes of @payload, padding cut off by the inner header's length
 */
struct wg_inbound {
	struct wg_peer *peer;
	struct wg_keypair *keypair;
	const struct aead_job *job;
	const struct endpoint *from;
	uint8_t *payload;
	uint64_t counter;
	uint32_t index;
	uint32_t len;
};

enum wg_outbound_verdict {
	WG_OUT_DROPPED = 0,	/* counted; forget it */
	WG_OUT_STAGE,		/* no session: give the packet to wg_stage() */
	WG_OUT_READY,		/* header and padding written, job filled */
};

/**
 * struct wg_outbound - One inner packet that is ready to be sealed and sent
 * @endpoint:	Where to; inside the peer, valid until the next call that is not
 *		in the batch rule's list
 * @len:	Bytes of the whole datagram, which starts where the header room did
 */
struct wg_outbound {
	const struct endpoint *endpoint;
	uint32_t len;
};

/**
 * struct wg_transmit - A message that the device itself wants sent
 * @to:		Destination and sticky source
 * @len:	Bytes of @data
 * @peer:	Whose message it is, NULL for a cookie reply
 * @data:	The datagram
 */
struct wg_transmit {
	struct endpoint to;
	uint32_t len;
	struct wg_peer *peer;
	uint8_t data[WG_TRANSMIT_MAX];
};

enum wg_event_kind {
	WG_EVENT_HANDSHAKE = 1,		/* a session was made; unix_ns, duration_ns */
	WG_EVENT_HANDSHAKE_GIVEN_UP,	/* REKEY_ATTEMPT_TIME passed without answer */
	WG_EVENT_ENDPOINT,		/* the peer's address or port changed */
	WG_EVENT_TIMESTAMP_FLOOR,	/* save unix_ns as the next start's floor */
};

/**
 * struct wg_event - What the device noticed
 * @kind:		enum wg_event_kind
 * @public_key:		The peer's; zero where no peer is meant
 * @unix_ns:		WG_EVENT_HANDSHAKE: when; _TIMESTAMP_FLOOR: what to save
 * @duration_ns:	WG_EVENT_HANDSHAKE that we initiated: from the initiation to
 *			its response; else 0
 */
struct wg_event {
	uint32_t kind;
	uint8_t public_key[WG_KEY_LEN];
	uint64_t unix_ns;
	uint64_t duration_ns;
};

/**
 * struct wg_peer_status - A peer as users see it
 * @last_handshake_unix_ns:	0 is never
 * @handshake_duration_ns:	Of the last one that we initiated; 0 is not known
 * @rx_bytes:			UDP payload bytes of authenticated messages
 * @tx_bytes:			UDP payload bytes sent
 * @handshake_attempts:		Initiations since the last completed handshake
 * @keepalive_s:		0 is off
 * @has_session:		Whether a packet could be sent without a handshake
 */
struct wg_peer_status {
	uint8_t public_key[WG_KEY_LEN];
	uint8_t preshared_key[WG_KEY_LEN];
	struct endpoint endpoint;
	uint64_t last_handshake_unix_ns;
	uint64_t handshake_duration_ns;
	uint64_t rx_bytes;
	uint64_t tx_bytes;
	uint32_t handshake_attempts;
	uint16_t keepalive_s;
	bool has_session;
};

/**
 * struct wg_prefix - An address range
 * @family:	WT_AF_INET or WT_AF_INET6
 * @cidr:	Prefix length
 * @address:	Network order; v4 in the first 4 bytes, the rest zero
 */
struct wg_prefix {
	uint8_t family;
	uint8_t cidr;
	uint8_t address[16];
};

#endif /* WT_WIREGUARD_DEVICE_H */
