# SPDX-License-Identifier: Apache-2.0
"""The process's memory: lets go of the program's own pages, and keeps secrets out of cores.

Most of the code and constants that an interpreter touches while it imports are never used
again; on a router with 64 MB they are better lost to packets in the page cache.
"""

cdef extern from "host/pages.h" nogil:
    size_t pages_release_program()

cdef extern from "host/process.h" nogil:
    int process_keep_memory()


def keep_memory():
    """Leave no core file behind and let only root look in; return whether that is so."""
    return process_keep_memory() == 0


def release_program():
    """Unmap the program's read-only pages; return how many bytes the ranges had."""
    return pages_release_program()
