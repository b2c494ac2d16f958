# SPDX-License-Identifier: Apache-2.0
from libc.stdint cimport uint8_t


cdef extern from "base/arena.h" nogil:
    struct arena:
        uint8_t *base
        size_t size
        size_t used

    int arena_reserve(arena *a, size_t size)
    void *arena_take(arena *a, size_t length)
    void arena_release(arena *a)
