/* SPDX-License-Identifier: Apache-2.0 */
/* The program's own code and constants in memory, of which starting needs more than running. */
#ifndef WT_HOST_PAGES_H
#define WT_HOST_PAGES_H

#include <stddef.h>

/** pages_release_program() - Unmap read-only pages of program and libraries; what is used comes back
 *
 * They stay in the page cache, from where the kernel may now take them first. Pages that
 * can be written, relocated ones included, are left alone.
 *
 * Return: bytes of the ranges that were released
 */
size_t pages_release_program(void);

#endif /* WT_HOST_PAGES_H */
