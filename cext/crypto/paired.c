/* SPDX-License-Identifier: Apache-2.0 */
/* The driver that authenticates one packet of a batch while another is encrypted. */
#include "base/endian.h"
#include "base/secret.h"
#include "crypto/lanes.h"

/**
 * DOC: Theory of operation - paired
 *
 * Where an implementation can run Poly1305 of any bytes between ChaCha20's rounds of
 * others (struct poly_feed), packets of some length go through here, in order:
 *
 *	sealing, the tag of a packet is made while the next ones are encrypted;
 *	opening, while the ones before it are decrypted, that have passed already.
 *
 * So authentication lags behind by a packet or two, or leads by as many, and what is
 * left of it at the batch's end goes without company.  Key blocks and ends of packets
 * share a block_group, as in lanes.c; opening needs key blocks first, and has them made
 * KEYS_AHEAD packets ahead.
 *
 * A packet's state lives in one of SLOTS slots from its key block to its tag; when all
 * are taken (many short packets), the oldest tag is finished without company.
 */
#define SLOTS 16
#define KEYS_AHEAD 7
#define LEAST_FEED 3 /* blocks; fewer are done at the packet's end */

/**
 * struct slot - A packet between its key block and its tag
 * @packet:	What it is made of
 * @job:	Where the verdict goes
 * @poly:	Once @started, what was absorbed
 * @block0:	Once @keyed, the one-time key and 32 bytes without use
 * @added:	Bytes handed to ChaCha20, from the start
 * @ready:	Bytes of ciphertext that are there, from the start
 * @absorbed:	Bytes authenticated
 */
struct slot {
	struct packet packet;
	struct aead_job *job;
	struct poly1305 poly;
	uint8_t block0[CHACHA_BLOCK] __attribute__((aligned(64)));
	size_t added, ready, absorbed;
	bool keyed, started;
};

/* @tagged <= @entered: packets that have their tag, packets that have had a slot. */
struct paired {
	const struct lane_ops *ops;
	struct block_group group;
	size_t tagged, entered;
	bool sealing;
	struct slot slot[SLOTS];
};

static inline struct slot *slot_of(struct paired *b, size_t i)
{
	return &b->slot[i % SLOTS];
}

static inline const uint8_t *ciphertext(const struct paired *b, const struct slot *s)
{
	return b->sealing ? s->packet.out : s->packet.in;
}

/* The tag of the oldest packet, all of whose ciphertext is there. */
static void finish(struct paired *b, struct slot *s)
{
	uint8_t tag[AEAD_TAG_LEN];
	size_t len = s->packet.len;

	if (!s->started)
		poly1305_init(&s->poly, s->block0);
	lanes_absorb(b->ops, &s->poly, ciphertext(b, s) + s->absorbed, len - s->absorbed);
	lanes_tag(&s->poly, tag, 0, len);
	if (b->sealing)
		memcpy(s->packet.out + len, tag, AEAD_TAG_LEN);
	else
		s->job->ok = tag_equal(tag, s->packet.in + len);
	b->tagged++;
}

/* What can be authenticated now.  Return: its packet, or NULL when there is nothing */
static struct slot *next_feed(struct paired *b, struct poly_feed *feed)
{
	while (b->tagged < b->entered) {
		struct slot *s = slot_of(b, b->tagged);

		if (!s->keyed)
			return NULL;
		if (!s->started)
			poly1305_init(&s->poly, s->block0);
		s->started = true;
		feed->poly = &s->poly;
		feed->in = ciphertext(b, s) + s->absorbed;
		feed->blocks = (s->ready - s->absorbed) / POLY1305_BLOCK;
		if (feed->blocks >= LEAST_FEED)
			return s;
		if (s->ready < s->packet.len)
			return NULL;
		finish(b, s);
	}
	return NULL;
}

static void flush(struct paired *b)
{
	struct poly_feed feed;
	struct slot *fed;

	if (!b->group.n)
		return;
	fed = next_feed(b, &feed);
	b->ops->xor_group_fed(&b->group, fed ? &feed : NULL);
	b->group.n = 0;
	if (fed)
		fed->absorbed = (size_t)(feed.in - ciphertext(b, fed));
	for (size_t i = b->tagged; i < b->entered; i++) {
		struct slot *s = slot_of(b, i);

		s->keyed = true;
		if (b->sealing)
			s->ready = s->added;
	}
}

static void flush_full(struct paired *b)
{
	if (b->group.n == b->ops->blocks)
		flush(b);
}

static void finish_oldest(struct paired *b)
{
	size_t oldest = b->tagged;
	struct slot *s = slot_of(b, oldest);

	if (!s->keyed || s->ready < s->packet.len)
		flush(b);
	if (b->tagged == oldest)
		finish(b, s);
}

static void enter(struct paired *b, struct aead_job *j)
{
	struct slot *s;

	if (b->entered - b->tagged == SLOTS)
		finish_oldest(b);
	s = slot_of(b, b->entered++);
	packet_of(&s->packet, j);
	s->job = j;
	s->added = 0;
	s->ready = b->sealing ? 0 : j->len;
	s->absorbed = 0;
	s->keyed = false;
	s->started = false;
	group_add(&b->group, &s->packet, 0, zero_block, s->block0, CHACHA_BLOCK);
	flush_full(b);
}

/* ChaCha20 over a packet: whole runs at once, the rest in the group. */
static void add_data(struct paired *b, struct slot *s)
{
	const struct packet *p = &s->packet;
	size_t blocks = p->len / CHACHA_BLOCK, step = b->ops->run * CHACHA_BLOCK;
	size_t runs = blocks / b->ops->run, done = 0, part;

	for (; runs; runs--, done += step) {
		struct poly_feed feed;
		struct slot *fed = next_feed(b, &feed);

		b->ops->xor_run_fed(p->key, p->nonce, (uint32_t)(1 + done / CHACHA_BLOCK),
				    p->in + done, p->out + done, b->ops->run, fed ? &feed : NULL);
		if (fed)
			fed->absorbed = (size_t)(feed.in - ciphertext(b, fed));
		s->added += step;
		if (b->sealing)
			s->ready = s->added;
	}
	for (; done < p->len; done += part) {
		part = p->len - done < CHACHA_BLOCK ? p->len - done : CHACHA_BLOCK;
		group_add(&b->group, p, (uint32_t)(1 + done / CHACHA_BLOCK), p->in + done,
			  p->out + done, (uint32_t)part);
		s->added += part;
		flush_full(b);
	}
}

static void begin(struct paired *b, const struct lane_ops *ops, bool sealing)
{
	b->ops = ops;
	b->group.n = 0;
	b->tagged = b->entered = 0;
	b->sealing = sealing;
}

void paired_seal(const struct lane_ops *ops, struct aead_job *jobs, const uint8_t *order, size_t n)
{
	struct paired b;

	begin(&b, ops, true);
	for (size_t i = 0; i < n; i++) {
		enter(&b, &jobs[order[i]]);
		add_data(&b, slot_of(&b, i));
	}
	while (b.tagged < n)
		finish_oldest(&b);
	secret_erase(b.slot, sizeof(b.slot));
}

void paired_open(const struct lane_ops *ops, struct aead_job *jobs, const uint8_t *order, size_t n)
{
	struct paired b;

	begin(&b, ops, false);
	for (size_t i = 0; i < n; i++) {
		while (b.entered < n && b.entered <= i + KEYS_AHEAD)
			enter(&b, &jobs[order[b.entered]]);
		while (b.tagged <= i)
			finish_oldest(&b);
		if (jobs[order[i]].ok)
			add_data(&b, slot_of(&b, i));
	}
	flush(&b);
	secret_erase(b.slot, sizeof(b.slot));
}
