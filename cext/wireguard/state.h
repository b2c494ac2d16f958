/* SPDX-License-Identifier: Apache-2.0 */
/* Everything one device remembers: the layout of struct wg_device and struct wg_peer. */
#ifndef WT_WIREGUARD_STATE_H
#define WT_WIREGUARD_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/drops.h"
#include "wire/endpoint.h"
#include "wire/messages.h"
#include "wireguard/allowed_ips.h"
#include "wireguard/cookie.h"
#include "wireguard/device.h"
#include "wireguard/index_table.h"
#include "wireguard/keypair.h"
#include "wireguard/noise.h"
#include "wireguard/ratelimiter.h"

/* A peer's timers; timers.pyx says what each one means. */
enum wg_timer {
	TIMER_RETRANSMIT_HANDSHAKE,
	TIMER_SEND_KEEPALIVE,
	TIMER_NEW_HANDSHAKE,
	TIMER_ZERO_KEYS,
	TIMER_PERSISTENT_KEEPALIVE,
	WG_TIMER_COUNT,
};

/* Lists that a peer can be on; the links are inside the peer. */
enum wg_list_kind {
	LIST_ALL,	/* every peer, in the order of adding */
	LIST_TRANSMIT,	/* wants to send an initiation or a keepalive */
	LIST_READY,	/* has staged packets and a session for them */
	WG_LIST_COUNT,
};

/* wg_peer.wants: what wg_next_transmit() makes for this peer. */
#define WANT_INITIATION 1u
#define WANT_KEEPALIVE 2u

#define HEAP_NONE UINT32_MAX
#define STAGED_NONE UINT32_MAX

struct wg_list {
	struct wg_peer *first;
	struct wg_peer *last;
};

struct wg_link {
	struct wg_peer *next;
	struct wg_peer *previous;
	bool linked;
};

/**
 * struct wg_peer - A peer: hot members first, keypairs last
 * @current:		Session in use, or NULL; all three point into @keypairs
 * @previous:		Session before it, or NULL
 * @next:		Session not yet confirmed, or NULL
 * @deadline_ns:	When each timer fires, WG_NEVER when it is off
 * @wake_ns:		Not later than any of @deadline_ns: the peer's key in the heap
 * @heap_at:		Position in the heap, or HEAP_NONE
 * @keepalive_s:	Persistent keepalive, 0 is off
 * @last_minute_sent:	A handshake for the end of the session was asked for
 * @proved:		The last handshake message made a session that is confirmed, and
 *			neither path nor keys changed since
 * @wants:		WANT_*
 * @retries:		Consecutive tries of TIMER_RETRANSMIT_HANDSHAKE
 * @last_handshake_sent_ns: Last initiation or response, 0 for none: rate limit
 * @last_initiation_ns:	Last initiation consumed, 0 for none: flood limit
 * @timestamp_sent:	Unix time of our last initiation, whitened
 * @timestamp_seen:	TAI64N of the peer's last initiation
 * @completed_ns:	When the last handshake was complete, 0 for never
 * @staged_first:	Oldest staged packet, STAGED_NONE when none
 * @number:		Of this peer alone while it lives, never 0
 */
struct wg_peer {
	struct wg_keypair *current;
	struct wg_keypair *previous;
	struct wg_keypair *next;
	uint64_t rx_bytes;
	uint64_t tx_bytes;
	uint64_t deadline_ns[WG_TIMER_COUNT];
	uint64_t wake_ns;
	uint32_t heap_at;
	uint16_t keepalive_s;
	bool last_minute_sent;
	bool proved;
	uint32_t wants;
	struct endpoint endpoint;

	uint32_t retries;
	uint32_t initiations_sent;
	uint32_t staged_first;
	uint32_t staged_last;
	uint32_t staged_count;
	uint32_t allowed_first;
	uint32_t number;
	struct wg_link links[WG_LIST_COUNT];
	uint64_t last_handshake_sent_ns;
	uint64_t last_initiation_ns;
	uint64_t timestamp_sent;
	uint64_t completed_ns;
	uint64_t handshake_duration_ns;
	uint8_t timestamp_seen[WG_TIMESTAMP_LEN];

	struct noise_remote remote;
	struct wg_handshake handshake;
	struct cookie_maker cookie;
	struct wg_keypair keypairs[3];
};

/**
 * struct wg_queued - A handshake message that passed MAC1 and waits
 */
struct wg_queued {
	struct endpoint from;
	uint32_t len;
	uint8_t message[WG_TRANSMIT_MAX];
};

/**
 * struct wg_staged - Head of a slot in the pool of staged packets
 * @next:	Next one of the same peer or of the free list
 * @len:	Bytes of the packet, which follows this head
 */
struct wg_staged {
	uint32_t next;
	uint32_t len;
};

/**
 * struct wg_ring - Positions of a bounded queue in an array
 */
struct wg_ring {
	uint32_t head;
	uint32_t count;
	uint32_t capacity;
};

/**
 * struct wg_device - One device
 * @up:			Packets are taken and sent
 * @ahead:		Key pairs for the next handshakes; empty while it is down
 * @random:		Randomness for keys and indices
 * @jitter:		State of a small generator for timers, which need no secrecy
 * @initial:		Noise state before the first message, the same for everybody
 * @unix_ns, @unix_at_ns: The wall clock said @unix_ns at @unix_at_ns; 0 when unknown
 * @floor_ns:		Initiations carry at least this unix time
 * @timestamp_highest:	Highest unix time in any initiation sent
 * @floor_saved_ns:	What WG_EVENT_TIMESTAMP_FLOOR last asked to save
 * @floor_wanted:	That event waits; it has a place of its own, so that a full
 *			ring cannot lose it
 * @loaded_until_ns:	Under load up to here
 * @load_ns:		Handshake messages taken in, as time they stand for
 * @load_cost_ns:	What one message adds to it
 * @load_queue:		Queued messages that mean load
 * @peer_slots:		Hash table of peers by public key, a power of two
 * @heap:		Peers by wake_ns, earliest first
 * @dead:		Removed peers whose memory wg_advance() releases
 * @staged_pool:	wg_staged heads, each followed by its packet
 * @bytes:		Memory reserved
 */
struct wg_device {
	bool up;
	struct noise_identity identity;
	struct noise_ephemerals ahead;
	struct index_table indices;
	struct allowed_ips allowed_ips;
	struct wg_list lists[WG_LIST_COUNT];
	uint32_t peer_count;
	uint32_t last_peer_number;

	struct wg_peer **heap;
	uint32_t heap_len;
	uint32_t heap_capacity;
	uint64_t jitter;

	struct drop_counters drops;
	struct cookie_checker checker;
	struct noise_state initial;
	wg_random_fn random;
	void *random_ctx;

	uint64_t unix_ns;
	uint64_t unix_at_ns;
	uint64_t floor_ns;
	uint64_t timestamp_highest;
	uint64_t floor_saved_ns;
	bool floor_wanted;

	uint64_t loaded_until_ns;
	uint64_t load_ns;
	uint64_t load_cost_ns;
	uint32_t load_queue;
	struct ratelimiter ratelimiter;
	struct wg_queued *queue;
	struct wg_ring queue_ring;
	struct wg_transmit *outbox;
	struct wg_ring outbox_ring;
	struct wg_event *events;
	struct wg_ring event_ring;

	uint8_t *staged_pool;
	size_t staged_slot_bytes;
	uint32_t staged_free;

	struct wg_peer **peer_slots;
	uint32_t peer_mask;
	uint64_t peer_hash_key;
	struct wg_peer *dead;

	struct wg_limits limits;
	size_t bytes;
};

static inline struct wg_staged *staged_at(const struct wg_device *dev, uint32_t slot)
{
	return (struct wg_staged *)(void *)(dev->staged_pool + slot * dev->staged_slot_bytes);
}

/* Position of the i-th waiting item, without a division. */
static inline uint32_t ring_at(const struct wg_ring *ring, uint32_t i)
{
	uint32_t at = ring->head + i;

	return at >= ring->capacity ? at - ring->capacity : at;
}

static inline void ring_pop(struct wg_ring *ring)
{
	ring->head = ring_at(ring, 1);
	ring->count--;
}

#endif /* WT_WIREGUARD_STATE_H */
