# SPDX-License-Identifier: Apache-2.0
"""Timers of all flows in eight levels of 64 slots; see wheel.h."""

from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from cext.netstack.layout cimport (
    NS_NIL, WHEEL_BITS, WHEEL_FARTHEST_MS, WHEEL_LEVELS, WHEEL_NEVER, WHEEL_SLOTS, wheel,
    wheel_timer,
)


cdef extern from *:
    """
    #define lowest_bit(x) ((uint32_t)__builtin_ctzll(x))
    #define highest_bit(x) (63u - (uint32_t)__builtin_clzll(x))
    """
    uint32_t lowest_bit(uint64_t x) nogil
    uint32_t highest_bit(uint64_t x) nogil


cdef int wheel_create(wheel *w, uint32_t timers, uint64_t now_ms) noexcept nogil:
    cdef uint32_t i

    memset(w, 0, sizeof(wheel))
    w.timer = <wheel_timer *> calloc(timers + WHEEL_LEVELS * WHEEL_SLOTS, sizeof(wheel_timer))
    if w.timer == NULL:
        return -1
    w.timers = timers
    w.now_ms = now_ms
    for i in range(timers, timers + WHEEL_LEVELS * WHEEL_SLOTS):
        w.timer[i].next = w.timer[i].prev = i
    return 0


cdef void wheel_destroy(wheel *w) noexcept nogil:
    free(w.timer)
    w.timer = NULL


cdef inline void link_timer(wheel *w, uint32_t index, uint64_t due_ms) noexcept nogil:
    """Put an unlinked timer into the slot for `due_ms`, which is not before w.now_ms."""
    cdef uint32_t level = highest_bit((due_ms ^ w.now_ms) | 1) // WHEEL_BITS
    cdef uint32_t slot, head
    cdef wheel_timer *t = &w.timer[index]

    slot = <uint32_t> (due_ms >> (WHEEL_BITS * level)) & (WHEEL_SLOTS - 1)
    t.due_ms = <uint32_t> due_ms
    t.slot = level * WHEEL_SLOTS + slot + 1
    head = w.timers + level * WHEEL_SLOTS + slot
    t.next = head
    t.prev = w.timer[head].prev
    w.timer[t.prev].next = index
    w.timer[head].prev = index
    w.occupied[level] |= <uint64_t> 1 << slot


cdef inline void unlink_timer(wheel *w, uint32_t index) noexcept nogil:
    cdef wheel_timer *t = &w.timer[index]
    cdef uint32_t slot = t.slot - 1

    w.timer[t.prev].next = t.next
    w.timer[t.next].prev = t.prev
    if t.next == t.prev and t.next >= w.timers:
        w.occupied[slot // WHEEL_SLOTS] &= ~(<uint64_t> 1 << (slot % WHEEL_SLOTS))
    t.slot = 0


cdef void wheel_arm(wheel *w, uint32_t index, uint64_t due_ms) noexcept nogil:
    if due_ms < w.now_ms:
        due_ms = w.now_ms
    elif due_ms - w.now_ms > WHEEL_FARTHEST_MS:
        due_ms = w.now_ms + WHEEL_FARTHEST_MS
    if w.timer[index].slot != 0:
        unlink_timer(w, index)
    else:
        w.armed += 1
    link_timer(w, index, due_ms)


cdef void wheel_cancel(wheel *w, uint32_t index) noexcept nogil:
    if w.timer[index].slot != 0:
        unlink_timer(w, index)
        w.armed -= 1


cdef void deal(wheel *w, uint32_t level, uint32_t slot) noexcept nogil:
    """Move the timers of a coarse slot, whose start has come, to the levels below."""
    cdef uint32_t head = w.timers + level * WHEEL_SLOTS + slot
    cdef uint32_t index = w.timer[head].next, following
    cdef int32_t ahead

    w.timer[head].next = w.timer[head].prev = head
    w.occupied[level] &= ~(<uint64_t> 1 << slot)
    while index != head:
        following = w.timer[index].next
        ahead = <int32_t> (w.timer[index].due_ms - <uint32_t> w.now_ms)
        link_timer(w, index, w.now_ms + <uint64_t> (ahead if ahead > 0 else 0))
        index = following


cdef inline uint64_t first_slot(const wheel *w, uint32_t *level, uint32_t *slot) noexcept nogil:
    """The start of the first slot in use."""
    cdef uint32_t i, shift

    for i in range(WHEEL_LEVELS):
        if w.occupied[i] != 0:
            level[0] = i
            slot[0] = lowest_bit(w.occupied[i])
            shift = WHEEL_BITS * (i + 1)
            return (w.now_ms >> shift << shift) + (<uint64_t> slot[0] << (shift - WHEEL_BITS))
    return WHEEL_NEVER


cdef uint32_t wheel_pop(wheel *w, uint64_t now_ms) noexcept nogil:
    cdef uint32_t level = 0, slot = 0, index
    cdef uint64_t start

    while True:
        start = first_slot(w, &level, &slot)
        if start > now_ms:
            if now_ms > w.now_ms:
                w.now_ms = now_ms
            return NS_NIL
        if start > w.now_ms:
            w.now_ms = start
        if level > 0:
            deal(w, level, slot)
            continue
        index = w.timer[w.timers + slot].next
        unlink_timer(w, index)
        w.armed -= 1
        return index


cdef uint64_t wheel_next(const wheel *w) noexcept nogil:
    cdef uint32_t level = 0, slot = 0

    return first_slot(w, &level, &slot)
