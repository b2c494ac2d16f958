# SPDX-License-Identifier: Apache-2.0
"""Fuzz targets of the engine.

  gso   a vnet header and a packet as TUN could hand them out. The first byte says what is
        put right before, so that the checks are passed often. No byte of payload is lost,
        every segment has a right checksum
  gro   a list of packets of a few flows, built from a few bytes each, some with changed
        fields or wrong checksums, some plain bytes. Every packet is in exactly one group;
        cutting a group gives back its packets, and their checksums are right
  body  a request's body as it could come from a proxy's client: the first byte says how it
        is framed, the second in which pieces it comes. Pieces do not matter, and a chunked
        body ends where a parser of whole lines says
  relay two relays, a network between them and applications on sockets: fuzz_relay.pyx
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport abort, free, malloc
from libc.string cimport memcmp, memcpy, memset

from cpython.bytes cimport PyBytes_AS_STRING

from cext.base.endian cimport load_be16, store_be16, store_be32
from cext.engine.gro cimport (
    GRO_NONE,
    GRO_PACKETS_MAX,
    GRO_VECTORS_MAX,
    gro_batch,
    gro_coalesce,
    gro_group,
    gro_vectors,
)
from cext.engine.gso cimport (
    GSO_WHOLE,
    gso,
    gso_begin,
    gso_packet_len,
    gso_write,
)
from cext.engine.relay_table cimport (
    BODY_BROKEN,
    BODY_ENDED,
    body_init,
    body_take,
    relay_body,
)
from cext.engine.fuzz_relay cimport run_relay
from cext.host.tun cimport iovec
from cext.wire.checksum cimport (
    checksum_add,
    checksum_pseudo,
    checksum_store,
    checksum_store_udp,
    checksum_valid,
)
from cext.wire.ip cimport (
    IP_PROTOCOL_TCP,
    IP_PROTOCOL_UDP,
    IPV4_CHECKSUM,
    IPV4_DONT_FRAGMENT,
    IPV4_FRAGMENT,
    IPV4_ID,
    IPV4_MIN_LEN,
    IPV4_PROTOCOL,
    IPV4_SOURCE,
    IPV4_TOTAL_LEN,
    IPV4_TTL,
    IPV6_HOP_LIMIT,
    IPV6_LEN,
    IPV6_NEXT_HEADER,
    IPV6_PAYLOAD_LEN,
    IPV6_SOURCE,
    TCP_CHECKSUM,
    TCP_DATA_OFFSET,
    TCP_FLAGS,
    TCP_MIN_LEN,
    TCP_SEQUENCE,
    TCP_WINDOW,
    UDP_CHECKSUM,
    UDP_LEN,
    UDP_LENGTH,
)
from cext.wire.vnet cimport (
    VNET_GSO_TCPV4,
    VNET_GSO_TCPV6,
    VNET_GSO_UDP_L4,
    VNET_HEADER_LEN,
    VNET_NEEDS_CHECKSUM,
    vnet_header,
)

cdef enum:
    PUT_RIGHT = 1
    MAKE_UDP = 2
    MAKE_V6 = 4
    # One packet of the gro target: flow, fields, sequence, size.
    STEP = 4


cdef inline void must(bint condition) noexcept nogil:
    if not condition:
        abort()


cdef uint8_t *exactly(size_t size) noexcept nogil:
    """Return memory without a spare byte, so that a sanitizer sees every one too many."""
    cdef uint8_t *memory = <uint8_t *>malloc(size if size else 1)
    must(memory != NULL)
    return memory


cdef bint transport_is_right(const uint8_t *packet, uint32_t length, uint32_t l4_offset,
                             uint8_t protocol) noexcept nogil:
    cdef uint32_t size = length - l4_offset
    cdef uint64_t total
    if packet[0] >> 4 == 4:
        total = checksum_pseudo(packet + IPV4_SOURCE, 4, protocol, size)
    else:
        total = checksum_pseudo(packet + IPV6_SOURCE, 16, protocol, size)
    return checksum_valid(checksum_add(total, packet + l4_offset, size))


cdef bint put_right(uint8_t mode, vnet_header *header, uint8_t *packet,
                    size_t size) noexcept nogil:
    """Make header and packet fit each other; False when it is too short for that."""
    cdef bint v6 = (mode & MAKE_V6) != 0
    cdef bint udp = (mode & MAKE_UDP) != 0
    cdef uint16_t l4_offset = IPV6_LEN if v6 else IPV4_MIN_LEN
    if size < l4_offset + TCP_MIN_LEN:
        return False
    packet[0] = 0x60 if v6 else 0x45
    packet[IPV4_PROTOCOL if not v6 else IPV6_NEXT_HEADER] = (
        IP_PROTOCOL_UDP if udp else IP_PROTOCOL_TCP)
    header.flags = VNET_NEEDS_CHECKSUM
    header.checksum_start = l4_offset
    header.segment_len = header.segment_len % 1500
    if udp:
        header.gso_type = VNET_GSO_UDP_L4
    else:
        header.gso_type = VNET_GSO_TCPV6 if v6 else VNET_GSO_TCPV4
        packet[l4_offset + TCP_DATA_OFFSET] |= 0x50
    return True


cdef int fuzz_gso(const uint8_t *data, size_t size) noexcept nogil:
    cdef vnet_header header
    cdef gso cut
    cdef uint8_t *packet
    cdef uint8_t *out
    cdef uint8_t mode, protocol
    cdef uint32_t i, length
    cdef size_t payload = 0
    cdef bint right
    if size < 1 + VNET_HEADER_LEN or size > 65535:
        return 0
    mode = data[0]
    memcpy(&header, data + 1, VNET_HEADER_LEN)
    data += 1 + VNET_HEADER_LEN
    size -= 1 + VNET_HEADER_LEN
    packet = exactly(size)
    memcpy(packet, data, size)
    right = mode & PUT_RIGHT and put_right(mode, &header, packet, size)
    if <int>gso_begin(&cut, packet, <uint32_t>size, &header) < 0:
        must(cut.segments >= 1)
        for i in range(cut.segments):
            length = gso_packet_len(&cut, i)
            out = exactly(length)
            gso_write(&cut, i, out)
            if cut.kind == GSO_WHOLE:
                must(length == size)
            else:
                must(length > cut.header_len)
                payload += length - cut.header_len
                if right:
                    protocol = IP_PROTOCOL_UDP if mode & MAKE_UDP else IP_PROTOCOL_TCP
                    must(transport_is_right(out, length, cut.l4_offset, protocol))
            free(out)
        must(cut.kind == GSO_WHOLE or payload == size - cut.header_len)
    free(packet)
    return 0


# -- gro --

cdef uint32_t build(const uint8_t *step, uint8_t *out) noexcept nogil:
    """Write one packet of at most 400 bytes; return its length."""
    cdef bint v6 = step[0] & 1
    cdef bint udp = (step[0] & 2) != 0
    cdef uint32_t l4_offset = IPV6_LEN if v6 else IPV4_MIN_LEN
    cdef uint32_t options = 12 if step[1] & 1 and not udp else 0
    cdef uint32_t header = l4_offset + (<uint32_t>UDP_LEN if udp else TCP_MIN_LEN + options)
    cdef uint32_t length = header + step[3]
    cdef uint8_t protocol = IP_PROTOCOL_UDP if udp else IP_PROTOCOL_TCP
    cdef uint8_t *l4 = out + l4_offset
    cdef uint64_t total
    memset(out, step[3], length)
    memset(out, 0, header)
    if v6:
        out[0] = 0x60
        store_be16(out + IPV6_PAYLOAD_LEN, <uint16_t>(length - IPV6_LEN))
        out[IPV6_NEXT_HEADER] = protocol
        out[IPV6_HOP_LIMIT] = 64 - (step[1] >> 1 & 1)
    else:
        out[0] = 0x45
        store_be16(out + IPV4_TOTAL_LEN, <uint16_t>length)
        store_be16(out + IPV4_ID, step[2])
        store_be16(out + IPV4_FRAGMENT, IPV4_DONT_FRAGMENT if step[1] & 4 else 0)
        out[IPV4_TTL] = 64 - (step[1] >> 1 & 1)
        out[IPV4_PROTOCOL] = protocol
        checksum_store(out + IPV4_CHECKSUM, checksum_add(0, out, IPV4_MIN_LEN))
    store_be16(l4, step[0] >> 2 & 3)
    if udp:
        store_be16(l4 + UDP_LENGTH, <uint16_t>(length - l4_offset))
    else:
        store_be32(l4 + TCP_SEQUENCE, step[2] * <uint32_t>(step[3] & 0xf0))
        l4[TCP_DATA_OFFSET] = <uint8_t>((TCP_MIN_LEN + options) // 4 << 4)
        # ACK, now and then PSH, FIN, ECE or CWR as well.
        l4[TCP_FLAGS] = 0x10 | (step[1] >> 3 & 1) << 3 | (step[0] >> 6 == 3) | (
            (step[1] >> 4 & 1) << 6) | ((step[1] & 0xe0) == 0xe0) << 7
        l4[TCP_WINDOW] = step[1] >> 5 & 1
    if v6:
        total = checksum_pseudo(out + IPV6_SOURCE, 16, protocol, length - l4_offset)
    else:
        total = checksum_pseudo(out + IPV4_SOURCE, 4, protocol, length - l4_offset)
    total = checksum_add(total, l4, length - l4_offset)
    if udp:
        checksum_store_udp(l4 + UDP_CHECKSUM, total)
    else:
        checksum_store(l4 + TCP_CHECKSUM, total)
    if step[0] & 0x30 == 0x30:
        out[length - 1] ^= 0x40  # a bad checksum, or none for an odd half
    return length


cdef void compare(const uint8_t *before, const uint8_t *after, uint32_t length) noexcept nogil:
    """The same packet; with DF its identification means nothing."""
    cdef uint32_t skipped = 0
    if before[0] >> 4 == 4 and load_be16(before + IPV4_FRAGMENT) & IPV4_DONT_FRAGMENT:
        must(memcmp(before, after, IPV4_ID) == 0)
        must(memcmp(before + IPV4_FRAGMENT, after + IPV4_FRAGMENT, 4) == 0)
        skipped = IPV4_SOURCE
    must(memcmp(before + skipped, after + skipped, length - skipped) == 0)


cdef uint32_t check_group(gro_batch *batch, unsigned int i, uint8_t **originals,
                          iovec *vectors, uint8_t *whole) noexcept nogil:
    """Cut a group again; return how many packets it has."""
    cdef gro_group *group = &batch.groups[i]
    cdef vnet_header header
    cdef gso cut
    cdef uint32_t length = 0, k, size
    cdef uint16_t at = group.first
    cdef uint8_t *out
    cdef unsigned int j, n = gro_vectors(batch, i, &header, vectors)
    must(n == group.count + 1u)
    for j in range(1, n):
        must(length + vectors[j].iov_len <= 65535)
        memcpy(whole + length, vectors[j].iov_base, vectors[j].iov_len)
        length += <uint32_t>vectors[j].iov_len
    must(length == group.bytes)
    if group.count == 1:
        must(memcmp(whole, originals[group.first], length) == 0)
        return 1
    must(<int>gso_begin(&cut, whole, length, &header) < 0)
    must(cut.segments == group.count)
    for k in range(cut.segments):
        must(at != GRO_NONE)
        size = gso_packet_len(&cut, k)
        must(size == batch.packets[at].length)
        out = exactly(size)
        gso_write(&cut, k, out)
        compare(originals[at], out, size)
        free(out)
        at = batch.packets[at].next
    must(at == GRO_NONE)
    return group.count


cdef int fuzz_gro(const uint8_t *data, size_t size) noexcept nogil:
    cdef gro_batch *batch = <gro_batch *>exactly(sizeof(gro_batch))
    cdef iovec *vectors = <iovec *>exactly(GRO_VECTORS_MAX * sizeof(iovec))
    cdef uint8_t *whole = exactly(65535)
    cdef uint8_t *originals[256]
    cdef uint8_t packet[400]
    cdef uint32_t length, total = 0
    cdef unsigned int i
    batch.packet_count = 0
    while size >= STEP and batch.packet_count < GRO_PACKETS_MAX:
        if data[0] == 0xff:
            length = min(<uint32_t>data[3], <uint32_t>(size - STEP))
            memcpy(packet, data + STEP, length)
            data += length
            size -= length
        else:
            length = build(data, packet)
        i = batch.packet_count
        originals[i] = exactly(length)
        memcpy(originals[i], packet, length)
        batch.packets[i].data = exactly(length)
        batch.packets[i].length = <uint16_t>length
        memcpy(batch.packets[i].data, packet, length)
        batch.packet_count += 1
        data += STEP
        size -= STEP
    gro_coalesce(batch, True, True)
    for i in range(batch.group_count):
        total += check_group(batch, i, originals, vectors, whole)
    must(total == batch.packet_count)
    for i in range(batch.packet_count):
        free(originals[i])
        free(batch.packets[i].data)
    free(whole)
    free(vectors)
    free(batch)
    return 0


# -- body --

cdef size_t end_of_line(const uint8_t *data, size_t size, size_t at) noexcept nogil:
    """Where the CR LF is that ends a line of printable bytes; `size` where none does."""
    while at + 1 < size:
        if data[at] == 13:
            return at if data[at + 1] == 10 else size
        if (data[at] < 32 and data[at] != 9) or data[at] == 127:
            return size
        at += 1
    return size


cdef size_t naive_end(const uint8_t *data, size_t size) noexcept nogil:
    """Length of a whole chunked body; 0 where it is none, or not whole."""
    cdef size_t at = 0, line, left
    cdef uint32_t digits
    cdef uint8_t c

    while True:
        line = end_of_line(data, size, at)
        if line == size:
            return 0
        left = 0
        digits = 0
        while at < line:
            c = data[at] | 32
            if 48 <= data[at] <= 57:
                left = left * 16 + data[at] - 48
            elif 97 <= c <= 102:
                left = left * 16 + c - 87
            else:
                break
            digits += 1
            at += 1
        if digits == 0 or digits > 15:
            return 0
        if at < line and data[at] != 59 and data[at] != 32 and data[at] != 9:
            return 0
        at = line + 2
        if left == 0:
            break
        if left + 2 > size - at or data[at + left] != 13 or data[at + left + 1] != 10:
            return 0
        at += left + 2
    while True:
        line = end_of_line(data, size, at)
        if line == size:
            return 0
        if line == at:
            return at + 2
        at = line + 2


cdef int fuzz_body(const uint8_t *data, size_t size) noexcept nogil:
    cdef relay_body whole, parts
    cdef bint chunked
    cdef size_t at = 0, step, end
    cdef uint32_t passed, n
    if size < 2 or size > 4096:
        return 0
    chunked = data[0] & 1
    step = 1 + data[1] % 17
    body_init(&whole, chunked, data[0])
    body_init(&parts, chunked, data[0])
    end = data[0]
    data += 2
    size -= 2
    passed = body_take(&whole, data, <uint32_t>size)
    must(passed <= size)
    must(passed == size or whole.kind == BODY_ENDED or whole.kind == BODY_BROKEN)
    while at < size:
        step = min(step, size - at)
        n = body_take(&parts, data + at, <uint32_t>step)
        at += n
        if n < step:
            break
    must(at == passed and parts.kind == whole.kind)
    if chunked:
        end = naive_end(data, size)
        must((whole.kind == BODY_ENDED) == (end != 0))
        must(end == 0 or end == passed)
    else:
        must(passed == min(size, end))
    if whole.kind == BODY_ENDED or whole.kind == BODY_BROKEN:
        must(body_take(&whole, data, <uint32_t>size) == 0)
    return 0


cdef int fuzz_relay(const uint8_t *data, size_t size) noexcept nogil:
    return run_relay(data, size)


ctypedef int (*target_fn)(const uint8_t *data, size_t size) noexcept nogil


def run(str name, bytes data):
    cdef const uint8_t *start = <const uint8_t *>PyBytes_AS_STRING(data)
    cdef size_t size = len(data)
    cdef target_fn target
    cdef int result
    if name == "gso":
        target = fuzz_gso
    elif name == "gro":
        target = fuzz_gro
    elif name == "body":
        target = fuzz_body
    elif name == "relay":
        target = fuzz_relay
    else:
        raise KeyError(name)
    with nogil:
        result = target(start, size)
    return result
