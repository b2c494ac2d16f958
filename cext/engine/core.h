/* SPDX-License-Identifier: Apache-2.0 */
/* Everything that the native thread owns: one structure, reserved at start. */
#ifndef WT_ENGINE_CORE_H
#define WT_ENGINE_CORE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/drops.h"
#include "crypto/crypto.h"
#include "engine/gro.h"
#include "engine/gso.h"
#include "host/thread.h"
#include "host/tun.h"
#include "host/udp.h"
#include "wire/ip.h"
#include "wireguard/device.h"

/**
 * DOC: Theory of operation - engine
 *
 * One native thread owns the WireGuard device, the sockets and the TUN device.
 * It never takes the GIL; the interpreter may stand still for any time.
 *
 *	out:	inner port -> outbound_packet(): route, cut, prepare
 *		-> runs of datagrams to one peer, back to back in one area
 *		-> seal_batch() -> udp_send() -> wg_send_done()
 *	in:	udp_receive() -> wg_receive_prepare() -> open_batch()
 *		-> wg_receive_finish() in order of arrival -> inner port
 *
 * Nothing waits for company: whatever one wake-up finds is sent before the next
 * sleep, so a lone packet leaves at once and batches form by themselves under
 * load.  Each turn does a bounded amount in each direction (OUT_TURN_FLUSHES,
 * IN_TURN_ROUNDS), then looks at the other, at commands and at timers.
 *
 * More threads than one help with the AEAD batches only (host/thread.h,
 * workers): the protocol's state stays on one thread and so does the order of
 * each peer's packets.
 *
 * Commands come through a gate and run between two batches; events go out over
 * a ring that one thread fills and one empties.
 */

/* Datagrams that wait to be sealed and sent together. */
#define OUT_AREA_BYTES (2u * 65536u)
#define OUT_TURN_FLUSHES 2
#define OUT_TURN_READS 256
#define IN_TURN_ROUNDS 2
#define IN_GRO_SLOT_BYTES 65536u
#define IN_GRO_SLOTS 8
#define HANDSHAKES_PER_TURN 4
#define ENGINE_EVENTS 256 /* a power of two */
/* Slots that only the floor of timestamps and the end of the inner side may take. */
#define EVENTS_VITAL 8
/*
 * The interpreter takes longer over a handshake's event than a handshake takes, and
 * the other end's first packet may be waiting for this CPU: it is told a little later.
 */
#define EVENTS_DELAY_NS 2000000u
/* After so long without anything to do, what handshakes will need is made ahead. */
#define QUIET_NS 1000000u
/* ICMP errors to inner senders: this many at once, then this many a second. */
#define ICMP_BURST 20
#define ICMP_PER_SECOND 50

/* Below this the engine refuses to start; at the second it is not restricted. */
#define MEMORY_LIMIT_MIN (1024u * 1024u)
#define MEMORY_LIMIT_FULL (4u * 1024u * 1024u)
#define MEMORY_LIMIT_DEFAULT (8u * 1024u * 1024u)

enum {
	ENGINE_MTU_MIN = 68,	/* of the inner side: RFC 791 */
	ENGINE_MTU_MAX = 65000,	/* with every header still within 64 KiB */
};

enum engine_event_kind {
	EVENT_HANDSHAKE = 1,
	EVENT_HANDSHAKE_GIVEN_UP,
	EVENT_ENDPOINT,
	EVENT_SOURCE_LOST,
	EVENT_TIMESTAMP_FLOOR,
	EVENT_INNER_CLOSED,
	EVENT_SOCKET_ERROR,
	EVENT_DIALLED,
};

struct engine_event {
	uint32_t kind;
	uint8_t public_key[32];
	uint64_t value;
};

/**
 * struct event_ring - From the native thread to the interpreter
 * @slots:	Event @n is in slot n % ENGINE_EVENTS
 * @written:	Events ever put in; the native thread's
 * @read:	Events ever taken out; the interpreter's
 * @lost:	Events that found no room; the native thread's
 * @unsaid:	There are events that @wake does not tell yet; the native thread's
 * @wake:	Readable while there may be events
 */
struct event_ring {
	struct engine_event slots[ENGINE_EVENTS];
	_Atomic uint32_t written;
	_Atomic uint32_t read;
	uint64_t lost;
	bool unsaid;
	int wake;
};

/* event_put() - Whether it found room; event_tell() makes it known */
bool event_put(struct event_ring *r, uint32_t kind, const uint8_t *public_key, uint64_t value);
void event_tell(struct event_ring *r);
bool event_take(struct event_ring *r, struct engine_event *event);

/**
 * struct outbound - Datagrams on their way out
 * @packet:	Where the inner port reads a packet to, TUN_HEADROOM in front
 * @packet_capacity: Room from @packet on
 * @area:	Datagrams, back to back
 * @area_size:	Its size
 * @used:	Bytes taken
 * @runs:	What lies in @area, in order; the last one may still grow
 * @peers:	Whom each run is for
 * @counts:	Datagrams of each run
 * @open:	The last run may grow
 * @run_count:	How many
 * @jobs:	Not sealed yet
 * @job_count:	How many
 * @flushes:	Times that something was sent in this turn
 */
struct outbound {
	uint8_t *packet;
	uint32_t packet_capacity;
	uint8_t *area;
	uint32_t area_size;
	uint32_t used;
	struct udp_run runs[UDP_SEND_MAX];
	struct wg_peer *peers[UDP_SEND_MAX];
	uint32_t counts[UDP_SEND_MAX];
	bool open;
	unsigned int run_count;
	struct aead_job jobs[AEAD_BATCH_MAX];
	unsigned int job_count;
	unsigned int flushes;
};

/**
 * struct inbound - Datagrams on their way in
 * @area:	Memory of the receive buffers
 * @area_size:	Its size
 * @buffers:	Cut from @area: few large ones with UDP_GRO, else many of one
 *		datagram each
 * @buffer_count: How many
 * @packets:	Between prepare and finish
 * @tos:	Outer TOS of each
 * @jobs:	The same, for the AEAD batch
 * @count:	How many
 * @delivered:	Inner packets for the inner port
 * @vectors:	Scratch of the TUN port
 */
struct inbound {
	uint8_t *area;
	uint32_t area_size;
	struct udp_buffer buffers[UDP_RECEIVE_MAX];
	unsigned int buffer_count;
	struct wg_inbound packets[AEAD_BATCH_MAX];
	uint8_t tos[AEAD_BATCH_MAX];
	struct aead_job jobs[AEAD_BATCH_MAX];
	unsigned int count;
	struct gro_batch delivered;
	struct iovec vectors[GRO_VECTORS_MAX];
};

struct engine_core;
struct relay;

/**
 * struct inner_port - Who takes decrypted packets and has packets to send
 * @context:	Passed to each function
 * @deliver:	Take packets; their memory is the port's to rewrite until it returns
 * @pull:	Hand packets to outbound_packet() until none is left or
 *		outbound.flushes reaches OUT_TURN_FLUSHES; return whether some are left
 * @poll_at:	When @pull wants to be called without any descriptor being ready;
 *		WG_NEVER for a port that has one.  NULL is the same
 *
 * TUN and the message socket are one port (port.pyx), the netstack is the other
 * (netport.pyx), which takes the packets of its flows and open ports out of a
 * batch and leaves the rest to the first; without a first one it takes all.
 */
struct inner_port {
	void *context;
	void (*deliver)(void *context, uint64_t now_ns, struct gro_batch *packets);
	int (*pull)(void *context, uint64_t now_ns);
	uint64_t (*poll_at)(void *context);
};

struct engine_statistics {
	uint64_t turns;
	uint64_t tx_packets;
	uint64_t tx_bytes;
	uint64_t rx_packets;
	uint64_t rx_bytes;
	uint64_t seal_batches;
	uint64_t open_batches;
	uint64_t icmp_errors;
	uint64_t commands;
};

/**
 * struct engine_core - The native thread's possessions
 * @arena:	All packet memory
 * @features:	enum host_feature bits that are allowed
 * @limits:	What the device was made with
 * @listen_port: Wanted, 0 is any
 * @is_up:	Sockets are bound
 * @stopping:	The loop ends after this turn
 * @inner_ready: The inner descriptor had something at the last look
 * @stack:	NULL while there is no netstack
 * @stack_ready: A host socket of the netstack's flows had something at the last look
 * @relay:	Those flows, and the netstack itself
 * @memory_limit: memory_limit_bytes
 * @tell_at_ns:	When to tell the interpreter of events; WG_NEVER without any
 * @icmp_tokens_ns: Token bucket of ICMP errors, in nanoseconds of credit
 */
struct engine_core {
	struct arena arena;
	uint32_t features;
	struct wg_limits limits;
	struct wg_device *device;
	struct udp_port udp;
	struct tun tun;
	struct inner_port *port;
	struct inner_port host_port;
	struct inner_port *stack;
	struct inner_port stack_port;
	struct relay *relay;
	size_t memory_limit;
	struct outbound out;
	struct inbound in;
	struct gate gate;
	struct workers workers;
	struct thread thread;
	struct event_ring events;
	struct engine_statistics statistics;
	int loop;
	uint16_t listen_port;
	bool is_up;
	bool stopping;
	bool stack_ready;
	uint64_t unix_time_at_ns;
	uint64_t tell_at_ns;
	uint64_t icmp_at_ns;
	uint64_t icmp_credit_ns;
	uint8_t icmp[IP_ICMP_ERROR_MAX];
};

/**
 * core_create() - Reserve everything that does not need the device
 * @limit:	memory_limit_bytes, at least MEMORY_LIMIT_MIN
 * @features:	enum host_feature bits to use
 * @mtu:	Inner MTU to size the buffers for
 *
 * Return: NULL without memory or descriptors
 */
struct engine_core *core_create(size_t limit, uint32_t features, uint32_t mtu);
void core_destroy(struct engine_core *core);

/** core_size_buffers() - Cut the receive area for @mtu and the features in use */
void core_size_buffers(struct engine_core *core, uint32_t mtu);

/** core_memory_bytes() - Reserved by the engine itself, the device not counted */
size_t core_memory_bytes(const struct engine_core *core);

/** core_may_send_icmp() - Take one token of the ICMP bucket */
bool core_may_send_icmp(struct engine_core *core, uint64_t now_ns);

/** core_outer_tos() - TOS of the outer header for an inner packet: its ECN only
 *
 * RFC 3168, 9.1.1, full functionality: an inner CE is not shown outside.  The
 * inner DSCP stays inside.
 */
static inline uint8_t core_outer_tos(const uint8_t *packet)
{
	uint8_t tos = ip_version(packet) == 4 ? packet[IPV4_TOS] :
						(uint8_t)(load_be16(packet) >> 4);

	return (tos & 3) == 3 ? 2 : tos & 3;
}

/** core_take_congestion() - Carry an outer CE mark inside (RFC 6040, 4.2) */
void core_take_congestion(uint8_t *packet);

#endif /* WT_ENGINE_CORE_H */
