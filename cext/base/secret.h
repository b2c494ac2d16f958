/* SPDX-License-Identifier: Apache-2.0 */
/* Erasing and comparing secrets in a way the compiler cannot undo. */
#ifndef WT_BASE_SECRET_H
#define WT_BASE_SECRET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/**
 * secret_erase() - Overwrite memory with zeros, also when it is dead afterwards
 * @p:		First byte
 * @len:	Number of bytes
 */
static inline void secret_erase(void *p, size_t len)
{
	memset(p, 0, len);
	__asm__ __volatile__("" : : "r"(p) : "memory");
}

/**
 * secret_equal() - Compare in time that depends on @len only
 * @a:		First operand
 * @b:		Second operand
 * @len:	Number of bytes of each
 *
 * Return: true if both are the same
 */
static inline bool secret_equal(const void *a, const void *b, size_t len)
{
	const uint8_t *x = a, *y = b;
	uint32_t differs = 0;

	for (size_t i = 0; i < len; i++) {
		differs |= (uint32_t)(x[i] ^ y[i]);
		__asm__ __volatile__("" : "+r"(differs));
	}
	return differs == 0;
}

#endif /* WT_BASE_SECRET_H */
