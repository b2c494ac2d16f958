# SPDX-License-Identifier: Apache-2.0
"""ICMP and ICMPv6: echo, errors that we send, errors about what we sent.

An error that arrives is believed only when the packet it quotes belongs to a
flow of ours; for TCP the quoted sequence number must lie in what is in flight
(RFC 5927), which is for the TCP room to check. ICMP never resets an
established connection (RFC 5461: soft errors).
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from cext.base.drops cimport drop
from cext.base.endian cimport load_be16, load_be32, store_be16, store_be32
from cext.netstack.ip cimport (
    answer_push, answer_take, ip_addresses, ip_header, ip_our_address, ip_pseudo, ip_send,
)
from cext.netstack.layout cimport (
    NS_NIL, NS_REFUSE_HOST, NS_REFUSE_NETWORK, NS_REFUSE_PORT, NS_REFUSE_PROHIBITED,
    NS_REFUSE_SILENT, address_from_v4, address_is_v4, block_data, flow_tuple, icmp_error, netstack,
    slab_block,
)
from cext.netstack.slab cimport slab_put
from cext.wire.checksum cimport checksum_add, checksum_store, checksum_valid
from cext.wire.ip cimport (
    ICMP_CHECKSUM, ICMP_LEN, IPV4_DESTINATION, IPV4_FRAGMENT, IPV4_FRAGMENT_OFFSET, IPV4_MIN_LEN,
    IPV4_PROTOCOL, IPV4_SOURCE, IPV6_DESTINATION, IPV6_LEN, IPV6_NEXT_HEADER, IPV6_SOURCE,
    IP_PROTOCOL_ICMP, IP_PROTOCOL_ICMPV6, IP_PROTOCOL_TCP, IP_PROTOCOL_UDP, TCP_MIN_LEN,
    TCP_SEQUENCE, UDP_LEN, ip_icmp_time_exceeded, ip_icmp_unreachable, ip_info,
)


cdef extern from "base/drops.h" nogil:
    enum:
        DROP_NS_BAD_CHECKSUM
        DROP_NS_BAD_HEADER
        DROP_NS_ICMP_IGNORED
        DROP_NS_RATE_LIMITED

cdef enum:
    TYPE_ECHO_REPLY = 0
    TYPE_UNREACHABLE = 3
    TYPE_ECHO_REQUEST = 8
    TYPE_TIME_EXCEEDED = 11
    CODE_FRAGMENTATION_NEEDED = 4
    V6_UNREACHABLE = 1
    V6_TOO_BIG = 2
    V6_TIME_EXCEEDED = 3
    V6_ECHO_REQUEST = 128
    V6_ECHO_REPLY = 129


cdef bint error_allowed(netstack *s) noexcept nogil:
    cdef uint32_t second = s.now_ms >> 10

    if second != s.error_second:
        s.error_second = second
        s.errors_sent = 0
    if s.errors_sent >= s.limits.icmp_errors_s:
        drop(&s.drops, DROP_NS_RATE_LIMITED)
        return False
    s.errors_sent += 1
    return True


cdef uint32_t refusal_of_v4(uint32_t type, uint32_t code) noexcept nogil:
    if type != TYPE_UNREACHABLE:
        return NS_REFUSE_SILENT
    if code == 0 or code == 6:
        return NS_REFUSE_NETWORK
    if code == 2 or code == 3:
        return NS_REFUSE_PORT
    if code == 9 or code == 10 or code == 13:
        return NS_REFUSE_PROHIBITED
    if code == CODE_FRAGMENTATION_NEEDED:
        return NS_REFUSE_SILENT
    return NS_REFUSE_HOST


cdef uint32_t refusal_of_v6(uint32_t type, uint32_t code) noexcept nogil:
    if type != V6_UNREACHABLE:
        return NS_REFUSE_SILENT
    if code == 0:
        return NS_REFUSE_NETWORK
    if code == 1 or code == 5 or code == 6:
        return NS_REFUSE_PROHIBITED
    if code == 4:
        return NS_REFUSE_PORT
    return NS_REFUSE_HOST


cdef bint parse_quoted(const uint8_t *p, uint32_t length, bint v4,
                       icmp_error *error) noexcept nogil:
    """Read the packet that an error quotes; it is ours, so `local` is its source."""
    cdef uint32_t header

    memset(error, 0, sizeof(icmp_error))
    if v4:
        if length < IPV4_MIN_LEN or p[0] >> 4 != 4:
            return False
        header = (p[0] & 15) * 4
        if header < IPV4_MIN_LEN or load_be16(p + IPV4_FRAGMENT) & IPV4_FRAGMENT_OFFSET:
            return False
        error.protocol = p[<int> IPV4_PROTOCOL]
        address_from_v4(error.tuple.local, p + IPV4_SOURCE)
        address_from_v4(error.tuple.remote, p + IPV4_DESTINATION)
    else:
        if length < IPV6_LEN or p[0] >> 4 != 6:
            return False
        header = IPV6_LEN
        error.protocol = p[<int> IPV6_NEXT_HEADER]
        memcpy(error.tuple.local, p + IPV6_SOURCE, 16)
        memcpy(error.tuple.remote, p + IPV6_DESTINATION, 16)
    if length < header + 8:
        return False
    p += header
    if error.protocol == IP_PROTOCOL_TCP or error.protocol == IP_PROTOCOL_UDP:
        error.tuple.local_port = load_be16(p)
        error.tuple.remote_port = load_be16(p + 2)
        error.seq = load_be32(p + TCP_SEQUENCE)
        return True
    if error.protocol == IP_PROTOCOL_ICMP or error.protocol == IP_PROTOCOL_ICMPV6:
        # Only an echo request of ours; its identifier names the flow.
        if p[0] != (TYPE_ECHO_REQUEST if v4 else V6_ECHO_REQUEST):
            return False
        error.tuple.remote_port = load_be16(p + 4)
        return True
    return False


cdef icmp_kind icmp_parse(netstack *s, const uint8_t *packet, const ip_info *info,
                          icmp_error *error) noexcept nogil:
    cdef const uint8_t *p = packet + info.l4_offset
    cdef uint32_t length = info.total_len - info.l4_offset
    cdef uint8_t source[16]
    cdef uint8_t destination[16]
    cdef uint64_t total = 0
    cdef uint32_t type, code

    s.statistics.icmp_in += 1
    if length < ICMP_LEN:
        drop(&s.drops, DROP_NS_BAD_HEADER)
        return ICMP_IGNORED
    if info.version == 6:
        ip_addresses(packet, info, source, destination)
        total = ip_pseudo(source, destination, IP_PROTOCOL_ICMPV6, length)
    if not checksum_valid(checksum_add(total, p, length)):
        drop(&s.drops, DROP_NS_BAD_CHECKSUM)
        return ICMP_IGNORED
    type = p[0]
    code = p[1]
    if info.version == 4:
        if type == TYPE_ECHO_REQUEST:
            return ICMP_ECHO_REQUEST
        if type == TYPE_ECHO_REPLY:
            return ICMP_ECHO_REPLY
        if (type == TYPE_UNREACHABLE or type == TYPE_TIME_EXCEEDED) and \
                parse_quoted(p + ICMP_LEN, length - ICMP_LEN, True, error):
            error.refusal = <uint8_t> refusal_of_v4(type, code)
            if type == TYPE_UNREACHABLE and code == CODE_FRAGMENTATION_NEEDED:
                # A router older than RFC 1191 says nothing: then the least there is.
                error.mtu = load_be16(p + 6)
                if error.mtu == 0:
                    error.mtu = 576
            return ICMP_ERROR
    else:
        if type == V6_ECHO_REQUEST:
            return ICMP_ECHO_REQUEST
        if type == V6_ECHO_REPLY:
            return ICMP_ECHO_REPLY
        if (type == V6_UNREACHABLE or type == V6_TOO_BIG or type == V6_TIME_EXCEEDED) and \
                parse_quoted(p + ICMP_LEN, length - ICMP_LEN, False, error):
            error.refusal = <uint8_t> refusal_of_v6(type, code)
            if type == V6_TOO_BIG:
                error.mtu = load_be32(p + 4)
            return ICMP_ERROR
    drop(&s.drops, DROP_NS_ICMP_IGNORED)
    return ICMP_IGNORED


cdef void push_error(netstack *s, uint32_t index, size_t length, uint32_t peer) noexcept nogil:
    if length == 0:
        slab_put(&s.slab, index)
        return
    slab_block(&s.slab, index).len = <uint16_t> length
    s.statistics.icmp_out += 1
    answer_push(s, index, NS_NIL, peer)


cdef const uint8_t *error_source(const netstack *s, const uint8_t *packet) noexcept nogil:
    """Our address of the packet's family, 4 or 16 bytes; NULL when we have none."""
    cdef uint8_t like[16]
    cdef const uint8_t *ours

    memset(like, 0, 16)
    if packet[0] >> 4 == 4:
        address_from_v4(like, packet + IPV4_SOURCE)
        ours = ip_our_address(s, like)
        return ours + 12 if ours != NULL else NULL
    like[0] = 0x20
    return ip_our_address(s, like)


cdef void icmp_refuse(netstack *s, const uint8_t *packet, uint32_t length, uint32_t refusal,
                      uint32_t peer) noexcept nogil:
    cdef uint32_t index
    cdef uint8_t code_v4, code_v6
    cdef const uint8_t *source = error_source(s, packet)

    if refusal == NS_REFUSE_NETWORK:
        code_v4, code_v6 = 0, 0
    elif refusal == NS_REFUSE_HOST:
        code_v4, code_v6 = 1, 3
    elif refusal == NS_REFUSE_PORT:
        # It comes from the host that has no such port.
        code_v4, code_v6 = 3, 4
        source = NULL
    elif refusal == NS_REFUSE_PROHIBITED:
        code_v4, code_v6 = 13, 1
    else:
        return
    if not error_allowed(s):
        return
    index = answer_take(s)
    if index == NS_NIL:
        return
    push_error(s, index, ip_icmp_unreachable(
        block_data(slab_block(&s.slab, index)), packet, length, source, code_v4, code_v6), peer)


cdef void icmp_time_exceeded(netstack *s, const uint8_t *packet, uint32_t length,
                             uint32_t peer) noexcept nogil:
    cdef uint32_t index

    if not error_allowed(s):
        return
    index = answer_take(s)
    if index == NS_NIL:
        return
    push_error(s, index, ip_icmp_time_exceeded(
        block_data(slab_block(&s.slab, index)), packet, length, error_source(s, packet)), peer)


cdef void icmp_refuse_tuple(netstack *s, const flow_tuple *tuple, uint32_t protocol,
                            uint32_t seq, uint32_t refusal, uint32_t peer) noexcept nogil:
    cdef uint8_t quoted[60 + 20]
    cdef uint8_t *upper = quoted + 60
    cdef uint32_t length = TCP_MIN_LEN if protocol == IP_PROTOCOL_TCP else UDP_LEN
    cdef uint8_t *p

    memset(quoted, 0, sizeof(quoted))
    if protocol == IP_PROTOCOL_TCP or protocol == IP_PROTOCOL_UDP:
        store_be16(upper, tuple.remote_port)
        store_be16(upper + 2, tuple.local_port)
        if protocol == IP_PROTOCOL_TCP:
            store_be32(upper + TCP_SEQUENCE, seq)
            upper[12] = 5 << 4
            upper[13] = 2
        else:
            store_be16(upper + 4, UDP_LEN)
    else:
        upper[0] = TYPE_ECHO_REQUEST if protocol == IP_PROTOCOL_ICMP else V6_ECHO_REQUEST
        store_be16(upper + 4, tuple.remote_port)
        store_be16(upper + 6, <uint16_t> seq)
    p = ip_header(upper, tuple.remote, tuple.local, protocol, length, 0)
    icmp_refuse(s, p, <uint32_t> (upper - p) + length, refusal, peer)


cdef bint icmp_send_echo(netstack *s, const flow_tuple *tuple, bint request, uint16_t sequence,
                         const uint8_t *data, uint32_t length, uint32_t ttl, uint32_t owner,
                         uint32_t peer) noexcept nogil:
    cdef bint v4 = address_is_v4(tuple.local)
    cdef uint32_t protocol = IP_PROTOCOL_ICMP if v4 else IP_PROTOCOL_ICMPV6
    cdef uint8_t head[8]
    cdef uint64_t total = 0

    store_be32(head, 0)
    if v4:
        head[0] = TYPE_ECHO_REQUEST if request else TYPE_ECHO_REPLY
    else:
        head[0] = V6_ECHO_REQUEST if request else V6_ECHO_REPLY
        total = ip_pseudo(tuple.local, tuple.remote, protocol, length + ICMP_LEN)
    store_be16(head + 4, tuple.remote_port)
    store_be16(head + 6, sequence)
    checksum_store(head + ICMP_CHECKSUM, checksum_add(checksum_add(total, head, 8), data, length))
    s.statistics.icmp_out += 1
    return ip_send(s, tuple.local, tuple.remote, protocol, head, data, length, ttl, owner, peer)
