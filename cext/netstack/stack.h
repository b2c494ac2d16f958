/* SPDX-License-Identifier: Apache-2.0 */
/* The stack as a whole: limits, the consumer's callbacks, packets, events, statistics. */
#ifndef WT_NETSTACK_STACK_H
#define WT_NETSTACK_STACK_H

#include <stdint.h>

#include "base/drops.h"
#include "netstack/flow.h"
#include "netstack/slab.h"
#include "netstack/tcb.h"
#include "netstack/wheel.h"

/**
 * DOC: Theory of operation - the stack
 *
 * A deterministic machine: time, randomness, packets and the consumer's wishes
 * come in, packets, bytes and events come out.  It reads no clock and makes no
 * system call.  All memory is reserved by stack_create(); one thread calls it.
 *
 *	packet in	ns_input() parses, finds the flow, runs its machine; bytes that
 *			are in order go to host.tcp_data() from within the call
 *	time		ns_poll() fires what is due; ns_poll_at() says when to call
 *			again (early is harmless, late is not)
 *	packets out	ns_next_packets() hands out what may be sent now, most often
 *			pointers to where the data already stands
 *	events out	ns_next_event(): what a consumer must react to
 *	consumer in	ns_listen/connect/accept/refuse/send/shutdown/close/abort ...
 *
 * The order a driver keeps: input all that arrived, take all events, take all
 * packets, sleep until ns_poll_at().  ACKs are made when packets are taken, so
 * a batch of segments that arrived together is acknowledged together, as GRO
 * does.  Packets returned stay valid until the next call of ns_next_packets(),
 * ns_input() or ns_poll(): they are sealed into other memory, because data
 * stays here until it is acknowledged.
 *
 * Receiving.  The consumer states with ns_set_receive_space() how many bytes
 * it can take; host.tcp_data() takes them at once or in part.  The advertised
 * window is min(that, what the flow earned by taking bytes, which ends at
 * limits.flow_rx_bytes, what the slab has left) and its right edge never moves
 * back.  What the consumer did not take although it had
 * said it would is parked in blocks and shrinks the window.
 *
 * Sending.  ns_send_space() gives places inside blocks to read into,
 * ns_send_commit() queues what was read; ns_send() copies.  Data stays in its
 * block, headers are written in front of it, ACKs free it.
 *
 * Exit handshake.  A SYN to an address that is not ours is shown to
 * host.admit(); NS_DIAL keeps a request of 80 bytes and raises NS_EVENT_SYN.
 * ns_accept() answers it (SYN-ACK) and makes it a flow, ns_refuse() ends it.
 * A SYN to a listener is answered here, from a request while there are few and
 * by a SYN cookie beyond that.
 *
 * At a limit something is counted and dropped, see struct ns_limits.
 */

enum {
	NS_BATCH_MAX = 128,		/* packets of one ns_next_packets() */
	NS_SCRATCH_BYTES = 128,		/* for a packet without payload */
	NS_MAX_HEADERS = 100,		/* IPv6 and TCP with all options */
	NS_ADDRESSES_MAX = 16,
	NS_LISTENERS_MAX = 64,
	NS_REASSEMBLED_MAX = 65535,
	NS_PARTS_MAX = 256,		/* segments of one tcp_parts(): a batch of the tunnel's */
	NS_UDP_BUCKETS = 64,		/* of peers that have UDP flows */
};

/* Results below zero. */
enum ns_result {
	NS_OK = 0,
	NS_BAD_HANDLE = -1,
	NS_FULL = -2,
	NS_BAD_STATE = -3,
	NS_IN_USE = -4,
	NS_INVALID = -5,
};

/* ns_event.events, tcp_flow.events */
enum {
	NS_EVENT_SYN = 0x01,		/* a dial to decide; handle of a request */
	NS_EVENT_CONNECTED = 0x02,	/* ESTABLISHED, whichever side began */
	NS_EVENT_READABLE = 0x04,	/* parked bytes wait, or end of stream: ns_recv() */
	NS_EVENT_WRITABLE = 0x08,	/* ns_send_space() has room again */
	NS_EVENT_PEER_CLOSED = 0x10,	/* its FIN is in order and all bytes were given */
	NS_EVENT_CLOSED = 0x20,		/* over, see ns_event.reason; now ns_close() */
	NS_EVENT_CANCELLED = 0x40,	/* a request is gone: reset by the client, or too late */
	NS_EVENT_OPENED = 0x80,		/* a new UDP or echo flow from the tunnel */
};

enum ns_reason {
	NS_REASON_NONE,
	NS_REASON_FINISHED,	/* both directions ended in order */
	NS_REASON_RESET,
	NS_REASON_REFUSED,	/* RST for a SYN */
	NS_REASON_TIMEOUT,
	NS_REASON_UNREACHABLE,	/* ICMP, while connecting */
	NS_REASON_EVICTED,	/* a limit was reached and this was idle longest */
	NS_REASON_IDLE,		/* UDP */
};

/* How to refuse: an RST, or an ICMP error about the packet that asked. */
enum ns_refusal {
	NS_REFUSE_RESET,
	NS_REFUSE_NETWORK,	/* network unreachable */
	NS_REFUSE_HOST,		/* host unreachable */
	NS_REFUSE_PORT,
	NS_REFUSE_PROHIBITED,	/* administratively */
	NS_REFUSE_SILENT,
};

enum ns_verdict {
	NS_DENY,	/* drop and count */
	NS_REJECT,	/* RST, or ICMP administratively prohibited */
	NS_DIAL,	/* the consumer will carry it */
};

/**
 * struct ns_limits - Bounds, and what happens at each
 * @slab_bytes:		All payload; see slab.h for who is refused first
 * @tcp_flows:		New flow: oldest TIME_WAIT, then longest idle flow of the
 *			same peer goes, else RST
 * @udp_flows:		The longest idle goes
 * @time_waits:		The oldest goes
 * @syn_requests:	Half-open in all; one peer may have a third.  Dials beyond:
 *			SYN dropped.  Listeners beyond: SYN cookies
 * @reassemblies:	The oldest datagram goes
 * @reassembly_blocks:	Blocks that fragments may hold in all
 * @answers:		Packets in the queue of answers (RST, ICMP, UDP): dropped
 * @flow_rx_bytes:	Largest window ever advertised
 * @flow_tx_bytes:	Most that one flow queues
 * @mtu_bytes:		Of the tunnel; MSS follows from it
 * @headroom_bytes:	Free bytes in front of each packet handed out
 * @time_wait_ms:	2 MSL
 * @dial_ms:		A dial not decided by then is refused as host unreachable
 * @user_timeout_s:	RFC 9293 3.8.3: unacknowledged for so long: give up
 * @keepalive_s:	Idle time before the first probe, 0 is off
 * @udp_idle_s:		RFC 4787: at least 120
 * @dns_idle_s:		The same for port 53
 * @min_rto_ms:		RFC 6298 has 1000, everybody 200
 * @delayed_ack_ms:	RFC 1122: below 500
 * @icmp_errors_s:	ICMP errors and resets sent in one second
 */
struct ns_limits {
	uint32_t slab_bytes;
	uint32_t tcp_flows;
	uint32_t udp_flows;
	uint32_t time_waits;
	uint32_t syn_requests;
	uint32_t reassemblies;
	uint32_t reassembly_blocks;
	uint32_t answers;
	uint32_t flow_rx_bytes;
	uint32_t flow_tx_bytes;
	uint32_t mtu_bytes;
	uint32_t headroom_bytes;
	uint32_t time_wait_ms;
	uint32_t dial_ms;
	uint32_t user_timeout_s;
	uint32_t keepalive_s;
	uint32_t udp_idle_s;
	uint32_t dns_idle_s;
	uint32_t min_rto_ms;
	uint32_t delayed_ack_ms;
	uint32_t icmp_errors_s;
};

/**
 * struct ns_part - Payload of one segment
 * @data:	Inside the packet that was given to ns_input()
 * @len:	Its length
 */
struct ns_part {
	const uint8_t *data;
	uint32_t len;
};

/**
 * struct ns_datagram - One UDP datagram or echo message, either way
 * @data:	Payload; from the stack valid during the callback only
 * @len:	Its length
 * @sequence:	Echo: the sequence number
 * @ttl:	TTL or hop limit; to the stack 0 takes the default.  What the
 *		consumer sends on carries one less
 */
struct ns_datagram {
	const uint8_t *data;
	uint32_t len;
	uint16_t sequence;
	uint8_t ttl;
};

/**
 * struct ns_host - The consumer, as the stack calls it; called from within ns_* calls
 * @context:	Passed back
 * @random:	Fill @len bytes at @out unpredictably
 * @admit:	Decide about a new flow to where nothing of ours listens, as an
 *		enum ns_verdict; NULL rejects what is ours and denies the rest
 * @tcp_data:	Bytes in order.  Return: how many were taken, fewer means full
 * @tcp_parts:	The same for several segments at once, up to NS_PARTS_MAX; NULL: every
 *		segment goes to @tcp_data.  With it ns_input() keeps the address of its
 *		packet until ns_input_end(): the packets must stay where they are
 * @datagram:	For a UDP or echo flow
 * @datagram_error: ICMP error about what the flow sent; an enum ns_refusal
 *
 * tcp_data, tcp_parts, datagram and datagram_error must not call back into the
 * stack, except that the first two may use ns_set_receive_space() of their flow.
 */
struct ns_host {
	void *context;
	void (*random)(void *context, void *out, uint32_t len);
	int (*admit)(void *context, const struct flow_tuple *tuple, uint32_t protocol,
		     uint32_t peer);
	uint32_t (*tcp_data)(void *context, uint32_t handle, uint64_t user,
			     const uint8_t *data, uint32_t len);
	uint32_t (*tcp_parts)(void *context, uint32_t handle, uint64_t user,
			      const struct ns_part *parts, uint32_t n);
	void (*datagram)(void *context, uint32_t handle, uint64_t user,
			 const struct ns_datagram *datagram);
	void (*datagram_error)(void *context, uint32_t handle, uint64_t user, uint32_t refusal);
};

/**
 * struct ns_packet - One IP packet to send
 * @data:	First byte of the IP header; limits.headroom_bytes are free before it
 * @len:	Of the packet
 * @handle:	Flow, NS_NIL for an answer that belongs to none
 * @peer:	As given to ns_input() with the flow's packets
 * @run:	How many of the packets that follow in this batch belong to the same
 *		flow and have the same length: they make one UDP GSO run (a shorter
 *		one may end it)
 */
struct ns_packet {
	uint8_t *data;
	uint32_t len;
	uint32_t handle;
	uint32_t peer;
	uint32_t run;
};

/**
 * struct ns_event - Something the consumer should look at
 * @user:	What it gave with the flow
 * @handle:	Flow or request
 * @events:	NS_EVENT_*
 * @reason:	enum ns_reason, with NS_EVENT_CLOSED and NS_EVENT_CANCELLED
 */
struct ns_event {
	uint64_t user;
	uint32_t handle;
	uint16_t events;
	uint16_t reason;
};

/** struct ns_space - A place inside a block that the consumer may fill */
struct ns_space {
	uint8_t *data;
	uint32_t len;
};

/**
 * struct ns_statistics - Counters; what was dropped is in netstack.drops
 */
struct ns_statistics {
	uint64_t packets_in;
	uint64_t packets_out;
	uint64_t bytes_in;
	uint64_t bytes_out;
	uint64_t segments_in;
	uint64_t segments_out;
	uint64_t retransmits;
	uint64_t fast_recoveries;
	uint64_t timeouts;
	uint64_t tail_probes;
	uint64_t spurious;	/* retransmissions that a DSACK or an early ACK disowned */
	uint64_t undone;	/* reductions of cwnd taken back */
	uint64_t resets_in;
	uint64_t resets_out;
	uint64_t challenge_acks;
	uint64_t cookies_sent;
	uint64_t cookies_accepted;
	uint64_t out_of_order;
	uint64_t duplicates;
	uint64_t window_probes;
	uint64_t keepalives;
	uint64_t evicted;
	uint64_t opened;
	uint64_t closed;
	uint64_t fragments_in;
	uint64_t reassembled;
	uint64_t icmp_in;
	uint64_t icmp_out;
	uint64_t bad_transitions; /* of TCP's state machine: a fault of ours */
};

/**
 * struct udp_flow - One UDP conversation, or one echo identifier
 * @idle_s:	Silence after which it ends
 * @protocol:	UDP, ICMP or ICMPv6
 * @ttl:	Of the last datagram from the tunnel
 */
struct udp_flow {
	struct flow_tuple tuple;
	uint32_t peer;
	uint64_t user;
	uint32_t older;
	uint32_t newer;
	uint32_t last_ms;
	uint16_t generation;
	uint16_t idle_s;
	uint8_t protocol;
	uint8_t taken;
	uint8_t events;
	uint8_t queued;
	uint8_t ttl;
	uint8_t unused[3];
};

_Static_assert(sizeof(struct udp_flow) <= 72, "a UDP flow is at most 72 bytes");

/* A list through `older` and `newer` of one kind's slots. */
struct age_list {
	uint32_t oldest;
	uint32_t newest;
};

/**
 * struct udp_peer - The UDP flows of one peer that have not ended
 * @peer:	As given to ns_input(); 0 has those that we open
 * @next:	In its bucket, or in the list of free entries
 * @count:	How many there are
 * @age:	By when they were last used
 */
struct udp_peer {
	uint32_t peer;
	uint32_t next;
	uint32_t count;
	struct age_list age;
};

/**
 * struct ns_listener - A local port that is open
 * @local:	Address, all zero for every address of ours
 * @user:	Given to its flows
 * @receive_space: Their first receive space
 * @backlog:	Most flows whose NS_EVENT_CONNECTED was not yet taken
 * @waiting:	How many there are
 * @port:	0 when the slot is free
 * @protocol:	TCP or UDP
 */
struct ns_listener {
	uint8_t local[16];
	uint64_t user;
	uint32_t receive_space;
	uint16_t backlog;
	uint16_t waiting;
	uint16_t port;
	uint8_t protocol;
};

/**
 * struct reassembly - Fragments of one datagram
 * @head:	Blocks, ordered by offset (block.seq), without overlap; NS_NIL: free
 * @got:	Payload bytes held
 * @total:	Payload length, 0 until the last fragment came
 */
struct reassembly {
	uint8_t source[16];
	uint8_t destination[16];
	uint32_t id;
	uint32_t head;
	uint32_t born_ms;
	uint32_t peer;
	uint32_t got;
	uint32_t total;
	uint16_t blocks;
	uint8_t version;
	uint8_t protocol;
	uint8_t ttl;
	uint8_t tos;
	uint8_t taken;
};

/**
 * struct icmp_error - What an ICMP error from the tunnel says about a packet of ours
 * @tuple:	Of the flow that the quoted packet belongs to
 * @seq:	TCP: sequence number of the quoted segment
 * @mtu:	Packet too big: what fits; else 0
 * @refusal:	enum ns_refusal; NS_REFUSE_SILENT for what is only advice
 * @protocol:	Of the quoted packet
 */
struct icmp_error {
	struct flow_tuple tuple;
	uint32_t seq;
	uint32_t mtu;
	uint8_t refusal;
	uint8_t protocol;
};

/**
 * struct pool - Slots of an array that are free
 * @free_head:	Returned slots, linked by their `older`
 * @fresh:	Slots from here on were never taken
 * @count:	Slots in all
 * @used:	Taken
 */
struct pool {
	uint32_t free_head;
	uint32_t fresh;
	uint32_t count;
	uint32_t used;
};

/* A ring of references; never fuller than all slots, because each stands in it once. */
struct ref_ring {
	uint32_t *ref;
	uint32_t mask;
	uint32_t head;
	uint32_t tail;
};

/**
 * struct netstack - All of it
 */
struct netstack {
	struct ns_limits limits;
	struct ns_host host;
	uint64_t now_ns;
	uint64_t now_ms64;
	uint32_t now_us;
	uint32_t now_ms;

	struct slab slab;
	struct wheel wheel;
	struct flow_table table;
	struct pool tcp_pool, syn_pool, time_wait_pool, udp_pool;
	struct tcp_flow *tcp;
	struct syn_request *syn;
	struct time_wait *time_wait;
	struct udp_flow *udp;
	struct age_list tcp_age, syn_age, time_wait_age;
	struct udp_peer *udp_peer;	/* as many as flows: none can lack one */
	uint32_t udp_peer_free;
	uint32_t udp_peer_fresh;
	uint32_t udp_bucket[NS_UDP_BUCKETS];
	uint32_t udp_live;		/* flows that have not ended */
	struct ref_ring ready, events;

	uint32_t answer_head;	/* packets built already, blocks linked by next */
	uint32_t answer_tail;
	uint32_t answers;
	uint32_t spent_head;	/* answers of the batch that is being sealed */
	uint32_t scratch_used;
	uint32_t reserved_head;	/* blocks that ns_send_space() lent out, until commit */
	uint32_t reserved_handle;
	uint32_t reserved_room;	/* bytes it lent in the last block of the queue */
	uint32_t starved;	/* a flow found no block to send: wake it when there are */
	uint8_t *scratch;	/* NS_BATCH_MAX times headroom + NS_SCRATCH_BYTES */

	struct ns_part part[NS_PARTS_MAX];	/* held for tcp_parts(), in order */
	uint32_t parts;
	uint32_t parts_flow;	/* index of the flow they belong to */

	struct reassembly *reassembly;
	uint32_t reassembly_blocks;
	uint32_t reassemblies;
	uint8_t *reassembled;

	uint8_t address[NS_ADDRESSES_MAX][16];
	uint32_t addresses;
	struct ns_listener listener[NS_LISTENERS_MAX];
	uint32_t listeners;

	uint64_t isn_key[2];
	uint64_t cookie_key[2];
	uint32_t next_id;	/* of IPv4 packets that may be fragmented */
	uint16_t next_port;
	uint8_t rx_scale;
	uint8_t overloaded;	/* a SYN cookie was sent within the last two minutes */
	uint32_t cookie_ms;
	uint32_t error_second;	/* rate limit of ICMP errors and resets */
	uint32_t errors_sent;

	struct drop_counters drops;
	struct ns_statistics statistics;
};

#endif /* WT_NETSTACK_STACK_H */
