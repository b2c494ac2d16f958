/* SPDX-License-Identifier: Apache-2.0 */
/* The driver of the multi-packet AEAD: everything but the inner loops. */
#include "base/endian.h"
#include "base/secret.h"
#include "crypto/lanes.h"

/**
 * DOC: Theory of operation - lanes
 *
 * A SIMD register holds the same word of several ChaCha20 blocks, or the same
 * limb of several Poly1305 accumulators.  One packet rarely fills it: 64 bytes
 * are two blocks.  So the driver cuts the batch into chunks of CHUNK packets
 * and deals their blocks to the lanes without regard to packet borders:
 *
 *	key blocks (block 0 of each packet, its one-time Poly1305 key) and the
 *	ends of packets are collected in a block_group, flushed when full;
 *	long middles go straight through as runs;
 *	tags are computed for several packets side by side.
 *
 * Sealing: key blocks and data first, then the tags.  Opening: key blocks, tags,
 * comparison, and only packets that passed are decrypted.  Where one group can
 * take the key blocks and all that is not a run, opening makes that key stream in
 * one go, into a buffer, and still writes plaintext only after the comparison.
 *
 * Where @ops can, longer packets go through paired.c instead.
 *
 * Packets are grouped by length, so that the lanes of a chunk end together.
 * Branches depend on lengths, counts and verdicts, never on keys or contents.
 * One-time keys and key stream on the stack are erased after each chunk.
 */
#define CHUNK 16

/* Lengths that differ less than this many bytes count as equal for grouping. */
#define LENGTH_STEP 32
#define LENGTH_CLASSES 64

const uint8_t zero_block[CHACHA_BLOCK];

struct chunk {
	const struct lane_ops *ops;
	struct packet packet[CHUNK];
	unsigned int n;
	struct block_group group;
	/* Block 0 of each packet: the one-time key, then 32 bytes without use. */
	uint8_t block0[CHUNK][CHACHA_BLOCK] __attribute__((aligned(64)));
	uint8_t tag[CHUNK][AEAD_TAG_LEN];
};

static void flush(struct chunk *c)
{
	if (c->group.n)
		c->ops->xor_group(&c->group);
	c->group.n = 0;
}

static inline void push(struct chunk *c, const struct packet *p, uint32_t counter,
			const uint8_t *in, uint8_t *out, uint32_t len)
{
	group_add(&c->group, p, counter, in, out, len);
	if (c->group.n == c->ops->blocks)
		flush(c);
}

static void push_key_blocks(struct chunk *c)
{
	for (unsigned int i = 0; i < c->n; i++)
		push(c, &c->packet[i], 0, zero_block, c->block0[i], CHACHA_BLOCK);
}

static inline size_t blocks_of(size_t len)
{
	return (len + CHACHA_BLOCK - 1) / CHACHA_BLOCK;
}

/* How many of a packet's blocks go through as a run. */
static inline size_t run_of(const struct chunk *c, const struct packet *p)
{
	size_t blocks = p->len / CHACHA_BLOCK;

	return blocks - blocks % c->ops->run;
}

static void push_data(struct chunk *c, const struct packet *p)
{
	size_t run = run_of(c, p);
	size_t done = run * CHACHA_BLOCK, part;

	if (run)
		c->ops->xor_run(p->key, p->nonce, 1, p->in, p->out, run);
	for (; done < p->len; done += part) {
		part = p->len - done < CHACHA_BLOCK ? p->len - done : CHACHA_BLOCK;
		push(c, p, (uint32_t)(1 + done / CHACHA_BLOCK), p->in + done, p->out + done,
		     (uint32_t)part);
	}
}

void lanes_absorb(const struct lane_ops *ops, struct poly1305 *st, const uint8_t *in, size_t len)
{
	uint8_t last[POLY1305_BLOCK] = { 0 };
	size_t blocks = len / POLY1305_BLOCK, whole = blocks * POLY1305_BLOCK;

	if (blocks >= ops->long_blocks)
		ops->poly_long(st, in, blocks);
	else
		poly1305_blocks(st, in, blocks, 1);
	if (whole == len)
		return;
	memcpy(last, in + whole, len - whole);
	poly1305_blocks(st, last, 1, 1);
}

void lanes_tag(struct poly1305 *st, uint8_t tag[AEAD_TAG_LEN], size_t ad_len, size_t len)
{
	uint8_t lengths[POLY1305_BLOCK];

	store_le64(lengths, ad_len);
	store_le64(lengths + 8, len);
	poly1305_blocks(st, lengths, 1, 1);
	poly1305_final(st, tag);
}

/* The tag of one packet (RFC 8439 section 2.8). */
static void tag_one(const struct lane_ops *ops, uint8_t tag[AEAD_TAG_LEN], const uint8_t *key,
		    const uint8_t *ad, size_t ad_len, const uint8_t *data, size_t len)
{
	struct poly1305 st;

	poly1305_init(&st, key);
	if (ad_len)
		lanes_absorb(ops, &st, ad, ad_len);
	lanes_absorb(ops, &st, data, len);
	lanes_tag(&st, tag, ad_len, len);
}

/* Tags of a chunk over @in (opening) or @out (sealing). */
static void tag_chunk(struct chunk *c, bool sealing)
{
	struct poly_lane lane[LANES_MAX];
	unsigned int i = 0, k, n;

	while (i < c->n) {
		n = c->n - i < c->ops->packets ? c->n - i : c->ops->packets;
		if (n == 1) {
			const struct packet *p = &c->packet[i];

			tag_one(c->ops, c->tag[i], c->block0[i], NULL, 0,
				sealing ? p->out : p->in, p->len);
			i++;
			continue;
		}
		for (k = 0; k < n; k++, i++) {
			lane[k].key = c->block0[i];
			lane[k].data = sealing ? c->packet[i].out : c->packet[i].in;
			lane[k].len = c->packet[i].len;
			lane[k].tag = c->tag[i];
		}
		c->ops->tags(lane, n);
	}
}

static void erase_chunk(struct chunk *c)
{
	secret_erase(c->block0, c->n * sizeof(c->block0[0]));
}

static void seal_chunk(struct chunk *c)
{
	push_key_blocks(c);
	for (unsigned int i = 0; i < c->n; i++)
		push_data(c, &c->packet[i]);
	flush(c);
	tag_chunk(c, true);
	for (unsigned int i = 0; i < c->n; i++)
		memcpy(c->packet[i].out + c->packet[i].len, c->tag[i], AEAD_TAG_LEN);
	erase_chunk(c);
}

#if defined(__SSE2__) || defined(__ARM_NEON)
typedef uint64_t xor_word __attribute__((vector_size(16)));
#else
typedef size_t xor_word;
#endif

void lanes_xor(uint8_t *out, const uint8_t *in, const uint8_t *stream, size_t len)
{
	size_t i = 0;
	xor_word a, b;

	for (; i + sizeof(a) <= len; i += sizeof(a)) {
		memcpy(&a, in + i, sizeof(a));
		memcpy(&b, stream + i, sizeof(b));
		a ^= b;
		memcpy(out + i, &a, sizeof(a));
	}
	for (; i < len; i++)
		out[i] = in[i] ^ stream[i];
}

/*
 * Make the key stream of all blocks that no run covers together with the key
 * blocks, and use it if the tag is right: all of a chunk that fits one group, and
 * the end of a lone packet, which would else be a second, almost empty group.
 */
static unsigned int open_chunk_at_once(struct chunk *c)
{
	uint8_t stream[LANES_MAX][CHACHA_BLOCK] __attribute__((aligned(64)));
	unsigned int first[CHUNK], used = 0, passed = 0;

	for (unsigned int i = 0; i < c->n; i++) {
		const struct packet *p = &c->packet[i];

		first[i] = used;
		for (size_t b = run_of(c, p); b < blocks_of(p->len); b++, used++)
			push(c, p, (uint32_t)(1 + b), zero_block, stream[used], CHACHA_BLOCK);
	}
	flush(c);
	tag_chunk(c, false);
	for (unsigned int i = 0; i < c->n; i++) {
		const struct packet *p = &c->packet[i];
		size_t run = run_of(c, p), done = run * CHACHA_BLOCK;

		if (!tag_equal(c->tag[i], p->in + p->len))
			continue;
		if (run)
			c->ops->xor_run(p->key, p->nonce, 1, p->in, p->out, run);
		lanes_xor(p->out + done, p->in + done, stream[first[i]], p->len - done);
		passed |= 1u << i;
	}
	secret_erase(stream, used * sizeof(stream[0]));
	return passed;
}

/* Return: a bit for each packet whose tag was right */
static unsigned int open_chunk(struct chunk *c)
{
	unsigned int passed = 0;
	size_t total = c->n;

	for (unsigned int i = 0; i < c->n; i++)
		total += blocks_of(c->packet[i].len);
	push_key_blocks(c);
	if (c->n == 1 || total <= c->ops->blocks) {
		passed = open_chunk_at_once(c);
		erase_chunk(c);
		return passed;
	}
	flush(c);
	tag_chunk(c, false);
	for (unsigned int i = 0; i < c->n; i++) {
		const struct packet *p = &c->packet[i];

		if (!tag_equal(c->tag[i], p->in + p->len))
			continue;
		push_data(c, p);
		passed |= 1u << i;
	}
	flush(c);
	erase_chunk(c);
	return passed;
}

/* Group jobs by length: @order gets their indices, the shortest first. */
static void sort_by_length(uint8_t *order, const struct aead_job *jobs, size_t n)
{
	uint8_t count[LENGTH_CLASSES + 1] = { 0 };
	uint8_t class[AEAD_BATCH_MAX];
	size_t i, equal = 1;

	while (equal < n && jobs[equal].len == jobs[0].len)
		equal++;
	if (equal == n) {
		for (i = 0; i < n; i++)
			order[i] = (uint8_t)i;
		return;
	}
	for (i = 0; i < n; i++) {
		uint32_t step = jobs[i].len / LENGTH_STEP;

		class[i] = (uint8_t)(step < LENGTH_CLASSES ? step : LENGTH_CLASSES - 1);
		count[class[i] + 1]++;
	}
	for (i = 1; i <= LENGTH_CLASSES; i++)
		count[i] += count[i - 1];
	for (i = 0; i < n; i++)
		order[count[class[i]]++] = (uint8_t)i;
}

/* How many packets at the end of @order go through paired.c. */
static size_t fed_of(const struct lane_ops *ops, const uint8_t *order, const struct aead_job *jobs,
		     size_t n)
{
	size_t fed = 0;

	if (ops->fed_min)
		while (fed < n && jobs[order[n - 1 - fed]].len >= ops->fed_min)
			fed++;
	return fed > 1 ? fed : 0;
}

/*
 * Who seals a message of this length when it comes alone; NULL is us.  Opening is
 * always ours: the library would have to decrypt long messages twice.
 */
static const struct aead_variant *library_for(const struct aead_variant *v, size_t len)
{
#ifndef WT_CRYPTO_NO_OPENSSL
	if (len > v->ops->lone_max)
		return &aead_openssl;
#endif
	(void)v;
	(void)len;
	return NULL;
}

void lanes_seal_batch(const struct aead_variant *v, struct aead_job *jobs, size_t n)
{
	struct chunk c;
	uint8_t order[AEAD_BATCH_MAX];
	size_t fed;
	const struct aead_variant *library = n == 1 ? library_for(v, jobs[0].len) : NULL;

	if (library) {
		library->seal_batch(library, jobs, n);
		return;
	}
	c.ops = v->ops;
	c.group.n = 0;
	sort_by_length(order, jobs, n);
	fed = fed_of(v->ops, order, jobs, n);
	n -= fed;
	for (size_t i = 0; i < n; i += c.n) {
		c.n = n - i < CHUNK ? (unsigned int)(n - i) : CHUNK;
		for (unsigned int k = 0; k < c.n; k++)
			packet_of(&c.packet[k], &jobs[order[i + k]]);
		seal_chunk(&c);
	}
	if (fed)
		paired_seal(v->ops, jobs, order + n, fed);
}

void lanes_open_batch(const struct aead_variant *v, struct aead_job *jobs, size_t n)
{
	struct chunk c;
	uint8_t order[AEAD_BATCH_MAX];
	unsigned int passed;
	size_t fed;

	c.ops = v->ops;
	c.group.n = 0;
	sort_by_length(order, jobs, n);
	fed = fed_of(v->ops, order, jobs, n);
	n -= fed;
	for (size_t i = 0; i < n; i += c.n) {
		c.n = n - i < CHUNK ? (unsigned int)(n - i) : CHUNK;
		for (unsigned int k = 0; k < c.n; k++)
			packet_of(&c.packet[k], &jobs[order[i + k]]);
		passed = open_chunk(&c);
		for (unsigned int k = 0; k < c.n; k++)
			jobs[order[i + k]].ok = passed >> k & 1;
	}
	if (fed)
		paired_open(v->ops, jobs, order + n, fed);
}

static void take_message(struct chunk *c, const struct aead_variant *v, uint8_t *out,
			 const uint8_t *in, size_t len, const uint8_t *nonce, const uint8_t *key)
{
	struct packet *p = &c->packet[0];

	c->ops = v->ops;
	c->group.n = 0;
	c->n = 1;
	p->key = key;
	p->in = in;
	p->out = out;
	p->len = len;
	for (int i = 0; i < 3; i++)
		p->nonce[i] = load_le32(nonce + 4 * i);
}

void lanes_seal(const struct aead_variant *v, uint8_t *out, const uint8_t *in, size_t len,
		const uint8_t *ad, size_t ad_len, const uint8_t *nonce, const uint8_t *key)
{
	const struct aead_variant *library = library_for(v, len);
	struct chunk c;

	if (library) {
		library->seal(library, out, in, len, ad, ad_len, nonce, key);
		return;
	}
	take_message(&c, v, out, in, len, nonce, key);
	push_key_blocks(&c);
	push_data(&c, &c.packet[0]);
	flush(&c);
	tag_one(c.ops, out + len, c.block0[0], ad, ad_len, out, len);
	erase_chunk(&c);
}

bool lanes_open(const struct aead_variant *v, uint8_t *out, const uint8_t *in, size_t len,
		const uint8_t *ad, size_t ad_len, const uint8_t *nonce, const uint8_t *key)
{
	struct chunk c;
	bool ok;

	take_message(&c, v, out, in, len, nonce, key);
	push_key_blocks(&c);
	flush(&c);
	tag_one(c.ops, c.tag[0], c.block0[0], ad, ad_len, in, len);
	ok = tag_equal(c.tag[0], in + len);
	if (ok) {
		push_data(&c, &c.packet[0]);
		flush(&c);
	}
	erase_chunk(&c);
	return ok;
}
