# SPDX-License-Identifier: Apache-2.0
# TAI64N, the timestamps of initiations: 8 bytes of seconds, 4 of nanoseconds, big endian.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cext.base.endian cimport store_be32, store_be64
from cext.wireguard.constants cimport NS_PER_SECOND, TIMESTAMP_STEP_NS

# 2^62, plus the 10 seconds by which TAI led at the epoch of Unix.
cdef enum:
    TAI64_EPOCH_HIGH = 0x40000000
    TAI64_EPOCH_LOW = 0x0000000a


# Clear the low 24 bits of the nanoseconds: what lies below would tell our clock's drift.
cdef inline uint64_t tai64n_whiten(uint64_t unix_ns) noexcept nogil:
    return unix_ns - ((unix_ns % NS_PER_SECOND) & (TIMESTAMP_STEP_NS - 1))


cdef inline void tai64n_encode(uint8_t *out, uint64_t unix_ns) noexcept nogil:
    cdef uint64_t epoch = (<uint64_t>TAI64_EPOCH_HIGH << 32) | TAI64_EPOCH_LOW

    store_be64(out, epoch + unix_ns // NS_PER_SECOND)
    store_be32(out + 8, <uint32_t>(unix_ns % NS_PER_SECOND))
