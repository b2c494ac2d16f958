# SPDX-License-Identifier: Apache-2.0
"""IPv4 and IPv6 on the way out: headers, fragments, the queue of finished packets."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from cext.base.drops cimport drop
from cext.base.endian cimport store_be16, store_be32
from cext.netstack.layout cimport (
    NS_NIL, SLAB_CONTROL, address_from_v4, address_is_v4, block, block_data, netstack, slab_block,
)
from cext.netstack.slab cimport slab_take
from cext.wire.checksum cimport checksum_add, checksum_pseudo, checksum_store
from cext.wire.ip cimport (
    IPV4_CHECKSUM, IPV4_DESTINATION, IPV4_DONT_FRAGMENT, IPV4_FRAGMENT, IPV4_ID, IPV4_MIN_LEN,
    IPV4_MORE_FRAGMENTS, IPV4_PROTOCOL, IPV4_SOURCE, IPV4_TTL, IPV6_DESTINATION, IPV6_HOP_LIMIT,
    IPV6_LEN, IPV6_NEXT_HEADER, IPV6_PAYLOAD_LEN, IPV6_SOURCE, IP_PROTOCOL_FRAGMENT, ip_info,
)


cdef extern from "base/drops.h" nogil:
    enum:
        DROP_NS_ANSWERS_FULL
        DROP_NS_SLAB_FULL

cdef enum:
    DEFAULT_TTL = 64
    UPPER_HEAD = 8  # UDP and echo headers
    FRAGMENT_LEN = 8  # IPv6 fragment header


cdef uint8_t *ip_header(uint8_t *upper, const uint8_t *source, const uint8_t *destination,
                        uint32_t protocol, uint32_t length, uint32_t ttl) noexcept nogil:
    cdef uint8_t *p

    if address_is_v4(source):
        p = upper - <int> IPV4_MIN_LEN
        store_be32(p, 0x45000000u | (length + IPV4_MIN_LEN))
        store_be32(p + IPV4_ID, IPV4_DONT_FRAGMENT)
        p[<int> IPV4_TTL] = <uint8_t> (ttl if ttl != 0 else DEFAULT_TTL)
        p[<int> IPV4_PROTOCOL] = <uint8_t> protocol
        store_be16(p + IPV4_CHECKSUM, 0)
        memcpy(p + IPV4_SOURCE, source + 12, 4)
        memcpy(p + IPV4_DESTINATION, destination + 12, 4)
        checksum_store(p + IPV4_CHECKSUM, checksum_add(0, p, IPV4_MIN_LEN))
        return p
    p = upper - <int> IPV6_LEN
    store_be32(p, 0x60000000u)
    store_be16(p + IPV6_PAYLOAD_LEN, <uint16_t> length)
    p[<int> IPV6_NEXT_HEADER] = <uint8_t> protocol
    p[<int> IPV6_HOP_LIMIT] = <uint8_t> (ttl if ttl != 0 else DEFAULT_TTL)
    memcpy(p + IPV6_SOURCE, source, 16)
    memcpy(p + IPV6_DESTINATION, destination, 16)
    return p


cdef uint64_t ip_pseudo(const uint8_t *source, const uint8_t *destination, uint32_t protocol,
                        uint32_t length) noexcept nogil:
    cdef uint8_t both[32]

    if address_is_v4(source):
        memcpy(both, source + 12, 4)
        memcpy(both + 4, destination + 12, 4)
        return checksum_pseudo(both, 4, <uint8_t> protocol, length)
    memcpy(both, source, 16)
    memcpy(both + 16, destination, 16)
    return checksum_pseudo(both, 16, <uint8_t> protocol, length)


cdef void ip_addresses(const uint8_t *packet, const ip_info *info, uint8_t *source,
                       uint8_t *destination) noexcept nogil:
    cdef const uint8_t *p = packet + info.addresses

    if info.version == 4:
        address_from_v4(source, p)
        address_from_v4(destination, p + 4)
    else:
        memcpy(source, p, 16)
        memcpy(destination, p + 16, 16)


cdef uint32_t answer_take(netstack *s) noexcept nogil:
    cdef uint32_t index

    if s.answers >= s.limits.answers:
        drop(&s.drops, DROP_NS_ANSWERS_FULL)
        return NS_NIL
    index = slab_take(&s.slab, SLAB_CONTROL)
    if index == NS_NIL:
        drop(&s.drops, DROP_NS_SLAB_FULL)
        return NS_NIL
    slab_block(&s.slab, index).offset = <uint16_t> (sizeof(block) + s.limits.headroom_bytes)
    return index


cdef void answer_push(netstack *s, uint32_t index, uint32_t owner, uint32_t peer) noexcept nogil:
    cdef block *b = slab_block(&s.slab, index)

    b.owner = owner
    b.peer = peer
    b.next = NS_NIL
    if s.answer_tail == NS_NIL:
        s.answer_head = index
    else:
        slab_block(&s.slab, s.answer_tail).next = index
    s.answer_tail = index
    s.answers += 1


cdef inline void copy_part(uint8_t *to, const uint8_t *head, const uint8_t *payload,
                           uint32_t offset, uint32_t length) noexcept nogil:
    """Copy a part of head and payload taken as one."""
    cdef uint32_t n = 0

    if offset < UPPER_HEAD:
        n = UPPER_HEAD - offset
        if n > length:
            n = length
        memcpy(to, head + offset, n)
    if length > n:
        memcpy(to + n, payload + (offset + n - UPPER_HEAD), length - n)


cdef bint send_fragments(netstack *s, const uint8_t *source, const uint8_t *destination,
                         uint32_t protocol, const uint8_t *head, const uint8_t *payload,
                         uint32_t total, uint32_t ttl, uint32_t owner,
                         uint32_t peer) noexcept nogil:
    cdef bint v4 = address_is_v4(source)
    cdef uint32_t overhead = IPV4_MIN_LEN if v4 else IPV6_LEN + FRAGMENT_LEN
    cdef uint32_t step = (s.limits.mtu_bytes - overhead) & ~<uint32_t> 7
    cdef uint32_t pieces = (total + step - 1) // step
    cdef uint32_t offset = 0, length, index, ident
    cdef block *b
    cdef uint8_t *upper
    cdef uint8_t *p

    if s.answers + pieces > s.limits.answers or \
            s.slab.used + pieces > s.slab.limit[<int> SLAB_CONTROL]:
        drop(&s.drops, DROP_NS_ANSWERS_FULL)
        return False
    s.next_id += 1
    ident = s.next_id
    while offset < total:
        length = total - offset if total - offset < step else step
        index = answer_take(s)
        b = slab_block(&s.slab, index)
        upper = block_data(b) + overhead
        copy_part(upper, head, payload, offset, length)
        if v4:
            p = ip_header(upper, source, destination, protocol, length, ttl)
            store_be16(p + IPV4_ID, <uint16_t> ident)
            store_be16(p + IPV4_FRAGMENT, <uint16_t> (
                offset // 8 | (IPV4_MORE_FRAGMENTS if offset + length < total else 0)))
            store_be16(p + IPV4_CHECKSUM, 0)
            checksum_store(p + IPV4_CHECKSUM, checksum_add(0, p, IPV4_MIN_LEN))
        else:
            upper -= FRAGMENT_LEN
            upper[0] = <uint8_t> protocol
            upper[1] = 0
            store_be16(upper + 2, <uint16_t> (offset | (1 if offset + length < total else 0)))
            store_be32(upper + 4, ident)
            p = ip_header(upper, source, destination, IP_PROTOCOL_FRAGMENT,
                          length + FRAGMENT_LEN, ttl)
        b.len = <uint16_t> (length + overhead)
        answer_push(s, index, owner, peer)
        offset += length
    return True


cdef bint ip_send(netstack *s, const uint8_t *source, const uint8_t *destination,
                  uint32_t protocol, const uint8_t *head, const uint8_t *payload,
                  uint32_t length, uint32_t ttl, uint32_t owner, uint32_t peer) noexcept nogil:
    cdef bint v4 = address_is_v4(source)
    cdef uint32_t overhead = IPV4_MIN_LEN if v4 else IPV6_LEN
    cdef uint32_t total = length + UPPER_HEAD, index
    cdef block *b
    cdef uint8_t *p

    if total + overhead > s.limits.mtu_bytes:
        return send_fragments(s, source, destination, protocol, head, payload, total, ttl,
                              owner, peer)
    index = answer_take(s)
    if index == NS_NIL:
        return False
    b = slab_block(&s.slab, index)
    p = block_data(b) + overhead
    copy_part(p, head, payload, 0, total)
    p = ip_header(p, source, destination, protocol, total, ttl)
    if v4:
        # Routers behind us may fragment it: RFC 6864 wants an identification then.
        s.next_id += 1
        store_be32(p + IPV4_ID, s.next_id << 16)
        store_be16(p + IPV4_CHECKSUM, 0)
        checksum_store(p + IPV4_CHECKSUM, checksum_add(0, p, IPV4_MIN_LEN))
    b.len = <uint16_t> (total + overhead)
    answer_push(s, index, owner, peer)
    return True


cdef bint ip_is_ours(const netstack *s, const uint8_t *address) noexcept nogil:
    cdef uint32_t i

    for i in range(s.addresses):
        if memcmp(s.address[i], address, 16) == 0:
            return True
    return False


cdef const uint8_t *ip_our_address(const netstack *s, const uint8_t *like) noexcept nogil:
    cdef uint32_t i

    for i in range(s.addresses):
        if address_is_v4(s.address[i]) == address_is_v4(like):
            return s.address[i]
    return NULL
