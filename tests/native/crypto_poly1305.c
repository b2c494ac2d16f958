/* SPDX-License-Identifier: Apache-2.0 */
/* Poly1305 of messages full of extremes: prints key, message and tag in hexadecimal. */
#include <stdio.h>

#include "base/endian.h"
#include "crypto/poly1305.h"

#define CASES 600
#define BLOCKS_MAX 7

static uint32_t random_state = 1;

static uint32_t next(void)
{
	random_state = random_state * 1664525 + 1013904223;
	return random_state >> 8;
}

/* Words that carry all the way, words that carry nowhere, and others. */
static void fill(uint8_t *p, size_t words)
{
	for (size_t i = 0; i < words; i++) {
		uint32_t kind = next() % 4, v = next() << 16 ^ next();

		store_le32(p + 4 * i, kind == 0 ? 0 : kind == 1 ? v : UINT32_MAX - (kind == 3) * 4);
	}
}

static void print(const uint8_t *p, size_t len, char end)
{
	for (size_t i = 0; i < len; i++)
		printf("%02x", p[i]);
	putchar(end);
}

int main(void)
{
	uint8_t room[BLOCKS_MAX * POLY1305_BLOCK + 4] __attribute__((aligned(4)));
	uint8_t key[POLY1305_KEY_LEN], tag[16];

	for (unsigned int i = 0; i < CASES; i++) {
		size_t blocks = i % (BLOCKS_MAX + 1), first = blocks ? next() % (blocks + 1) : 0;
		/* Both ways to load a word. */
		uint8_t *message = room + next() % 4;
		struct poly1305 p;

		fill(key, sizeof(key) / 4);
		fill(message, blocks * POLY1305_BLOCK / 4);
		poly1305_init(&p, key);
		poly1305_blocks(&p, message, first, 1);
		poly1305_blocks(&p, message + first * POLY1305_BLOCK, blocks - first, 1);
		poly1305_final(&p, tag);
		print(key, sizeof(key), ' ');
		print(message, blocks * POLY1305_BLOCK, ' ');
		print(tag, sizeof(tag), '\n');
	}
	return 0;
}
