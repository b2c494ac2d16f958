/* SPDX-License-Identifier: Apache-2.0 */
/* The table of relayed flows: slots, ids, lists. */
#include "engine/relay.h"

#include <stdlib.h>
#include <string.h>

#define INDEX_BITS 16
#define GENERATION_MASK 0x7fffu

struct relay *relay_create(const struct ns_limits *limits, struct event_ring *events)
{
	struct relay *r = calloc(1, sizeof(*r));
	uint32_t count = limits->tcp_flows + limits->udp_flows + RELAY_LISTENERS +
			 RELAY_ASSOCIATIONS;

	if (!r)
		return NULL;
	if (count > 1u << INDEX_BITS)
		count = 1u << INDEX_BITS;
	r->set = -1;
	r->events = events;
	r->count = count;
	r->flows = calloc(count, sizeof(*r->flows));
	r->finished = calloc((size_t)count + 1, sizeof(*r->finished));
	r->request_count = limits->syn_requests;
	r->requests = calloc(r->request_count, sizeof(*r->requests));
	if (!r->flows || !r->finished || !r->requests || stream_set_open(&r->set) < 0) {
		relay_destroy(r);
		return NULL;
	}
	r->ready_head = r->ready_tail = RELAY_NONE;
	r->free_head = 0;
	for (uint32_t i = 0; i < count; i++) {
		r->flows[i].fd = -1;
		r->flows[i].next = i + 1 < count ? i + 1 : RELAY_NONE;
	}
	r->space = limits->flow_rx_bytes;
	return r;
}

void relay_destroy(struct relay *r)
{
	for (uint32_t i = 0; r->flows && i < r->count; i++) {
		if (r->flows[i].fd >= 0)
			stream_close(r->flows[i].fd);
		free(r->flows[i].early);
	}
	stream_set_close(&r->set);
	free(r->flows);
	free(r->finished);
	free(r->requests);
	free(r);
}

size_t relay_memory_bytes(const struct relay *r)
{
	return sizeof(*r) + r->count * (sizeof(*r->flows) + sizeof(*r->finished)) +
	       r->request_count * sizeof(*r->requests);
}

uint32_t relay_id(const struct relay *r, const struct relay_flow *f)
{
	return (uint32_t)(f - r->flows) | (uint32_t)f->generation << INDEX_BITS;
}

struct relay_flow *relay_find(struct relay *r, uint32_t id)
{
	uint32_t index = id & ((1u << INDEX_BITS) - 1);
	struct relay_flow *f;

	if (index >= r->count)
		return NULL;
	f = &r->flows[index];
	return f->kind != RELAY_FREE && f->generation == id >> INDEX_BITS ? f : NULL;
}

struct relay_flow *relay_take(struct relay *r, uint8_t kind)
{
	struct relay_flow *f;

	if (r->free_head == RELAY_NONE)
		return NULL;
	f = &r->flows[r->free_head];
	r->free_head = f->next;
	f->kind = kind;
	f->next = RELAY_NONE;
	f->parent = RELAY_NONE;
	f->child = RELAY_NONE;
	r->used++;
	return f;
}

void relay_free(struct relay *r, struct relay_flow *f)
{
	uint16_t generation = (f->generation + 1) & GENERATION_MASK;
	bool queued = f->flags & RELAY_QUEUED;
	uint32_t next = f->next;

	free(f->early);
	memset(f, 0, sizeof(*f));
	f->fd = -1;
	f->generation = generation;
	r->used--;
	if (queued) {
		/* relay_next_ready() gives the slot back when it meets it. */
		f->flags = RELAY_QUEUED;
		f->next = next;
		return;
	}
	f->next = r->free_head;
	r->free_head = (uint32_t)(f - r->flows);
}

void relay_queue(struct relay *r, struct relay_flow *f)
{
	uint32_t index = (uint32_t)(f - r->flows);

	if (f->flags & RELAY_QUEUED)
		return;
	f->flags |= RELAY_QUEUED;
	f->next = RELAY_NONE;
	if (r->ready_tail == RELAY_NONE)
		r->ready_head = index;
	else
		r->flows[r->ready_tail].next = index;
	r->ready_tail = index;
}

struct relay_flow *relay_next_ready(struct relay *r)
{
	while (r->ready_head != RELAY_NONE) {
		uint32_t index = r->ready_head;
		struct relay_flow *f = &r->flows[index];

		r->ready_head = f->next;
		if (r->ready_head == RELAY_NONE)
			r->ready_tail = RELAY_NONE;
		f->flags &= (uint16_t)~RELAY_QUEUED;
		if (f->kind != RELAY_FREE)
			return f;
		f->next = r->free_head;
		r->free_head = index;
	}
	return NULL;
}

void relay_finish(struct relay *r, struct relay_flow *f)
{
	r->finished[r->finished_tail] = relay_id(r, f);
	r->finished_tail = (r->finished_tail + 1) % (r->count + 1);
	/* Closed before anybody asked: the oldest ids are stale. */
	if (r->finished_tail == r->finished_head)
		r->finished_head = (r->finished_head + 1) % (r->count + 1);
}

struct relay_flow *relay_next_finished(struct relay *r)
{
	while (r->finished_head != r->finished_tail) {
		struct relay_flow *f = relay_find(r, r->finished[r->finished_head]);

		r->finished_head = (r->finished_head + 1) % (r->count + 1);
		if (f)
			return f;
	}
	return NULL;
}
