/* SPDX-License-Identifier: Apache-2.0 */
/* dl_iterate_phdr(3) tells the segments, madvise(2) lets them go. */
#define _GNU_SOURCE
#include "host/pages.h"

#include <link.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

static int release_segments(struct dl_phdr_info *info, size_t size, void *out)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
	size_t *released = out;

	(void)size;
	for (size_t i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *row = &info->dlpi_phdr[i];
		/* Whole pages only: a segment that can be written may share the last one. */
		uintptr_t from = (info->dlpi_addr + row->p_vaddr + page - 1) & ~(page - 1);
		uintptr_t to = (info->dlpi_addr + row->p_vaddr + row->p_memsz) & ~(page - 1);

		if (row->p_type != PT_LOAD || (row->p_flags & PF_W) || to <= from)
			continue;
		/* Locked pages refuse, which is as well. */
		if (madvise((void *)from, to - from, MADV_DONTNEED) == 0)
			*released += to - from;
	}
	return 0;
}

size_t pages_release_program(void)
{
	size_t released = 0;

	dl_iterate_phdr(release_segments, &released);
	return released;
}
