/* SPDX-License-Identifier: Apache-2.0 */
/* The internet checksum over bytes at any alignment. */
#include "wire/checksum.h"

/*
 * One machine word a step: the sum of words modulo 2^N - 1 is, once folded, the
 * sum of their 16-bit halves, so that carries out of the top are added back at
 * the bottom.  Four accumulators keep the add-with-carry chains independent.
 */
typedef unsigned long word_t;

static inline word_t load_word(const uint8_t *p)
{
	word_t w;

	memcpy(&w, p, sizeof(w));
	return w;
}

static inline word_t add_carry(word_t a, word_t b)
{
	a += b;
	return a + (a < b);
}

/* Halves of the word, so that the result has room above it. */
static inline uint64_t widen(word_t w)
{
	uint64_t v = w;

	return (v & 0xffffffffu) + (v >> 32);
}

/* What is left after whole words: memory order, an odd last byte padded with 0. */
static uint64_t add_tail(const uint8_t *p, size_t len)
{
	uint64_t sum = 0;
	uint16_t half;
	uint8_t last[2] = { 0, 0 };

	for (; len >= 2; p += 2, len -= 2) {
		memcpy(&half, p, sizeof(half));
		sum += half;
	}
	if (len) {
		last[0] = *p;
		memcpy(&half, last, sizeof(half));
		sum += half;
	}
	return sum;
}

uint64_t checksum_add(uint64_t sum, const void *data, size_t len)
{
	const uint8_t *p = data;
	word_t a = 0, b = 0, c = 0, d = 0;

	for (; len >= 4 * sizeof(word_t); p += 4 * sizeof(word_t), len -= 4 * sizeof(word_t)) {
		a = add_carry(a, load_word(p));
		b = add_carry(b, load_word(p + sizeof(word_t)));
		c = add_carry(c, load_word(p + 2 * sizeof(word_t)));
		d = add_carry(d, load_word(p + 3 * sizeof(word_t)));
	}
	for (; len >= sizeof(word_t); p += sizeof(word_t), len -= sizeof(word_t))
		a = add_carry(a, load_word(p));
	return sum + widen(a) + widen(b) + widen(c) + widen(d) + add_tail(p, len);
}

uint64_t checksum_copy(uint64_t sum, void *to, const void *from, size_t len)
{
	memcpy(to, from, len);
	return checksum_add(sum, to, len);
}

uint64_t checksum_pseudo(const void *addresses, size_t address_len, uint8_t protocol,
			 uint32_t len)
{
	uint64_t sum = checksum_add(0, addresses, 2 * address_len);

	sum = checksum_word(sum, protocol);
	sum = checksum_word(sum, (uint16_t)(len >> 16));
	return checksum_word(sum, (uint16_t)len);
}
