# SPDX-License-Identifier: Apache-2.0
# TCP headers and options: reading and writing.
from libc.stdint cimport uint8_t, uint16_t, uint32_t

from cext.wire.tcp cimport sequence_range, tcp_segment


# Take the `length` bytes of a TCP segment apart; False when it is none. The checksum is
# the caller's. Options that make no sense are passed over, never a reason to refuse.
cdef bint tcp_parse(tcp_segment *out, const uint8_t *p, uint32_t length) noexcept nogil
# Options of a SYN; `window_scale` and `timestamp` only when the peer may have them.
# The number of bytes written, a multiple of four.
cdef uint32_t tcp_write_syn_options(uint8_t *out, uint16_t mss, bint sack, bint scale,
                                    uint8_t window_scale, bint timestamps, uint32_t ts_value,
                                    uint32_t ts_echo, uint16_t user_timeout_s) noexcept nogil
cdef uint32_t tcp_write_timestamp(uint8_t *out, uint32_t ts_value,
                                  uint32_t ts_echo) noexcept nogil
cdef uint32_t tcp_write_sacks(uint8_t *out, const sequence_range *ranges,
                              uint32_t n) noexcept nogil
