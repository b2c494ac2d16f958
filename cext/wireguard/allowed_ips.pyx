# SPDX-License-Identifier: Apache-2.0
"""Changes of the allowed-IPs tries; lookups are in the .pxd, the theory in allowed_ips.h."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memset

from cext.base.endian cimport load_be64, store_be64
from cext.wire.endpoint cimport WT_AF_INET, WT_AF_INET6
from cext.wireguard.state cimport (
    ALLOWED_IPS_NONE,
    WG_ERROR_LIMIT,
    WG_ERROR_NO_MEMORY,
    WG_ERROR_RANGE,
    allowed_ips,
    allowed_node,
    wg_prefix,
)


cdef void allowed_ips_init(allowed_ips *table, uint32_t limit) noexcept nogil:
    memset(table, 0, sizeof(table[0]))
    table.fresh = 1
    table.limit = limit


cdef void allowed_ips_release(allowed_ips *table) noexcept nogil:
    free(table.nodes)
    allowed_ips_init(table, table.limit)


cdef size_t allowed_ips_bytes(const allowed_ips *table) noexcept nogil:
    return <size_t>table.capacity * sizeof(allowed_node)


cdef int reserve(allowed_ips *table, uint32_t nodes) noexcept nogil:
    """Make sure that `nodes` more can be taken. Moves the array."""
    cdef allowed_node *larger
    cdef uint32_t capacity

    # Given back nodes are not counted: at most a few slots stay unused.
    if table.capacity - table.fresh >= nodes and table.capacity:
        return 0
    capacity = table.capacity * 2 if table.capacity else 16
    larger = <allowed_node *>realloc(table.nodes, <size_t>capacity * sizeof(allowed_node))
    if larger == NULL:
        return -1
    table.nodes = larger
    table.capacity = capacity
    return 0


cdef uint32_t take(allowed_ips *table, const allowed_node *like) noexcept nogil:
    cdef uint32_t at = table.free

    if at != ALLOWED_IPS_NONE:
        table.free = table.nodes[at].child[0]
    else:
        at = table.fresh
        table.fresh += 1
    table.nodes[at] = like[0]
    return at


cdef void give_back(allowed_ips *table, uint32_t at) noexcept nogil:
    table.nodes[at].owner = NULL
    table.nodes[at].child[0] = table.free
    table.free = at


cdef uint32_t bit_of(const allowed_node *node, uint32_t position) noexcept nogil:
    if position < 64:
        return (node.high >> (63 - position)) & 1
    return (node.low >> (127 - position)) & 1


cdef void mask(allowed_node *node) noexcept nogil:
    """Clear the bits behind the prefix."""
    cdef uint32_t cidr = node.cidr

    if cidr == 0:
        node.high = 0
    elif cidr < 64:
        node.high &= ~<uint64_t>0 << (64 - cidr)
    if cidr <= 64:
        node.low = 0
    elif cidr < 128:
        node.low &= ~<uint64_t>0 << (128 - cidr)


cdef uint32_t common_bits(const allowed_node *a, const allowed_node *b) noexcept nogil:
    """Length of the longest prefix that contains both."""
    cdef uint32_t limit = a.cidr if a.cidr < b.cidr else b.cidr
    cdef uint32_t n = 0

    while n < limit and bit_of(a, n) == bit_of(b, n):
        n += 1
    return n


cdef int parse(const wg_prefix *prefix, allowed_node *node) noexcept nogil:
    memset(node, 0, sizeof(node[0]))
    node.family = prefix.family
    node.cidr = prefix.cidr
    if prefix.family == WT_AF_INET:
        if prefix.cidr > 32:
            return WG_ERROR_RANGE
        node.high = load_be64(prefix.address) & ~<uint64_t>0xffffffff
    elif prefix.family == WT_AF_INET6:
        if prefix.cidr > 128:
            return WG_ERROR_RANGE
        node.high = load_be64(prefix.address)
        node.low = load_be64(prefix.address + 8)
    else:
        return WG_ERROR_RANGE
    mask(node)
    return 0


cdef uint32_t *link_to(allowed_ips *table, uint32_t at) noexcept nogil:
    """The place that points to this node: a child of its parent, or a root."""
    cdef allowed_node *parent

    if table.nodes[at].parent == ALLOWED_IPS_NONE:
        return &table.root[table.nodes[at].family == WT_AF_INET6]
    parent = &table.nodes[table.nodes[at].parent]
    return &parent.child[bit_of(&table.nodes[at], parent.cidr)]


cdef void own(allowed_ips *table, uint32_t at, void *owner, uint32_t *first) noexcept nogil:
    cdef allowed_node *node = &table.nodes[at]

    node.owner = owner
    node.owned_previous = ALLOWED_IPS_NONE
    node.owned_next = first[0]
    if first[0] != ALLOWED_IPS_NONE:
        table.nodes[first[0]].owned_previous = at
    first[0] = at
    table.prefixes += 1


cdef void disown(allowed_ips *table, uint32_t at, uint32_t *first) noexcept nogil:
    cdef allowed_node *node = &table.nodes[at]

    if node.owned_previous != ALLOWED_IPS_NONE:
        table.nodes[node.owned_previous].owned_next = node.owned_next
    else:
        first[0] = node.owned_next
    if node.owned_next != ALLOWED_IPS_NONE:
        table.nodes[node.owned_next].owned_previous = node.owned_previous
    node.owner = NULL
    table.prefixes -= 1


cdef void prune(allowed_ips *table, uint32_t at) noexcept nogil:
    """Take out a node without owner, and its parent, unless it is a fork."""
    cdef allowed_node *node
    cdef uint32_t child, parent

    while at != ALLOWED_IPS_NONE:
        node = &table.nodes[at]
        if node.owner != NULL or (node.child[0] and node.child[1]):
            return
        child = node.child[0] | node.child[1]
        parent = node.parent
        link_to(table, at)[0] = child
        if child != ALLOWED_IPS_NONE:
            table.nodes[child].parent = parent
        give_back(table, at)
        # With the child in its place the parent keeps its number of children.
        if child != ALLOWED_IPS_NONE:
            return
        at = parent


cdef uint32_t find(const allowed_ips *table, const allowed_node *wanted,
                   uint32_t *above) noexcept nogil:
    """The node where the search for a prefix ends, and the last one that contains it."""
    cdef uint32_t at = table.root[wanted.family == WT_AF_INET6]
    cdef const allowed_node *node

    above[0] = ALLOWED_IPS_NONE
    while at != ALLOWED_IPS_NONE:
        node = &table.nodes[at]
        if node.cidr > wanted.cidr or not allowed_ips_match(node, wanted.high, wanted.low):
            break
        if node.cidr == wanted.cidr:
            break
        above[0] = at
        at = node.child[bit_of(wanted, node.cidr)]
    return at


cdef bint same(const allowed_node *a, const allowed_node *b) noexcept nogil:
    return a.cidr == b.cidr and a.high == b.high and a.low == b.low


cdef int allowed_ips_insert(allowed_ips *table, const wg_prefix *prefix, void *owner,
                            allowed_first_fn first_of) noexcept nogil:
    cdef allowed_node new, fork
    cdef uint32_t at, above = ALLOWED_IPS_NONE, added, middle
    cdef int error = parse(prefix, &new)

    if error:
        return error
    if reserve(table, 2):
        return WG_ERROR_NO_MEMORY
    at = find(table, &new, &above)
    if at != ALLOWED_IPS_NONE and same(&table.nodes[at], &new):
        if table.nodes[at].owner == owner:
            return 0
        if table.nodes[at].owner != NULL:
            disown(table, at, first_of(table.nodes[at].owner))
        elif table.prefixes >= table.limit:
            return WG_ERROR_LIMIT
        own(table, at, owner, first_of(owner))
        return 0
    if table.prefixes >= table.limit:
        return WG_ERROR_LIMIT

    new.parent = above
    added = take(table, &new)
    if at == ALLOWED_IPS_NONE:
        link_to(table, added)[0] = added
    elif common_bits(&table.nodes[at], &new) == new.cidr:
        # The new prefix contains the node that is there.
        link_to(table, added)[0] = added
        table.nodes[added].child[bit_of(&table.nodes[at], new.cidr)] = at
        table.nodes[at].parent = added
    else:
        fork = new
        fork.cidr = <uint8_t>common_bits(&table.nodes[at], &new)
        mask(&fork)
        middle = take(table, &fork)
        link_to(table, middle)[0] = middle
        table.nodes[middle].child[bit_of(&new, fork.cidr)] = added
        table.nodes[middle].child[bit_of(&table.nodes[at], fork.cidr)] = at
        table.nodes[added].parent = middle
        table.nodes[at].parent = middle
    own(table, added, owner, first_of(owner))
    return 0


cdef bint allowed_ips_remove(allowed_ips *table, const wg_prefix *prefix, void *owner,
                             allowed_first_fn first_of) noexcept nogil:
    cdef allowed_node wanted
    cdef uint32_t at, above = ALLOWED_IPS_NONE

    if parse(prefix, &wanted):
        return False
    at = find(table, &wanted, &above)
    if at == ALLOWED_IPS_NONE or not same(&table.nodes[at], &wanted):
        return False
    if owner == NULL or table.nodes[at].owner != owner:
        return False
    disown(table, at, first_of(owner))
    prune(table, at)
    return True


cdef void allowed_ips_remove_owner(allowed_ips *table, uint32_t *first) noexcept nogil:
    cdef uint32_t at

    while first[0] != ALLOWED_IPS_NONE:
        at = first[0]
        disown(table, at, first)
        prune(table, at)


cdef void allowed_ips_prefix(const allowed_node *node, wg_prefix *prefix) noexcept nogil:
    memset(prefix, 0, sizeof(prefix[0]))
    prefix.family = node.family
    prefix.cidr = node.cidr
    store_be64(prefix.address, node.high)
    store_be64(prefix.address + 8, node.low)
