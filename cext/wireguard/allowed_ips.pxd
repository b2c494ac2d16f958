# SPDX-License-Identifier: Apache-2.0
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cext.base.endian cimport load_be32, load_be64
from cext.wireguard.state cimport ALLOWED_IPS_NONE, allowed_ips, allowed_node, wg_prefix


cdef void allowed_ips_init(allowed_ips *table, uint32_t limit) noexcept nogil
cdef void allowed_ips_release(allowed_ips *table) noexcept nogil
# `first` is the head of the owner's list and may change. An owner that had the
# prefix before loses it: `first_of` maps an owner to its head. 0 or WG_ERROR_*.
ctypedef uint32_t *(*allowed_first_fn)(void *owner) noexcept nogil
cdef int allowed_ips_insert(allowed_ips *table, const wg_prefix *prefix, void *owner,
                            allowed_first_fn first_of) noexcept nogil
# False unless this owner has exactly this prefix.
cdef bint allowed_ips_remove(allowed_ips *table, const wg_prefix *prefix, void *owner,
                             allowed_first_fn first_of) noexcept nogil
cdef void allowed_ips_remove_owner(allowed_ips *table, uint32_t *first) noexcept nogil
# The prefix of a node, for listing.
cdef void allowed_ips_prefix(const allowed_node *node, wg_prefix *prefix) noexcept nogil
cdef size_t allowed_ips_bytes(const allowed_ips *table) noexcept nogil


# Whether the first `cidr` bits are the same; `cidr` is 0 to 128.
cdef inline bint allowed_ips_match(const allowed_node *node, uint64_t high,
                                   uint64_t low) noexcept nogil:
    cdef uint32_t cidr = node.cidr

    # Two shifts, each below 64, because a shift by 64 is undefined.
    if cidr <= 64:
        return cidr == 0 or ((node.high ^ high) >> (64 - cidr)) == 0
    return node.high == high and ((node.low ^ low) >> (128 - cidr)) == 0


cdef inline void *allowed_ips_walk(const allowed_ips *table, uint32_t at, uint32_t bits,
                                   uint64_t high, uint64_t low) noexcept nogil:
    cdef const allowed_node *node
    cdef void *found = NULL
    cdef uint32_t cidr

    while at != ALLOWED_IPS_NONE:
        node = &table.nodes[at]
        if not allowed_ips_match(node, high, low):
            break
        if node.owner != NULL:
            found = node.owner
        cidr = node.cidr
        if cidr == bits:
            break
        if cidr < 64:
            at = node.child[(high >> (63 - cidr)) & 1]
        else:
            at = node.child[(low >> (127 - cidr)) & 1]
    return found


# NULL when no prefix contains the address, which may lie at any alignment.
cdef inline void *allowed_ips_lookup_v4(const allowed_ips *table,
                                        const uint8_t *address) noexcept nogil:
    return allowed_ips_walk(table, table.root[0], 32, <uint64_t>load_be32(address) << 32, 0)


cdef inline void *allowed_ips_lookup_v6(const allowed_ips *table,
                                        const uint8_t *address) noexcept nogil:
    return allowed_ips_walk(table, table.root[1], 128, load_be64(address),
                            load_be64(address + 8))
