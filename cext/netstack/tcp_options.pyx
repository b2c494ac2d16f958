# SPDX-License-Identifier: Apache-2.0
"""TCP headers and options, bounds checked (RFC 9293 section 3.1, 7323, 2018, 5482)."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from cext.base.endian cimport load_be16, load_be32, store_be16, store_be32
from cext.wire.ip cimport (
    TCP_ACKNOWLEDGEMENT, TCP_DATA_OFFSET, TCP_FLAGS, TCP_MIN_LEN, TCP_SEQUENCE, TCP_SYN, TCP_WINDOW,
)
from cext.wire.tcp cimport (
    TCP_HAS_MSS, TCP_HAS_SACK_PERMITTED, TCP_HAS_TIMESTAMP, TCP_HAS_USER_TIMEOUT,
    TCP_HAS_WINDOW_SCALE, TCP_MAX_SACK_BLOCKS, TCP_MAX_WINDOW_SCALE, TCP_OPTION_END, TCP_OPTION_MSS,
    TCP_OPTION_NOP, TCP_OPTION_SACK, TCP_OPTION_SACK_PERMITTED, TCP_OPTION_TIMESTAMP,
    TCP_OPTION_USER_TIMEOUT, TCP_OPTION_WINDOW_SCALE, sequence_range, tcp_segment,
)


cdef void read_sacks(tcp_segment *out, const uint8_t *p, uint32_t length) noexcept nogil:
    cdef uint32_t n = 0

    while length >= 8 and n < TCP_MAX_SACK_BLOCKS:
        out.sack[n].start = load_be32(p)
        out.sack[n].end = load_be32(p + 4)
        if out.sack[n].start != out.sack[n].end:
            n += 1
        p += 8
        length -= 8
    out.sacks = <uint8_t> n


cdef void read_option(tcp_segment *out, uint32_t kind, const uint8_t *p,
                      uint32_t length) noexcept nogil:
    """One option's value of `length` bytes; one that a SYN alone may carry counts only there."""
    cdef bint syn = out.flags & TCP_SYN != 0
    cdef uint32_t value

    if kind == TCP_OPTION_TIMESTAMP and length == 8:
        out.ts_value = load_be32(p)
        out.ts_echo = load_be32(p + 4)
        out.options |= TCP_HAS_TIMESTAMP
    elif kind == TCP_OPTION_SACK and not syn:
        read_sacks(out, p, length)
    elif kind == TCP_OPTION_MSS and length == 2 and syn:
        out.mss = load_be16(p)
        out.options |= TCP_HAS_MSS
    elif kind == TCP_OPTION_WINDOW_SCALE and length == 1 and syn:
        out.window_scale = p[0] if p[0] < TCP_MAX_WINDOW_SCALE else TCP_MAX_WINDOW_SCALE
        out.options |= TCP_HAS_WINDOW_SCALE
    elif kind == TCP_OPTION_SACK_PERMITTED and length == 0 and syn:
        out.options |= TCP_HAS_SACK_PERMITTED
    elif kind == TCP_OPTION_USER_TIMEOUT and length == 2:
        value = load_be16(p)
        out.user_timeout_s = (value & 0x7fff) * 60 if value & 0x8000 else value
        out.options |= TCP_HAS_USER_TIMEOUT


cdef bint tcp_parse(tcp_segment *out, const uint8_t *p, uint32_t length) noexcept nogil:
    cdef uint32_t header, at = TCP_MIN_LEN, kind, size

    if length < TCP_MIN_LEN:
        return False
    header = <uint32_t> (p[<int> TCP_DATA_OFFSET] >> 4) * 4
    if header < TCP_MIN_LEN or header > length:
        return False
    out.source_port = load_be16(p)
    out.destination_port = load_be16(p + 2)
    out.seq = load_be32(p + TCP_SEQUENCE)
    out.ack = load_be32(p + TCP_ACKNOWLEDGEMENT)
    out.flags = p[<int> TCP_FLAGS]
    out.window = load_be16(p + TCP_WINDOW)
    out.options = 0
    out.sacks = 0
    out.mss = 0
    out.window_scale = 0
    out.ts_value = 0
    out.ts_echo = 0
    out.user_timeout_s = 0
    out.payload = p + header
    out.payload_len = length - header
    # What nearly every segment has (RFC 7323 appendix A).
    if header == TCP_MIN_LEN + 12 and load_be32(p + TCP_MIN_LEN) == 0x0101080au:
        out.ts_value = load_be32(p + TCP_MIN_LEN + 4)
        out.ts_echo = load_be32(p + TCP_MIN_LEN + 8)
        out.options = TCP_HAS_TIMESTAMP
        return True
    while at < header:
        kind = p[at]
        if kind == TCP_OPTION_END:
            break
        if kind == TCP_OPTION_NOP:
            at += 1
            continue
        if at + 2 > header:
            break
        size = p[at + 1]
        if size < 2 or at + size > header:
            break
        read_option(out, kind, p + at + 2, size - 2)
        at += size
    return True


cdef uint32_t tcp_write_timestamp(uint8_t *out, uint32_t ts_value,
                                  uint32_t ts_echo) noexcept nogil:
    store_be32(out, 0x0101080au)
    store_be32(out + 4, ts_value)
    store_be32(out + 8, ts_echo)
    return 12


cdef uint32_t tcp_write_syn_options(uint8_t *out, uint16_t mss, bint sack, bint scale,
                                    uint8_t window_scale, bint timestamps, uint32_t ts_value,
                                    uint32_t ts_echo, uint16_t user_timeout_s) noexcept nogil:
    cdef uint32_t n = 4

    store_be16(out, <uint16_t> (TCP_OPTION_MSS << 8 | 4))
    store_be16(out + 2, mss)
    if sack:
        store_be32(out + n, 0x01010402u)
        n += 4
    if timestamps:
        n += tcp_write_timestamp(out + n, ts_value, ts_echo)
    if scale:
        store_be32(out + n, 0x01030300u | window_scale)
        n += 4
    if user_timeout_s:
        store_be16(out + n, <uint16_t> (TCP_OPTION_USER_TIMEOUT << 8 | 4))
        store_be16(out + n + 2, user_timeout_s & 0x7fff)
        n += 4
    return n


cdef uint32_t tcp_write_sacks(uint8_t *out, const sequence_range *ranges,
                              uint32_t n) noexcept nogil:
    cdef uint32_t i

    if n == 0:
        return 0
    store_be32(out, 0x01010500u | (2 + 8 * n))
    for i in range(n):
        store_be32(out + 4 + 8 * i, ranges[i].start)
        store_be32(out + 8 + 8 * i, ranges[i].end)
    return 4 + 8 * n
