/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernel does with this process when it fails. */
#ifndef WT_HOST_PROCESS_H
#define WT_HOST_PROCESS_H

/**
 * process_keep_memory() - No core file, and no other user's debugger
 *
 * Keys lie in our pools and in objects of the interpreter, which moves and copies
 * them: only a process that leaves no image behind keeps them to itself.
 *
 * Return: 0 or -errno
 */
int process_keep_memory(void);

#endif /* WT_HOST_PROCESS_H */
