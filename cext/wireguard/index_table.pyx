# SPDX-License-Identifier: Apache-2.0
"""The index table's changes; its lookup is in the .pxd, its theory in index_table.h."""

from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport calloc, free

from cext.wireguard.state cimport index_entry, index_table, wg_device, wg_peer


cdef index_entry *free_entry(index_table *table, uint32_t index) noexcept nogil:
    cdef uint32_t at = index & table.mask

    while table.entries[at].index != 0:
        at = (at + 1) & table.mask
    return &table.entries[at]


cdef int index_table_reserve(index_table *table, uint32_t indices) noexcept nogil:
    cdef index_table larger
    cdef uint32_t size = 16, at

    while size < 2 * indices:
        size *= 2
    if table.entries != NULL and size <= table.mask + 1:
        return 0
    larger.entries = <index_entry *>calloc(size, sizeof(index_entry))
    if larger.entries == NULL:
        return -1
    larger.mask = size - 1
    larger.used = table.used
    if table.entries != NULL:
        for at in range(table.mask + 1):
            if table.entries[at].index != 0:
                free_entry(&larger, table.entries[at].index)[0] = table.entries[at]
        free(table.entries)
    table[0] = larger
    return 0


cdef void index_table_release(index_table *table) noexcept nogil:
    free(table.entries)
    table.entries = NULL


cdef uint32_t index_table_insert(wg_device *dev, wg_peer *peer, uint32_t slot) noexcept nogil:
    cdef index_entry *entry
    cdef uint32_t index = 0

    while index == 0 or index_table_lookup(&dev.indices, index) != NULL:
        dev.random(dev.random_ctx, <uint8_t *>&index, sizeof(index))
    entry = free_entry(&dev.indices, index)
    entry.index = index
    entry.slot = slot
    entry.peer = peer
    dev.indices.used += 1
    return index


cdef void index_table_remove(index_table *table, uint32_t index) noexcept nogil:
    cdef index_entry *entry
    cdef uint32_t hole, at, home

    if index == 0:
        return
    entry = index_table_lookup(table, index)
    if entry == NULL:
        return
    hole = <uint32_t>(entry - table.entries)
    at = hole
    while True:
        at = (at + 1) & table.mask
        if table.entries[at].index == 0:
            break
        # An entry may move into the hole unless its home lies behind the hole.
        home = table.entries[at].index & table.mask
        if ((at - home) & table.mask) >= ((at - hole) & table.mask):
            table.entries[hole] = table.entries[at]
            hole = at
    table.entries[hole].index = 0
    table.entries[hole].peer = NULL
    table.used -= 1
