# SPDX-License-Identifier: Apache-2.0
from libc.stdint cimport uint32_t

from cext.wireguard.state cimport index_entry, index_table, wg_device, wg_peer


# Make room for `indices` in all; 0, or -1 without memory (then nothing changed).
cdef int index_table_reserve(index_table *table, uint32_t indices) noexcept nogil
cdef void index_table_release(index_table *table) noexcept nogil
# Draw a random index that is not in use and enter it. Never 0.
cdef uint32_t index_table_insert(wg_device *dev, wg_peer *peer, uint32_t slot) noexcept nogil
# 0 is ignored.
cdef void index_table_remove(index_table *table, uint32_t index) noexcept nogil


# NULL when nobody has it. The entry is valid until the next insert or remove.
cdef inline index_entry *index_table_lookup(const index_table *table,
                                            uint32_t index) noexcept nogil:
    cdef uint32_t at = index & table.mask

    while table.entries[at].index != 0:
        if table.entries[at].index == index:
            return &table.entries[at]
        at = (at + 1) & table.mask
    return NULL
