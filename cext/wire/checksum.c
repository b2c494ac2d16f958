/* SPDX-License-Identifier: Apache-2.0 */
/* The internet checksum over bytes at any alignment, by words or by vectors. */
#include "wire/checksum.h"

#ifdef __x86_64__
#include <immintrin.h>

#include "base/cpu.h"
#endif

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

uint64_t checksum_add_portable(uint64_t sum, const void *data, size_t len)
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

static uint64_t copy_portable(uint64_t sum, void *to, const void *from, size_t len)
{
	memcpy(to, from, len);
	return checksum_add_portable(sum, to, len);
}

#ifdef __x86_64__
/* Below this the vectors' setting up costs more than they save: headers. */
#define WIDE_MIN 128

/*
 * Halves of 64-bit lanes, added up in 64 bits: no carry is lost below 2^32 steps.
 * The compiler makes two functions of it, with and without the copy.
 */
__attribute__((target("avx2"), always_inline)) static inline uint64_t
wide(uint64_t sum, bool copies, uint8_t *to, const uint8_t *p, size_t len)
{
	const __m256i low = _mm256_set1_epi64x(0xffffffff);
	__m256i a = _mm256_setzero_si256(), b = a, c = a, d = a;
	uint64_t lanes[4];

	for (; len >= 64; p += 64, len -= 64) {
		__m256i v = _mm256_loadu_si256((const __m256i *)(const void *)p);
		__m256i w = _mm256_loadu_si256((const __m256i *)(const void *)(p + 32));

		if (copies) {
			_mm256_storeu_si256((__m256i *)(void *)to, v);
			_mm256_storeu_si256((__m256i *)(void *)(to + 32), w);
			to += 64;
		}
		a = _mm256_add_epi64(a, _mm256_and_si256(v, low));
		b = _mm256_add_epi64(b, _mm256_srli_epi64(v, 32));
		c = _mm256_add_epi64(c, _mm256_and_si256(w, low));
		d = _mm256_add_epi64(d, _mm256_srli_epi64(w, 32));
	}
	a = _mm256_add_epi64(_mm256_add_epi64(a, b), _mm256_add_epi64(c, d));
	_mm256_storeu_si256((__m256i *)(void *)lanes, a);
	for (int i = 0; i < 4; i++)
		sum += (lanes[i] & 0xffffffffu) + (lanes[i] >> 32);
	if (copies)
		return copy_portable(sum, to, p, len);
	return checksum_add_portable(sum, p, len);
}

__attribute__((target("avx2"))) static uint64_t add_wide(uint64_t sum, const void *data,
							  size_t len)
{
	return wide(sum, false, NULL, data, len);
}

__attribute__((target("avx2"))) static uint64_t copy_wide(uint64_t sum, void *to,
							   const void *from, size_t len)
{
	return wide(sum, true, to, from, len);
}

enum { UNKNOWN, PORTABLE, WIDE };

/* Found out at the first use; threads that come here at the same time find the same. */
static int variant;

/* Whether both agree over every rest, from an odd address. */
static int find_variant(void)
{
	uint8_t data[4 * 64 + 2], copy[sizeof(data)];
	int found = PORTABLE;

	if (cpu_has_avx2()) {
		found = WIDE;
		for (size_t i = 0; i < sizeof(data); i++)
			data[i] = (uint8_t)(255 - i * i % 253);
		for (size_t len = WIDE_MIN; len < sizeof(data); len++) {
			uint16_t right = checksum_fold(checksum_add_portable(7, data + 1, len));

			if (checksum_fold(add_wide(7, data + 1, len)) != right ||
			    checksum_fold(copy_wide(7, copy, data + 1, len)) != right ||
			    memcmp(copy, data + 1, len) != 0)
				found = PORTABLE;
		}
	}
	__atomic_store_n(&variant, found, __ATOMIC_RELAXED);
	return found;
}

static inline bool use_wide(size_t len)
{
	int found;

	if (len < WIDE_MIN)
		return false;
	found = __atomic_load_n(&variant, __ATOMIC_RELAXED);
	return (found ? found : find_variant()) == WIDE;
}

bool checksum_is_wide(void)
{
	return use_wide(WIDE_MIN);
}

uint64_t checksum_add(uint64_t sum, const void *data, size_t len)
{
	return use_wide(len) ? add_wide(sum, data, len) : checksum_add_portable(sum, data, len);
}

uint64_t checksum_copy(uint64_t sum, void *to, const void *from, size_t len)
{
	return use_wide(len) ? copy_wide(sum, to, from, len) : copy_portable(sum, to, from, len);
}
#else
bool checksum_is_wide(void)
{
	return false;
}

uint64_t checksum_add(uint64_t sum, const void *data, size_t len)
{
	return checksum_add_portable(sum, data, len);
}

uint64_t checksum_copy(uint64_t sum, void *to, const void *from, size_t len)
{
	return copy_portable(sum, to, from, len);
}
#endif

uint64_t checksum_pseudo(const void *addresses, size_t address_len, uint8_t protocol,
			 uint32_t len)
{
	uint64_t sum = checksum_add(0, addresses, 2 * address_len);

	sum = checksum_word(sum, protocol);
	sum = checksum_word(sum, (uint16_t)(len >> 16));
	return checksum_word(sum, (uint16_t)len);
}
