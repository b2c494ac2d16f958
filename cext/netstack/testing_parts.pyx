# SPDX-License-Identifier: Apache-2.0
"""Python's faces of the netstack's single parts: timer wheel, SipHash, cube root, TCP header."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cext.netstack.layout cimport siphash
from cext.netstack.tcp_congestion cimport cube_root
from cext.netstack.tcp_options cimport tcp_parse
from cext.netstack.wheel cimport (
    wheel_arm, wheel_cancel, wheel_create, wheel_destroy, wheel_next, wheel_pop,
)
from cext.wire.tcp cimport seq_geq, seq_gt, seq_leq, seq_lt, tcp_segment


cdef class Wheel:
    """The timer wheel alone."""

    def __cinit__(self, timers, now_ms=0):
        if wheel_create(&self.w, timers, now_ms) < 0:
            raise MemoryError

    def __dealloc__(self):
        wheel_destroy(&self.w)

    def arm(self, index, due_ms):
        wheel_arm(&self.w, index, due_ms)

    def cancel(self, index):
        wheel_cancel(&self.w, index)

    def pop(self, now_ms):
        index = wheel_pop(&self.w, now_ms)
        return None if index == 0xffffffff else index

    def next(self):
        at = wheel_next(&self.w)
        return None if at == 0xffffffffffffffff else at

    def armed(self):
        return self.w.armed


def siphash24(bytes key, bytes data):
    cdef uint64_t words[2]

    words[0] = int.from_bytes(key[:8], "little")
    words[1] = int.from_bytes(key[8:], "little")
    return siphash(words, <const char *> data, len(data), 2, 4)


def cube(uint64_t x):
    return cube_root(x)


def compare(uint32_t a, uint32_t b):
    """Which of <, <=, >, >= hold for two sequence numbers."""
    return (bool(seq_lt(a, b)), bool(seq_leq(a, b)), bool(seq_gt(a, b)), bool(seq_geq(a, b)))


def parse_tcp(bytes data):
    """The fields of a TCP header as a dict, or None when it is none."""
    cdef tcp_segment seg

    if not tcp_parse(&seg, <const uint8_t *> <const char *> data, <uint32_t> len(data)):
        return None
    return {
        "source": seg.source_port, "destination": seg.destination_port, "flags": seg.flags,
        "seq": seg.seq, "ack": seg.ack, "window": seg.window, "options": seg.options,
        "mss": seg.mss, "window_scale": seg.window_scale, "ts_value": seg.ts_value,
        "ts_echo": seg.ts_echo, "user_timeout_s": seg.user_timeout_s,
        "sacks": [(seg.sack[i].start, seg.sack[i].end) for i in range(seg.sacks)],
        "payload": bytes(seg.payload[:seg.payload_len]),
    }
