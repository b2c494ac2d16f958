/* SPDX-License-Identifier: Apache-2.0 */
/* Memory, events and small decisions of the engine. */
#include "engine/core.h"

#include <stdlib.h>
#include <string.h>

#include "base/secret.h"
#include "host/clock.h"
#include "host/loop.h"
#include "wire/checksum.h"

/* Inner packets are read whole, so this is what a datagram may add to the MTU. */
#define DATAGRAM_EXTRA 128
#define SMALL_AREA_BYTES (64u * 2048u)

static size_t in_area_bytes(const struct engine_core *core, size_t limit)
{
	if (!(core->features & HOST_UDP_GRO))
		return SMALL_AREA_BYTES;
	return (limit >= MEMORY_LIMIT_FULL ? IN_GRO_SLOTS : 2) * (size_t)IN_GRO_SLOT_BYTES;
}

static int reserve(struct engine_core *core, size_t limit)
{
	size_t in_size = in_area_bytes(core, limit);
	size_t out_size = limit >= MEMORY_LIMIT_FULL ? OUT_AREA_BYTES : 65536u + 4096u;
	size_t packet_size = TUN_HEADROOM + (size_t)TUN_PACKET_MAX + 1;

	if (arena_reserve(&core->arena, in_size + out_size + packet_size + 4 * ARENA_ALIGN) < 0)
		return -1;
	core->in.area = arena_take(&core->arena, in_size);
	core->in.area_size = (uint32_t)in_size;
	core->out.area = arena_take(&core->arena, out_size);
	core->out.area_size = (uint32_t)out_size;
	core->out.packet = arena_take(&core->arena, packet_size);
	if (!core->in.area || !core->out.area || !core->out.packet)
		return -1;
	core->out.packet += TUN_HEADROOM;
	core->out.packet_capacity = TUN_PACKET_MAX;
	return 0;
}

void core_size_buffers(struct engine_core *core, uint32_t mtu)
{
	struct inbound *in = &core->in;
	uint32_t slot = (mtu + DATAGRAM_EXTRA + 63u) & ~63u;

	if (core->features & HOST_UDP_GRO)
		slot = IN_GRO_SLOT_BYTES;
	in->buffer_count = in->area_size / slot;
	if (in->buffer_count > UDP_RECEIVE_MAX)
		in->buffer_count = UDP_RECEIVE_MAX;
	for (unsigned int i = 0; i < in->buffer_count; i++) {
		in->buffers[i].data = in->area + (size_t)i * slot;
		in->buffers[i].capacity = slot;
	}
}

struct engine_core *core_create(size_t limit, uint32_t features, uint32_t mtu)
{
	struct engine_core *core = calloc(1, sizeof(*core));

	if (!core)
		return NULL;
	core->features = features;
	core->memory_limit = limit;
	core->loop = -1;
	core->events.wake = -1;
	core->gate.wake = -1;
	udp_init(&core->udp, features);
	tun_init(&core->tun);
	if (gate_init(&core->gate) < 0 || loop_open(&core->loop) < 0 ||
	    wake_open(&core->events.wake) < 0 || reserve(core, limit) < 0) {
		core_destroy(core);
		return NULL;
	}
	core_size_buffers(core, mtu);
	core->tun.mtu = mtu;
	core->tell_at_ns = WG_NEVER;
	core->icmp_credit_ns = (uint64_t)ICMP_BURST * 1000000000u / ICMP_PER_SECOND;
	return core;
}

void core_destroy(struct engine_core *core)
{
	udp_close(&core->udp);
	tun_close(&core->tun);
	loop_close(&core->loop);
	wake_close(&core->events.wake);
	gate_destroy(&core->gate);
	/* Decrypted packets are secrets too. */
	if (core->in.area)
		secret_erase(core->in.area, core->in.area_size);
	if (core->out.area)
		secret_erase(core->out.area, core->out.area_size);
	if (core->out.packet)
		secret_erase(core->out.packet, core->out.packet_capacity);
	arena_release(&core->arena);
	free(core);
}

size_t core_memory_bytes(const struct engine_core *core)
{
	return sizeof(*core) + core->arena.size;
}

bool core_may_send_icmp(struct engine_core *core, uint64_t now_ns)
{
	const uint64_t cost = 1000000000u / ICMP_PER_SECOND, most = ICMP_BURST * cost;
	uint64_t passed = now_ns - core->icmp_at_ns;

	core->icmp_at_ns = now_ns;
	core->icmp_credit_ns = passed > most ? most : core->icmp_credit_ns + passed;
	if (core->icmp_credit_ns > most)
		core->icmp_credit_ns = most;
	if (core->icmp_credit_ns < cost)
		return false;
	core->icmp_credit_ns -= cost;
	return true;
}

void core_take_congestion(uint8_t *packet)
{
	if (ip_version(packet) == 4) {
		uint16_t before = load_be16(packet);
		uint32_t sum;

		/* Not ECN-capable inside: the mark has nowhere to go. */
		if ((packet[IPV4_TOS] & 3) == 0 || (packet[IPV4_TOS] & 3) == 3)
			return;
		packet[IPV4_TOS] |= 3;
		/* RFC 1624: HC' = ~(~HC + ~m + m') */
		sum = (uint16_t)~load_be16(packet + IPV4_CHECKSUM);
		sum += (uint16_t)~before;
		sum += load_be16(packet);
		sum = (sum & 0xffff) + (sum >> 16);
		sum = (sum & 0xffff) + (sum >> 16);
		store_be16(packet + IPV4_CHECKSUM, (uint16_t)~sum);
	} else {
		uint8_t ecn = (packet[1] >> 4) & 3;

		if (ecn != 0)
			packet[1] |= 0x30;
	}
}

/* Whether losing it does harm: nothing tells it a second time in time. */
static bool is_vital(uint32_t kind)
{
	return kind == EVENT_TIMESTAMP_FLOOR || kind == EVENT_INNER_CLOSED;
}

bool event_put(struct event_ring *r, uint32_t kind, const uint8_t *public_key, uint64_t value)
{
	uint32_t written = atomic_load_explicit(&r->written, memory_order_relaxed);
	uint32_t read = atomic_load_explicit(&r->read, memory_order_acquire);
	struct engine_event *event = &r->slots[written % ENGINE_EVENTS];

	if (written - read >= (is_vital(kind) ? ENGINE_EVENTS : ENGINE_EVENTS - EVENTS_VITAL)) {
		r->lost++;
		return false;
	}
	memset(event, 0, sizeof(*event));
	event->kind = kind;
	event->value = value;
	if (public_key)
		memcpy(event->public_key, public_key, sizeof(event->public_key));
	atomic_store_explicit(&r->written, written + 1, memory_order_release);
	r->unsaid = true;
	return true;
}

void event_tell(struct event_ring *r)
{
	r->unsaid = false;
	wake_signal(r->wake);
}

bool event_take(struct event_ring *r, struct engine_event *event)
{
	uint32_t read = atomic_load_explicit(&r->read, memory_order_relaxed);

	if (atomic_load_explicit(&r->written, memory_order_acquire) == read)
		return false;
	*event = r->slots[read % ENGINE_EVENTS];
	atomic_store_explicit(&r->read, read + 1, memory_order_release);
	return true;
}
