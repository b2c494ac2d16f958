/* SPDX-License-Identifier: Apache-2.0 */
/* All of a component's memory, reserved at once and cut up once. */
#ifndef WT_BASE_ARENA_H
#define WT_BASE_ARENA_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

/**
 * struct arena - Memory that only grows until it is released as a whole
 * @base:	Page aligned; pages that nobody touches cost no RAM
 * @size:	Reserved bytes
 * @used:	Handed out
 *
 * There is no way to give a piece back: what has to come and go is a pool of
 * equal slots inside one piece, with its own free list.
 */
struct arena {
	uint8_t *base;
	size_t size;
	size_t used;
};

#define ARENA_ALIGN 64u

/** arena_reserve() - Get @size bytes from the system; untouched. Return: 0 or -1 */
static inline int arena_reserve(struct arena *a, size_t size)
{
	void *base = NULL;

	a->size = 0;
	a->used = 0;
	a->base = NULL;
	if (posix_memalign(&base, 4096, size) != 0)
		return -1;
	a->base = base;
	a->size = size;
	return 0;
}

/** arena_take() - Cut off @len bytes, cache line aligned; NULL when they are not there */
static inline void *arena_take(struct arena *a, size_t len)
{
	uint8_t *p = a->base + a->used;
	size_t rounded = (len + ARENA_ALIGN - 1) & ~(size_t)(ARENA_ALIGN - 1);

	if (rounded < len || rounded > a->size - a->used)
		return NULL;
	a->used += rounded;
	return p;
}

static inline void arena_release(struct arena *a)
{
	free(a->base);
	a->base = NULL;
	a->size = 0;
	a->used = 0;
}

#endif /* WT_BASE_ARENA_H */
