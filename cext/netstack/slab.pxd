# SPDX-License-Identifier: Apache-2.0
# Taking and returning blocks; slab.h says who is refused first.
from libc.stdint cimport uint32_t, uint64_t

from cext.netstack.layout cimport slab


# `length` is the capacity in bytes, `block_bytes` of one block. -1 when memory is short.
cdef int slab_create(slab *s, uint64_t length, uint32_t block_bytes) noexcept nogil
cdef void slab_destroy(slab *s) noexcept nogil
# NS_NIL when `use` has reached its share. The block's metadata is cleared.
cdef uint32_t slab_take(slab *s, uint32_t use) noexcept nogil
cdef void slab_put(slab *s, uint32_t index) noexcept nogil
# Return a chain linked by `next`; the number of blocks.
cdef uint32_t slab_put_chain(slab *s, uint32_t head) noexcept nogil
