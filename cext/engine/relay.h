/* SPDX-License-Identifier: Apache-2.0 */
/* Flows between the netstack and sockets of the host: one fixed table. */
#ifndef WT_ENGINE_RELAY_H
#define WT_ENGINE_RELAY_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/relay_body.h"
#include "engine/relay_names.h"
#include "host/stream.h"
#include "netstack/stack.h"
#include "wire/endpoint.h"

/**
 * DOC: Theory of operation - relay
 *
 * The native thread moves the bytes; the interpreter only says which ends belong
 * together.  A TCP flow has a handle in the netstack and a descriptor of the host:
 *
 *	dial	DIALLING -connected-> DIALLED -splice()-> OPEN
 *		    |                    |
 *		    +----- FAILED <------+		until the interpreter knows
 *	forward	CONNECTING (to the host's side) -> ACCEPTING -connected-> OPEN
		    |	a SYN to a port that is forwarded; the tunnel's side gets its
		    |	SYN-ACK only once the host's side is connected
		    +----- RST when that refused, else ICMP as a router would send
 *	any	-> free: both directions ended, either side was reset, or closed
 *
 *	host -> tunnel	readv() into ns_send_space(), committed; stops without space
 *			(NS_EVENT_WRITABLE) or bytes (edge of the descriptor)
 *	tunnel -> host	tcp_data() -> send(); what the socket refuses is parked in the
 *			stack and closes the window until the descriptor's next edge
 *	half-close	end of stream -> FIN behind the last byte; NS_EVENT_PEER_CLOSED
 *			-> shutdown(); both -> the flow is over
 *	reset		either side's reset becomes the other's
 *	one request	of an HTTP proxy in absolute form: see relay_body.h; more of the
 *			client's after the answer began -> dropped, FIN to the target
 *
 * UDP.  A forward of a port in the tunnel has one connected host socket for each
 * flow.  An association is one bound host socket of many flows: each datagram
 * goes to the fixed target, with a flow for each client (port forward), or to
 * where its SOCKS header says, for the one client (RFC 1928, 7); what names mean
 * there, the interpreter is asked (relay_names.h).  A flow of the interpreter's own
 * has one end of its socket pair, as that of a forward has its socket.  They end when
 * the netstack says that they were idle.  Datagrams that find no slot, no room or
 * no sense are dropped, as UDP may.
 *
 * Nothing of the tunnel reaches a socket of the host but through a forward.
 *
 * Limits: the table is as large as the netstack's tables of flows; a turn moves at
 * most RELAY_TURN_BYTES for one flow before it looks at the next.
 */
enum relay_kind {
	RELAY_FREE,
	RELAY_TCP,
	RELAY_TCP_LISTENER,
	RELAY_UDP_LISTENER,
	RELAY_UDP,		/* of a listener or the interpreter: @fd is its own */
	RELAY_UDP_CLIENT,	/* of an association: sends through the parent's @fd */
	RELAY_ASSOCIATION,	/* SOCKS, or with @to a port forward */
};

enum relay_state {
	RELAY_CLOSED,
	RELAY_DIALLING,
	RELAY_DIALLED,
	RELAY_FAILED,
	RELAY_CONNECTING,
	RELAY_ACCEPTING,
	RELAY_OPEN,
};

enum {
	RELAY_TURN_BYTES = 256 * 1024,
	RELAY_LISTENERS = 64,
	RELAY_ASSOCIATIONS = 128,	/* what finds none is refused */
	RELAY_EARLY_BYTES = 256 * 1024,
	RELAY_DATAGRAM_BYTES = 65536,
	RELAY_SOCKS_HEADER = 22,
	RELAY_NEW_UDP = 64,
	RELAY_CLIENTS = 256,		/* of one association */
	RELAY_TURN_DATAGRAMS = 64,

	RELAY_QUEUED = 0x01,		/* in the list of flows with work left */
	RELAY_READABLE = 0x02,		/* since the last edge, not drained */
	RELAY_FIN_SENT = 0x04,		/* the host's end of stream went into the tunnel */
	RELAY_FIN_SEEN = 0x08,		/* the tunnel's came */
	RELAY_FIN_GIVEN = 0x10,		/* and was given to the host */
	RELAY_BROKEN = 0x20,		/* the descriptor failed: end it at the next occasion */
	RELAY_HAS_TARGET = 0x40,	/* association: a port forward */
	RELAY_HAS_CLIENT = 0x80,	/* SOCKS association: @to is known */
	RELAY_ANSWERED = 0x100,		/* bytes of the tunnel's side reached the host's */
};

#define RELAY_NONE UINT32_MAX
/* ns_event.user of flows that a listener opened and nobody took over yet. */
#define RELAY_LISTENER_USER (1ull << 32)

/**
 * struct relay_flow - One pair of ends
 * @handle:	In the netstack; CONNECTING: of the request; UDP listener: its index; TCP
 *		listener: its port
 * @fd:		-1 without
 * @next:	In the list of free slots, or of flows with work left
 * @parent:	UDP client: id of its association
 * @child:	Associations: index of the newest client; clients: of the next one
 * @children:	Associations: how many
 * @generation:	Of the slot, a part of the id
 * @kind:	enum relay_kind
 * @state:	enum relay_state
 * @flags:	RELAY_*
 * @error:	FAILED: errno
 * @to:		Forwards: the host's side; UDP client: whom to answer; SOCKS
 *		association: the client, its port once known
 * @target:	Associations: in the tunnel; UDP client: the key it is found by
 * @early:	Bytes to send before those of @fd, or NULL
 * @early_len:	How many
 * @early_at:	Already sent
 * @body:	What of @fd passes; the rest is read and dropped
 */
struct relay_flow {
	uint32_t handle;
	int fd;
	uint32_t next;
	uint32_t parent;
	uint32_t child;
	uint16_t children;
	uint16_t generation;
	uint8_t kind;
	uint8_t state;
	uint16_t flags;
	int16_t error;
	struct endpoint to;
	struct endpoint target;
	uint8_t *early;
	uint32_t early_len;
	uint32_t early_at;
	struct relay_body body;
};

/**
 * struct relay - The table, and what the stack and the sockets share
 * @stack:	Owned
 * @events:	Where EVENT_DIALLED goes
 * @set:	Ready set of all descriptors
 * @flows:	@count slots
 * @free_head:	Slots never or no longer used
 * @ready_head: Flows with work left, oldest first
 * @finished:	Ring of ids whose dial ended, @count + 1 slots
 * @announced:	EVENT_DIALLED is on its way
 * @asks:	Names wait for the interpreter, and EVENT_DIALLED is not on its way
 * @space:	Receive space of an open flow
 * @used:	Slots taken
 * @requests:	Id of the flow that connects for a request of the stack, by the request's
 *		index; @request_count of them
 * @listeners:	Ids of the TCP listeners, @listener_count of them
 * @fresh:	UDP flows of listeners that the stack does not know as ours yet
 * @associations: How many there are
 * @names:	Of SOCKS datagrams
 * @deferred:	ICMP error that came while packets of the stack were being sent
 */
struct relay {
	struct netstack *stack;
	struct event_ring *events;
	int set;
	struct relay_flow *flows;
	uint32_t count;
	uint32_t free_head;
	uint32_t ready_head;
	uint32_t ready_tail;
	uint32_t *finished;
	uint32_t finished_head;
	uint32_t finished_tail;
	bool announced;
	bool asks;
	uint32_t space;
	uint32_t used;
	uint32_t *requests;
	uint32_t request_count;
	uint32_t listeners[RELAY_LISTENERS];
	uint32_t listener_count;
	uint32_t fresh[RELAY_NEW_UDP];
	uint32_t fresh_count;
	uint32_t associations;
	struct relay_names names;
	bool sending;
	uint32_t deferred_len;
	uint8_t deferred[1280];
	uint8_t datagram[RELAY_SOCKS_HEADER + RELAY_DATAGRAM_BYTES];
	uint64_t bytes_in;
	uint64_t bytes_out;
};

struct relay *relay_create(const struct ns_limits *limits, struct event_ring *events);
/* Closes every descriptor; the stack goes before or after, by its owner. */
void relay_destroy(struct relay *r);
size_t relay_memory_bytes(const struct relay *r);

struct relay_flow *relay_take(struct relay *r, uint8_t kind);
/* Gives the slot back; the descriptor and the handle are gone by then. */
void relay_free(struct relay *r, struct relay_flow *f);
struct relay_flow *relay_find(struct relay *r, uint32_t id);
uint32_t relay_id(const struct relay *r, const struct relay_flow *f);
/* Lists: of flows with work left, and of dials that ended. */
void relay_queue(struct relay *r, struct relay_flow *f);
struct relay_flow *relay_next_ready(struct relay *r);
void relay_finish(struct relay *r, struct relay_flow *f);
struct relay_flow *relay_next_finished(struct relay *r);

#endif /* WT_ENGINE_RELAY_H */
