# SPDX-License-Identifier: Apache-2.0
"""The pool of blocks: the only place where the stack's payload memory comes from."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from cext.netstack.layout cimport (
    NS_NIL, SLAB_CONTROL, SLAB_RECEIVE, SLAB_SEND, block, slab, slab_block,
)


cdef int slab_create(slab *s, uint64_t length, uint32_t block_bytes) noexcept nogil:
    memset(s, 0, sizeof(slab))
    s.block_bytes = (block_bytes + 63) & ~63u
    s.blocks = <uint32_t> (length // s.block_bytes)
    s.free_head = NS_NIL
    s.limit[<int> SLAB_CONTROL] = s.blocks
    s.limit[<int> SLAB_SEND] = s.blocks - s.blocks // 16
    s.limit[<int> SLAB_RECEIVE] = s.blocks - s.blocks // 8
    # Not calloc: musl's writes all of it, and memory that no connection needs would be resident.
    s.memory = <uint8_t *> malloc(<size_t> s.blocks * s.block_bytes)
    return 0 if s.memory != NULL else -1


cdef void slab_destroy(slab *s) noexcept nogil:
    free(s.memory)
    s.memory = NULL
    s.blocks = 0


cdef uint32_t slab_take(slab *s, uint32_t use) noexcept nogil:
    cdef uint32_t index
    cdef block *b

    if s.used >= s.limit[use]:
        s.failures[use] += 1
        return NS_NIL
    if s.free_head != NS_NIL:
        index = s.free_head
        s.free_head = slab_block(s, index).next
    else:
        index = s.fresh
        s.fresh += 1
    s.used += 1
    if s.used > s.peak:
        s.peak = s.used
    b = slab_block(s, index)
    memset(b, 0, sizeof(block))
    b.next = b.prev = b.time_next = b.time_prev = b.run = NS_NIL
    return index


cdef void slab_put(slab *s, uint32_t index) noexcept nogil:
    slab_block(s, index).next = s.free_head
    s.free_head = index
    s.used -= 1


cdef uint32_t slab_put_chain(slab *s, uint32_t head) noexcept nogil:
    cdef uint32_t following, n = 0

    while head != NS_NIL:
        following = slab_block(s, head).next
        slab_put(s, head)
        head = following
        n += 1
    return n
