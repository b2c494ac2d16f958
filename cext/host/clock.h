/* SPDX-License-Identifier: Apache-2.0 */
/* Time and randomness from the kernel; the engine hands them down as arguments. */
#ifndef WT_HOST_CLOCK_H
#define WT_HOST_CLOCK_H

#include <stddef.h>
#include <stdint.h>

/** clock_now_ns() - Monotonic time that also counts suspend where the kernel can */
uint64_t clock_now_ns(void);

/** clock_unix_ns() - Wall clock, as wrong as the host's */
uint64_t clock_unix_ns(void);

/** entropy_fill() - Fill @out with the kernel's random bytes
 *
 * Waits for the kernel's pool only when it was never seeded since boot.
 *
 * Return: 0, or -errno when there is no source at all
 */
int entropy_fill(void *out, size_t len);

#endif /* WT_HOST_CLOCK_H */
