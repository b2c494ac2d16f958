/* SPDX-License-Identifier: Apache-2.0 */
/* Packet buffers of one size in one allocation: the memory cap of the stack. */
#ifndef WT_NETSTACK_SLAB_H
#define WT_NETSTACK_SLAB_H

#include <stdint.h>

/**
 * DOC: Theory of operation - slab
 *
 * All payload that the stack holds (unacknowledged data, out-of-order data,
 * fragments, small packets on their way out) stands in blocks of one size, cut
 * from one allocation made when the stack is made.  Nothing else grows, so
 * @blocks * @block_bytes is the cap whatever the peers do.
 *
 * A block is one packet: metadata, headroom, payload.
 *
 *	0          64               64 + headroom            block_bytes
 *	| struct   | the engine's   | IP and TCP/UDP headers | payload ... |
 *	| block    | headroom       | grow downwards         |
 *
 * Memory of blocks that were never used is never touched: the free list only
 * holds returned blocks, fresh ones come from @fresh upwards.
 *
 * Who may have a block depends on how full the slab is, see enum slab_use: the
 * last twentieth is left to what closes connections and answers (RST, ACK, FIN),
 * so that a full slab drains.
 */
#define NS_NIL 0xffffffffu

enum slab_use {
	SLAB_CONTROL,	/* segments without payload, answers: the whole slab */
	SLAB_SEND,	/* data from the host: 15/16 of it */
	SLAB_RECEIVE,	/* out of order, parked or fragments: 7/8 of it */
	SLAB_USES,
};

/* block.flags */
enum {
	BLOCK_FIN = 0x01,		/* a FIN follows the payload */
	BLOCK_SENT = 0x02,		/* transmitted at least once */
	BLOCK_SACKED = 0x04,
	BLOCK_LOST = 0x08,		/* deemed lost, waits for retransmission */
	BLOCK_RETRANSMITTED = 0x10,	/* the copy in flight is a retransmission */
	BLOCK_EVER_RETRANSMITTED = 0x20, /* RTT from it would be ambiguous (Karn) */
	BLOCK_APP_LIMITED = 0x40,	/* sent while there was nothing more to send */
	BLOCK_ON_TIME_LIST = 0x80,
};

/**
 * struct block - Metadata of one buffer; what it means depends on its queue
 * @next, @prev:	Neighbours in its queue, NS_NIL at the ends
 * @time_next, @time_prev: Neighbours in order of transmission, or among the lost
 * @seq:		First sequence number; fragments: offset in the datagram
 * @run:		In a run of SACKed blocks: at its first block the last one
 *			and the other way round
 * @xmit_us:		When it was last sent
 * @first_sent_us:	Delivery rate: send time of the packet that started the
 *			sampling interval when this one left
 * @delivered:		Delivery rate: tcp_flow.delivered when this one left
 * @delivered_us:	Delivery rate: tcp_flow.delivered_us when this one left
 * @owner:		Handle of the flow, for packets on their way out
 * @offset:		Payload, or packet, from the first byte of the block
 * @len:		Bytes there
 * @flags:		BLOCK_*
 * @transmissions:	Saturating count
 */
struct block {
	uint32_t next;
	uint32_t prev;
	uint32_t time_next;
	uint32_t time_prev;
	uint32_t seq;
	uint32_t run;
	uint32_t xmit_us;
	uint32_t first_sent_us;
	uint32_t delivered;
	uint32_t delivered_us;
	uint32_t owner;
	uint32_t peer;
	uint16_t offset;
	uint16_t len;
	uint8_t flags;
	uint8_t transmissions;
	uint8_t unused[10];
};

_Static_assert(sizeof(struct block) == 64, "one cache line, and the payload stays aligned");

/**
 * struct slab - The pool
 * @memory:		@blocks times @block_bytes
 * @block_bytes:	Multiple of 64
 * @blocks:		How many there are
 * @used:		How many are taken
 * @peak:		Most that ever were
 * @free_head:		Returned blocks, linked by @next
 * @fresh:		Blocks from here on were never taken
 * @limit:		Most that may be taken, by enum slab_use
 * @failures:		Requests that were refused, by enum slab_use
 */
struct slab {
	uint8_t *memory;
	uint32_t block_bytes;
	uint32_t blocks;
	uint32_t used;
	uint32_t peak;
	uint32_t free_head;
	uint32_t fresh;
	uint32_t limit[SLAB_USES];
	uint32_t failures[SLAB_USES];
};

static inline struct block *slab_block(const struct slab *s, uint32_t index)
{
	return (struct block *)(void *)(s->memory + (uint64_t)index * s->block_bytes);
}

static inline uint8_t *block_data(struct block *b)
{
	return (uint8_t *)b + b->offset;
}

#endif /* WT_NETSTACK_SLAB_H */
