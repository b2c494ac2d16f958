/* SPDX-License-Identifier: Apache-2.0 */
/* The table of addresses that are no single host. */
#include "wire/special.h"

#include <stddef.h>
#include <string.h>

#include "wire/endpoint.h"

/**
 * struct special - A prefix, and what it says of the addresses in it
 * @address:	Its bytes, the rest zero
 * @bits:	Its length
 * @carries:	-1: none of them is a host; else where an IPv4 address begins that decides
 * @inverted:	That address is written with every bit inverted
 */
struct special {
	uint8_t address[16];
	uint8_t bits;
	int8_t carries;
	bool inverted;
};

/* The first one that contains an address decides. */
static const struct special v4_table[] = {
	{ { 0 }, 8, -1, false },		/* this network, RFC 791 */
	{ { 127 }, 8, -1, false },		/* loopback */
	{ { 169, 254 }, 16, -1, false },	/* link-local, and clouds' metadata */
	{ { 224 }, 4, -1, false },		/* multicast */
	{ { 240 }, 4, -1, false },		/* reserved, and broadcast */
};

static const struct special v6_table[] = {
	{ { 0, 0x64, 0xff, 0x9b }, 96, 12, false },		/* NAT64, RFC 6052 */
	{ { 0, 0x64, 0xff, 0x9b, 0, 1 }, 48, 12, false },	/* NAT64 of a site, RFC 8215 */
	{ { 0 }, 8, -1, false },		/* ::, ::1, mapped, compatible; all reserved */
	{ { 1, 0 }, 64, -1, false },		/* discard-only, RFC 6666 */
	{ { 0x20, 0x01 }, 32, 12, true },	/* Teredo: the client's, RFC 4380 */
	{ { 0x20, 0x02 }, 16, 2, false },	/* 6to4, RFC 3056 */
	{ { 0xfe, 0x80 }, 10, -1, false },	/* link-local */
	{ { 0xfe, 0xc0 }, 10, -1, false },	/* site-local, deprecated by RFC 3879 */
	{ { 0xff }, 8, -1, false },		/* multicast */
};

static bool contains(const struct special *s, const uint8_t *address)
{
	uint8_t whole = s->bits / 8, rest = s->bits % 8;

	if (memcmp(s->address, address, whole) != 0)
		return false;
	return !rest || ((s->address[whole] ^ address[whole]) & (uint8_t)(0xff00 >> rest)) == 0;
}

static const struct special *find(const struct special *table, size_t count,
				  const uint8_t *address)
{
	for (size_t i = 0; i < count; i++) {
		if (contains(&table[i], address))
			return &table[i];
	}
	return NULL;
}

static bool v4_is_host(const uint8_t *address)
{
	return !find(v4_table, sizeof(v4_table) / sizeof(v4_table[0]), address);
}

static bool v6_is_host(const uint8_t *address)
{
	const struct special *s =
		find(v6_table, sizeof(v6_table) / sizeof(v6_table[0]), address);
	uint8_t v4[4];

	if (!s)
		return true;
	if (s->carries < 0)
		return false;
	for (int i = 0; i < 4; i++)
		v4[i] = address[s->carries + i] ^ (s->inverted ? 0xff : 0);
	return v4_is_host(v4);
}

bool address_is_host(uint8_t family, const uint8_t *address)
{
	if (family == WT_AF_INET)
		return v4_is_host(address);
	return family == WT_AF_INET6 && v6_is_host(address);
}
