/* SPDX-License-Identifier: Apache-2.0 */
/* The tables of known names and of datagrams that wait for one. */
#include "engine/relay_names.h"

#include <stddef.h>
#include <string.h>

const struct relay_name *names_find(const struct relay_names *n, const uint8_t *name,
				    uint8_t length, uint64_t now_ns)
{
	for (uint32_t i = 0; i < RELAY_NAMES; i++) {
		const struct relay_name *k = &n->known[i];

		if (k->until_ns > now_ns && k->length == length &&
		    memcmp(k->name, name, length) == 0)
			return k;
	}
	return NULL;
}

bool names_hold(struct relay_names *n, uint32_t association, const uint8_t *data, uint32_t length)
{
	struct relay_held *room = NULL;
	uint32_t own = 0;

	if (length > RELAY_HELD_BYTES)
		return false;
	for (uint32_t i = 0; i < RELAY_HELD; i++) {
		struct relay_held *h = &n->held[i];

		if (h->length)
			own += h->association == association;
		else if (!room)
			room = h;
	}
	if (!room || own >= RELAY_HELD_SHARE)
		return false;
	room->association = association;
	room->length = (uint16_t)length;
	room->asked = false;
	memcpy(room->data, data, length);
	return true;
}

static bool is_for(const struct relay_held *h, const uint8_t *name, uint8_t length)
{
	return h->length && h->data[RELAY_NAME_OFFSET - 1] == length &&
	       memcmp(h->data + RELAY_NAME_OFFSET, name, length) == 0;
}

const uint8_t *names_next_asked(struct relay_names *n)
{
	const uint8_t *found = NULL;

	for (uint32_t i = 0; i < RELAY_HELD; i++) {
		struct relay_held *h = &n->held[i];

		if (!h->length || h->asked)
			continue;
		if (!found)
			found = h->data + RELAY_NAME_OFFSET - 1;
		/* Those that wait for the same name are answered together. */
		if (is_for(h, found + 1, found[0]))
			h->asked = true;
	}
	return found;
}

void names_learn(struct relay_names *n, const uint8_t *name, uint8_t length, uint8_t family,
		 const uint8_t *address, uint64_t until_ns)
{
	struct relay_name *k = &n->known[0];

	for (uint32_t i = 0; i < RELAY_NAMES; i++) {
		struct relay_name *other = &n->known[i];

		if (other->length == length && memcmp(other->name, name, length) == 0) {
			k = other;
			break;
		}
		if (other->until_ns < k->until_ns)
			k = other;
	}
	memset(k, 0, sizeof(*k));
	k->until_ns = until_ns;
	k->length = length;
	memcpy(k->name, name, length);
	if (address) {
		k->family = family;
		memcpy(k->address, address, sizeof(k->address));
	}
}

const struct relay_held *names_release(struct relay_names *n, const uint8_t *name,
				       uint8_t length, uint16_t *datagram_len)
{
	for (uint32_t i = 0; i < RELAY_HELD; i++) {
		struct relay_held *h = &n->held[i];

		if (!is_for(h, name, length))
			continue;
		*datagram_len = h->length;
		h->length = 0;
		return h;
	}
	return NULL;
}

void names_forget(struct relay_names *n)
{
	memset(n->known, 0, sizeof(n->known));
}
