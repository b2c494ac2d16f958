# SPDX-License-Identifier: Apache-2.0
from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t

from cext.wire.endpoint cimport endpoint
from cext.wireguard.state cimport ratelimiter


# 0, or -1 without memory. `hash_key` is set by the caller.
cdef int ratelimiter_init(ratelimiter *limiter, uint32_t entries) noexcept nogil
cdef void ratelimiter_release(ratelimiter *limiter) noexcept nogil
cdef bint ratelimiter_allow(ratelimiter *limiter, uint64_t now_ns,
                            const endpoint *source) noexcept nogil
cdef size_t ratelimiter_bytes(const ratelimiter *limiter) noexcept nogil
