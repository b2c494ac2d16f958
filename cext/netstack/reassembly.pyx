# SPDX-License-Identifier: Apache-2.0
"""Reassembly of IPv4 and IPv6 fragments.

Theory of operation
-------------------
A datagram is known by source, destination, identification and, for IPv4,
protocol. Its fragments are copied into blocks and linked by offset. Once the
last fragment is known and nothing is missing, the whole is laid out in
s.reassembled as one packet and the blocks go back.

Bounds: limits.reassemblies datagrams, limits.reassembly_blocks blocks in all; beyond
either the oldest datagram goes, that of the same peer once it has a third. 64 fragments a datagram, 65,535 bytes,
30 seconds.

A fragment that repeats one we have is ignored. Any other overlap ends the whole
datagram (RFC 5722, kept for IPv4 as well: no honest sender makes one), as do a
total length that changes and a fragment that is not a multiple of eight bytes
although more follow.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from cext.base.drops cimport drop
from cext.base.endian cimport load_be16, load_be32, store_be16
from cext.netstack.flow cimport at_or_after
from cext.netstack.layout cimport (
    NS_NIL, NS_REASSEMBLED_MAX, SLAB_RECEIVE, WHEEL_NEVER, block, block_data, netstack, reassembly,
    slab_block,
)
from cext.netstack.slab cimport slab_put_chain, slab_take
from cext.wire.checksum cimport checksum_add, checksum_store
from cext.wire.ip cimport (
    IPV4_CHECKSUM, IPV4_FRAGMENT, IPV4_FRAGMENT_OFFSET, IPV4_ID, IPV4_MIN_LEN, IPV4_MORE_FRAGMENTS,
    IPV4_PROTOCOL, IPV4_SOURCE, IPV4_TOS, IPV4_TOTAL_LEN, IPV4_TTL, IPV6_HOP_LIMIT, IPV6_LEN,
    IPV6_NEXT_HEADER, IPV6_PAYLOAD_LEN, IPV6_SOURCE, IP_PROTOCOL_FRAGMENT, ip_info,
)


cdef extern from "base/drops.h" nogil:
    enum:
        DROP_NS_BAD_FRAGMENT
        DROP_NS_REASSEMBLY_FULL
        DROP_NS_REASSEMBLY_TIMEOUT

cdef enum:
    TIMEOUT_MS = 30000
    FRAGMENTS_MAX = 64
    EXTENSION_HEADERS_MAX = 8

# One fragment, whatever its IP version.
cdef struct fragment:
    uint32_t id
    uint32_t offset
    uint32_t len
    const uint8_t *data
    bint more
    uint8_t protocol
    uint8_t ttl
    uint8_t tos


cdef bint parse_fragment(const uint8_t *packet, const ip_info *info, fragment *f) noexcept nogil:
    cdef uint32_t field, at, next_header
    cdef int _i

    if info.version == 4:
        field = load_be16(packet + IPV4_FRAGMENT)
        f.id = load_be16(packet + IPV4_ID)
        f.offset = (field & IPV4_FRAGMENT_OFFSET) * 8
        f.more = field & IPV4_MORE_FRAGMENTS != 0
        f.protocol = packet[<int> IPV4_PROTOCOL]
        f.ttl = packet[<int> IPV4_TTL]
        f.tos = packet[<int> IPV4_TOS]
        at = info.l4_offset
    else:
        at = IPV6_LEN
        next_header = packet[<int> IPV6_NEXT_HEADER]
        # ip_parse() has checked that the chain stays inside the packet.
        for _i in range(EXTENSION_HEADERS_MAX):
            if next_header == IP_PROTOCOL_FRAGMENT:
                break
            next_header = packet[at]
            at += (packet[at + 1] + <uint32_t> 1) * 8
            if at + 8 > info.total_len:
                return False
        if next_header != IP_PROTOCOL_FRAGMENT:
            return False
        field = load_be16(packet + at + 2)
        f.id = load_be32(packet + at + 4)
        f.offset = field & ~<uint32_t> 7
        f.more = field & 1
        f.protocol = packet[at]
        f.ttl = packet[<int> IPV6_HOP_LIMIT]
        f.tos = 0
        at += 8
    f.data = packet + at
    f.len = info.total_len - at
    if f.len == 0 or f.offset + f.len > NS_REASSEMBLED_MAX - IPV6_LEN:
        return False
    return not (f.more and f.len & 7)


cdef void release(netstack *s, reassembly *r) noexcept nogil:
    s.reassembly_blocks -= slab_put_chain(&s.slab, r.head)
    s.reassemblies -= 1
    r.taken = 0
    r.head = NS_NIL


cdef reassembly *oldest(netstack *s) noexcept nogil:
    cdef reassembly *found = NULL
    cdef uint32_t i

    for i in range(s.limits.reassemblies):
        if s.reassembly[i].taken and (
                found == NULL or at_or_after(found.born_ms, s.reassembly[i].born_ms)):
            found = &s.reassembly[i]
    return found


cdef reassembly *first_to_go(netstack *s, uint32_t peer) noexcept nogil:
    """The oldest of `peer` once it holds a third of the datagrams or blocks, else of all."""
    cdef reassembly *own = NULL
    cdef reassembly *r
    cdef uint32_t i, datagrams = 0, blocks = 0

    for i in range(s.limits.reassemblies):
        r = &s.reassembly[i]
        if not r.taken or r.peer != peer:
            continue
        datagrams += 1
        blocks += r.blocks
        if own == NULL or at_or_after(own.born_ms, r.born_ms):
            own = r
    if datagrams * 3 >= s.limits.reassemblies or blocks * 3 >= s.limits.reassembly_blocks:
        return own
    return oldest(s)


cdef bint make_room(netstack *s, const reassembly *keep, uint32_t peer) noexcept nogil:
    """Let a datagram go for one of `peer`; False when that would be `keep`."""
    cdef reassembly *r = first_to_go(s, peer)

    drop(&s.drops, DROP_NS_REASSEMBLY_FULL)
    if r == NULL or r == keep:
        return False
    release(s, r)
    return True


cdef reassembly *find(netstack *s, const uint8_t *packet, const ip_info *info,
                      const fragment *f, uint32_t peer) noexcept nogil:
    cdef reassembly *r
    cdef reassembly *spare = NULL
    cdef const uint8_t *addresses = packet + info.addresses
    cdef uint32_t i, n = info.address_len

    for i in range(s.limits.reassemblies):
        r = &s.reassembly[i]
        if not r.taken:
            if spare == NULL:
                spare = r
        elif r.id == f.id and r.version == info.version and r.peer == peer and \
                (info.version == 6 or r.protocol == f.protocol) and \
                memcmp(r.source, addresses, n) == 0 and \
                memcmp(r.destination, addresses + n, n) == 0:
            return r
    if spare == NULL:
        if not make_room(s, NULL, peer):
            return NULL
        return find(s, packet, info, f, peer)
    memset(spare, 0, sizeof(reassembly))
    memcpy(spare.source, addresses, n)
    memcpy(spare.destination, addresses + n, n)
    spare.id = f.id
    spare.head = NS_NIL
    spare.born_ms = s.now_ms
    spare.peer = peer
    spare.version = info.version
    spare.protocol = f.protocol
    spare.taken = 1
    s.reassemblies += 1
    return spare


cdef int insert(netstack *s, reassembly *r, const fragment *f) noexcept nogil:
    """1: stored, 0: had it, -1: the datagram is not to be trusted, -2: no room."""
    cdef uint32_t at = r.head, before = NS_NIL, index
    cdef block *b
    cdef bint last = not f.more

    if last:
        if r.total != 0 and r.total != f.offset + f.len:
            return -1
    elif r.total != 0 and f.offset + f.len > r.total:
        return -1
    while at != NS_NIL:
        b = slab_block(&s.slab, at)
        if b.seq >= f.offset + f.len:
            break
        if b.seq == f.offset and b.len == f.len:
            return 0
        if b.seq + b.len > f.offset:
            return -1
        before = at
        at = b.next
    if last and at != NS_NIL:
        return -1
    if r.blocks >= FRAGMENTS_MAX:
        return -1
    while s.reassembly_blocks >= s.limits.reassembly_blocks:
        if not make_room(s, r, r.peer):
            return -2
    if f.len > s.slab.block_bytes - sizeof(block):
        return -1
    index = slab_take(&s.slab, SLAB_RECEIVE)
    if index == NS_NIL:
        return -2
    b = slab_block(&s.slab, index)
    b.offset = <uint16_t> sizeof(block)
    b.len = <uint16_t> f.len
    b.seq = f.offset
    memcpy(block_data(b), f.data, f.len)
    b.next = at
    if before == NS_NIL:
        r.head = index
    else:
        slab_block(&s.slab, before).next = index
    r.blocks += 1
    s.reassembly_blocks += 1
    r.got += f.len
    if last:
        r.total = f.offset + f.len
    if f.offset == 0:
        r.protocol = f.protocol
        r.ttl = f.ttl
        r.tos = f.tos
    return 1


cdef uint32_t finish(netstack *s, reassembly *r) noexcept nogil:
    """Lay the whole packet out at s.reassembled; its length."""
    cdef uint8_t *p = s.reassembled
    cdef uint32_t header = IPV4_MIN_LEN if r.version == 4 else IPV6_LEN
    cdef uint32_t at = r.head
    cdef block *b

    memset(p, 0, header)
    if r.version == 4:
        p[0] = 0x45
        p[<int> IPV4_TOS] = r.tos
        store_be16(p + IPV4_TOTAL_LEN, <uint16_t> (header + r.total))
        p[<int> IPV4_TTL] = r.ttl
        p[<int> IPV4_PROTOCOL] = r.protocol
        memcpy(p + IPV4_SOURCE, r.source, 4)
        memcpy(p + IPV4_SOURCE + 4, r.destination, 4)
        checksum_store(p + IPV4_CHECKSUM, checksum_add(0, p, header))
    else:
        p[0] = 0x60
        store_be16(p + IPV6_PAYLOAD_LEN, <uint16_t> r.total)
        p[<int> IPV6_NEXT_HEADER] = r.protocol
        p[<int> IPV6_HOP_LIMIT] = r.ttl
        memcpy(p + IPV6_SOURCE, r.source, 16)
        memcpy(p + IPV6_SOURCE + 16, r.destination, 16)
    while at != NS_NIL:
        b = slab_block(&s.slab, at)
        memcpy(p + header + b.seq, block_data(b), b.len)
        at = b.next
    header += r.total
    release(s, r)
    s.statistics.reassembled += 1
    return header


cdef uint32_t reassembly_input(netstack *s, const uint8_t *packet, const ip_info *info,
                               uint32_t peer) noexcept nogil:
    cdef fragment f
    cdef reassembly *r
    cdef int result

    s.statistics.fragments_in += 1
    if not parse_fragment(packet, info, &f):
        drop(&s.drops, DROP_NS_BAD_FRAGMENT)
        return 0
    r = find(s, packet, info, &f, peer)
    if r == NULL:
        return 0
    result = insert(s, r, &f)
    if result == -1:
        drop(&s.drops, DROP_NS_BAD_FRAGMENT)
        release(s, r)
        return 0
    if result == -2:
        drop(&s.drops, DROP_NS_REASSEMBLY_FULL)
        if r.head == NS_NIL:
            release(s, r)
        return 0
    if r.total != 0 and r.got == r.total:
        return finish(s, r)
    return 0


cdef void reassembly_poll(netstack *s) noexcept nogil:
    cdef uint32_t i
    cdef reassembly *r

    if s.reassemblies == 0:
        return
    for i in range(s.limits.reassemblies):
        r = &s.reassembly[i]
        if r.taken and at_or_after(s.now_ms, r.born_ms + TIMEOUT_MS):
            drop(&s.drops, DROP_NS_REASSEMBLY_TIMEOUT)
            release(s, r)


cdef uint64_t reassembly_poll_at(const netstack *s) noexcept nogil:
    cdef reassembly *r

    if s.reassemblies == 0:
        return WHEEL_NEVER
    r = oldest(<netstack *> s)
    return s.now_ms64 + <uint64_t> TIMEOUT_MS - (s.now_ms - r.born_ms)
