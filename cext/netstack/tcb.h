/* SPDX-License-Identifier: Apache-2.0 */
/* What a TCP connection is made of in each phase of its life; sizes are asserted. */
#ifndef WT_NETSTACK_TCB_H
#define WT_NETSTACK_TCB_H

#include <stdint.h>

#include "netstack/flow.h"
#include "netstack/slab.h"
#include "wire/tcp.h"

/* RFC 9293 section 3.3.2; LISTEN is struct ns_listener, TIME_WAIT struct time_wait. */
enum tcp_state {
	TCP_CLOSED,	/* over for the network; kept until the consumer closes it */
	TCP_SYN_SENT,
	TCP_SYN_RECEIVED,
	TCP_ESTABLISHED,
	TCP_FIN_WAIT_1,
	TCP_FIN_WAIT_2,
	TCP_CLOSE_WAIT,
	TCP_CLOSING,
	TCP_LAST_ACK,
	TCP_FREE,	/* slot not in use */
	TCP_STATES,
};

/* tcp_flow.recovery: what the sender believes about the network. */
enum tcp_recovery {
	RECOVERY_OPEN,		/* nothing is missing */
	RECOVERY_DISORDER,	/* something was SACKed or duplicated, nothing deemed lost */
	RECOVERY_FAST,		/* fast recovery, PRR steers cwnd (RFC 6937) */
	RECOVERY_LOSS,		/* after a retransmission timeout */
};

/* tcp_flow.timer: what tcp_flow.send_due_ms is for; one at a time. */
enum tcp_timer {
	TIMER_OFF,
	TIMER_RTO,
	TIMER_TLP,
	TIMER_REORDER,
	TIMER_PERSIST,
	TIMER_HANDSHAKE,	/* SYN or SYN-ACK */
};

/* tcp_flow.flags */
enum {
	TF_TIMESTAMPS = 1 << 0,
	TF_SACK = 1 << 1,
	TF_WINDOW_SCALE = 1 << 2,
	TF_ACK_NOW = 1 << 3,		/* an ACK is owed at once */
	TF_ACK_DELAYED = 1 << 4,	/* an ACK is owed at ack_due_ms */
	TF_FIN_QUEUED = 1 << 5,		/* nothing follows write_seq but a FIN */
	TF_FIN_PENDING = 1 << 6,	/* the FIN found no block yet */
	TF_FIN_RECEIVED = 1 << 7,
	TF_ORPHAN = 1 << 8,		/* the consumer closed its handle */
	TF_CWND_LIMITED = 1 << 9,	/* the last transmission stopped at cwnd */
	TF_REORDERING_SEEN = 1 << 10,
	TF_NAGLE = 1 << 11,
	TF_TLP_RETRANSMITTED = 1 << 12,	/* the outstanding probe repeated data */
	TF_WANT_WRITABLE = 1 << 13,	/* the consumer found no space */
	TF_PASSIVE = 1 << 14,		/* the other end opened it */
	TF_DSACK = 1 << 15,		/* sack[3] reports a duplicate, once */
	TF_ROUND_DSACK = 1 << 16,	/* a DSACK arrived since rack_round */
	TF_HYSTART = 1 << 17,		/* the cubic union holds slow start's state */
	TF_HYSTART_CSS = 1 << 18,	/* conservative slow start */
	TF_BLOCKED = 1 << 19,		/* bytes are parked until the consumer takes them */
	TF_GIVING = 1 << 20,		/* host.tcp_data() is running: it may set the space */
	TF_KEEPALIVE = 1 << 21,
	TF_FORCE_RETRANSMIT = 1 << 22,	/* the first one of a recovery ignores cwnd */
	TF_PATH_MTU = 1 << 23,		/* mss was lowered by ICMP */
	TF_IN_TABLE = 1 << 25,
	TF_EXPECT_WINDOW = 1 << 26,	/* the peer probes: tell it even a small window */
	TF_PROBE = 1 << 27,		/* a keepalive or window probe is to be sent, or data */
	TF_TLP_OUT = 1 << 28,		/* a tail loss probe is not yet answered */
	TF_UNSEEN = 1 << 29,		/* of a listener; the consumer does not know it yet */
};

/* tcp_flow.queued: which rings hold this slot; outlives the flow in it. */
enum {
	QUEUED_READY = 1,
	QUEUED_EVENT = 2,
};

/**
 * struct cubic - RFC 9438; windows in bytes
 * @w_max:	cwnd just before the last reduction
 * @epoch_ms:	When this congestion avoidance began; 0 when none has
 * @k_ms:	Time from there to @w_max
 * @origin:	Plateau of the cubic, W_max or cwnd at the epoch
 * @w_est:	What Reno would have
 * @w_est_rest:	Its part below a byte, in 1/2^16
 */
struct cubic {
	uint32_t w_max;
	uint32_t epoch_ms;
	uint32_t k_ms;
	uint32_t origin;
	uint32_t w_est;
	uint32_t w_est_rest;
};

/**
 * struct hystart - RFC 9406, in the first slow start only
 * @round_end:	Sequence number whose acknowledgement ends this round
 * @last_min_us: Least RTT of the round before; 0xffffffff when none
 * @min_us:	Least RTT of this round
 * @baseline_us: RTT when conservative slow start began
 * @samples:	RTT samples in this round
 * @css_rounds:	Rounds spent in conservative slow start
 * @flight_max:	Most that was in flight in this round
 */
struct hystart {
	uint32_t round_end;
	uint32_t last_min_us;
	uint32_t min_us;
	uint32_t baseline_us;
	uint16_t samples;
	uint16_t css_rounds;
	uint32_t flight_max;
};

/**
 * struct tcp_flow - Transmission control block
 *
 * Queues: [tx_head .. tx_tail] holds snd_una .. write_seq in order, tx_next is
 * the first block never sent.  What is in flight stands in the time list in
 * order of transmission (RACK looks only at its head), what is deemed lost in
 * the lost list in order of sequence.  [ooo_head .. ooo_tail] holds what came
 * too early, ordered and without overlap; [parked_head .. parked_tail] what is
 * in order but not yet taken by the consumer.
 *
 * Invariants, checked by the fuzz target:
 *	snd_una <= snd_nxt <= write_seq + 1 (the FIN)
 *	sacked + lost <= snd_nxt - snd_una
 *	pipe = snd_nxt - snd_una - sacked - lost + retransmitted
 *	rcv_nxt <= rcv_edge, and rcv_edge never decreases
 *
 * Times are the low 32 bits of stack.now_us or now_ms and are compared by
 * difference.  A due time of a timer that is off means nothing.
 */
struct tcp_flow {
	struct flow_tuple tuple;
	uint32_t peer;
	uint64_t user;
	uint32_t flags;
	uint16_t generation;
	uint8_t state;
	uint8_t recovery;
	uint32_t older;
	uint32_t newer;

	/* sending */
	uint32_t snd_una;
	uint32_t snd_nxt;
	uint32_t write_seq;
	uint32_t snd_wnd;
	uint32_t snd_wl1;
	uint32_t snd_wnd_max;
	uint32_t tx_head;
	uint32_t tx_tail;
	uint32_t tx_next;
	uint32_t time_head;
	uint32_t time_tail;
	uint32_t lost_head;
	uint32_t lost_tail;
	uint32_t sack_hint;
	uint16_t mss;		/* payload bytes of a full segment, options deducted */
	uint16_t tx_blocks;
	uint16_t rx_blocks;
	uint8_t snd_scale;
	uint8_t rcv_scale;

	/* scoreboard, in bytes */
	uint32_t sacked;
	uint32_t lost;
	uint32_t retransmitted;
	uint32_t recovery_point;
	union {
		struct {	/* in fast recovery */
			uint32_t prr_delivered;
			uint32_t prr_out;
			uint32_t recovery_flight;
		};
		struct {	/* with TF_HYSTART: when the round's ACKs began, and the last */
			uint32_t train_start_us;
			uint32_t train_last_us;
		};
	};
	uint32_t undo_point;	/* snd_una when cwnd was reduced, 0: nothing to undo */
	uint16_t undo_by_time;	/* retransmissions since, less those an echo disowned */
	uint16_t undo_by_dsack;	/* the same, less those a DSACK disowned */
	uint32_t prior_cwnd;
	uint32_t prior_ssthresh;
	uint32_t highest_sacked;
	uint32_t rack_xmit_us;
	uint32_t rack_end;
	uint32_t rack_rtt_us;
	uint32_t rack_round;
	uint32_t tlp_end;	/* RFC 8985 7.3, with TF_TLP_OUT */
	uint8_t reorder_mult;
	uint8_t reorder_persist;
	uint8_t dupacks;
	uint8_t backoff;

	/* round trip: RFC 6298, scaled as there: srtt << 3, rttvar << 2 */
	uint32_t srtt_us;
	uint32_t rttvar_us;
	uint32_t min_rtt_us;

	/* congestion control, in bytes */
	uint32_t cwnd;
	uint32_t ssthresh;
	union {
		struct cubic cubic;
		struct hystart hystart;
	};

	/* delivery rate: draft-cheng-iccrg-delivery-rate-estimation */
	uint32_t delivered;
	uint32_t delivered_us;
	uint32_t first_sent_us;
	uint32_t app_limited;	/* delivered + pipe when the sender ran dry, else 0 */
	uint32_t rate_kbyte_s;

	/* receiving */
	uint32_t rcv_nxt;
	uint32_t rcv_edge;	/* right edge of the advertised window */
	uint32_t last_ack_sent;
	uint32_t rcv_space;	/* what the consumer says it can take */
	uint32_t rcv_limit;	/* the largest window for now: grows with what it took */
	uint32_t ooo_head;
	uint32_t ooo_tail;
	uint32_t parked_head;
	uint32_t parked_tail;
	uint32_t parked;
	struct sequence_range sack[4];	/* most recent first, start == end: none; the last one
					 * is the duplicate to report with TF_DSACK */
	uint32_t ts_recent;
	uint32_t ts_recent_ms;
	uint32_t ts_offset;

	/* timers */
	uint32_t send_due_ms;
	uint32_t ack_due_ms;
	uint32_t idle_due_ms;	/* keepalive, or the end of FIN_WAIT_2 */
	uint32_t last_rx_ms;
	uint32_t stalled_ms;	/* since when nothing was acknowledged; for user_timeout */
	uint16_t user_timeout_s;
	uint16_t keepalive_s;
	uint16_t min_rtt_at;	/* when it was measured, in 1024 ms */
	uint16_t challenge_at;	/* when the present count of challenges began, in 32 ms */
	uint8_t timer;
	uint8_t probes;
	uint8_t quick_acks;
	uint8_t challenges;
	uint8_t events;
	uint8_t queued;
	uint8_t error;
	uint8_t acks_owed;	/* duplicate ACKs for a peer without SACK */
};

_Static_assert(sizeof(struct tcp_flow) <= 384, "a TCB is at most 384 bytes");
_Static_assert(sizeof(struct cubic) == sizeof(struct hystart), "they share their place");

/* syn_request.state */
enum {
	SYN_FREE,
	SYN_DIALLING,	/* nothing sent yet: the consumer decides */
	SYN_ANSWERED,	/* SYN-ACK sent for a listener */
	SYN_CANCELLED,	/* the client went away; kept until the consumer knows */
};

/**
 * struct syn_request - A connection of which only the SYN is known
 * @tuple:	Its addresses and ports
 * @peer:	Who sent it, as given to ns_input()
 * @irs:	The SYN's sequence number
 * @iss:	Ours, of the SYN-ACK
 * @ts_value:	TSval of the SYN
 * @ts_offset:	Of our timestamps
 * @born_ms:	When the SYN arrived
 * @older, @newer: All requests, oldest first
 * @mss:	The peer's, 0 when it sent none
 * @generation:	Of the slot
 * @listener:	Index; 0xff when dialling
 * @options:	TCP_HAS_* of the SYN
 * @window_scale: The peer's
 * @state:	SYN_*
 * @retransmits: SYN-ACKs sent beyond the first
 * @events:	Pending, as in tcp_flow
 * @queued:	As in tcp_flow
 * @ttl:	Of the SYN, for traceroute through the consumer
 */
struct syn_request {
	struct flow_tuple tuple;
	uint32_t peer;
	uint32_t irs;
	uint32_t iss;
	uint32_t ts_value;
	uint32_t ts_offset;
	uint32_t born_ms;
	uint32_t older;
	uint32_t newer;
	uint16_t mss;
	uint16_t generation;
	uint8_t listener;
	uint8_t options;
	uint8_t window_scale;
	uint8_t state;
	uint8_t retransmits;
	uint8_t events;
	uint8_t queued;
	uint8_t ttl;
};

_Static_assert(sizeof(struct syn_request) <= 80, "a SYN request is at most 80 bytes");

/* time_wait.flags */
enum {
	TIME_WAIT_TAKEN = 1,
	TIME_WAIT_TIMESTAMPS = 2,
};

/**
 * struct time_wait - What is left of a connection that we closed first
 * @due_quarter: When it ends, in units of 256 ms modulo 2^16
 *
 * All wait equally long, so the list from oldest to newest is in order of
 * expiry; a repeated FIN moves one to its end.
 */
struct time_wait {
	struct flow_tuple tuple;
	uint32_t snd_nxt;
	uint32_t rcv_nxt;
	uint32_t ts_recent;
	uint32_t ts_offset;
	uint32_t older;
	uint32_t newer;
	uint16_t due_quarter;
	uint8_t flags;
	uint8_t window_scale;
};

_Static_assert(sizeof(struct time_wait) <= 64, "a TIME_WAIT is at most 64 bytes");

#endif /* WT_NETSTACK_TCB_H */
