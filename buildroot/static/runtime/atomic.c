// SPDX-License-Identifier: Apache-2.0
/* Answers __atomic_is_lock_free() where the compiler's runtime library does not (zig, 32-bit).
 *
 * OpenSSL asks it for 64-bit counters; "no" makes it take the lock that it was given.
 */
#include <stdbool.h>
#include <stddef.h>

bool wt_atomic_is_lock_free(size_t size, const volatile void *object)
	__asm__("__atomic_is_lock_free") __attribute__((weak));

bool wt_atomic_is_lock_free(size_t size, const volatile void *object)
{
	(void)object;
	return size <= sizeof(void *);
}
