# SPDX-License-Identifier: Apache-2.0
"""Lets go of the program's own pages once it has started.

Most of the code and constants that an interpreter touches while it imports are never used
again; on a router with 64 MB they are better lost to packets in the page cache.
"""

cdef extern from "host/pages.h" nogil:
    size_t pages_release_program()


def release_program():
    """Unmap the program's read-only pages; return how many bytes the ranges had."""
    return pages_release_program()
