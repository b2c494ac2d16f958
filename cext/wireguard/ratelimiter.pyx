# SPDX-License-Identifier: Apache-2.0
"""The per-source rate limiter; its theory is in ratelimiter.h."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from cext.base.endian cimport load_be32, load_be64, load_le64
from cext.crypto.crypto cimport blake2s
from cext.wire.endpoint cimport WT_AF_INET, endpoint
from cext.wireguard.constants cimport NS_PER_SECOND, PACKETS_BURSTABLE, PACKETS_PER_SECOND
from cext.wireguard.state cimport RATELIMITER_WAYS, ratelimiter, ratelimiter_entry


cdef int ratelimiter_init(ratelimiter *limiter, uint32_t entries) noexcept nogil:
    cdef uint32_t sets = 1

    while sets * RATELIMITER_WAYS < entries:
        sets *= 2
    limiter.set_mask = sets - 1
    limiter.entries = <ratelimiter_entry *>calloc(
        <size_t>sets * RATELIMITER_WAYS, sizeof(ratelimiter_entry))
    return 0 if limiter.entries != NULL else -1


cdef void ratelimiter_release(ratelimiter *limiter) noexcept nogil:
    free(limiter.entries)
    limiter.entries = NULL


cdef size_t ratelimiter_bytes(const ratelimiter *limiter) noexcept nogil:
    return (<size_t>limiter.set_mask + 1) * RATELIMITER_WAYS * sizeof(ratelimiter_entry)


cdef bint ratelimiter_allow(ratelimiter *limiter, uint64_t now_ns,
                            const endpoint *source) noexcept nogil:
    cdef uint64_t cost_ns = NS_PER_SECOND // PACKETS_PER_SECOND
    cdef uint64_t key
    cdef uint8_t digest[8]
    cdef ratelimiter_entry *entry
    cdef ratelimiter_entry *chosen = NULL
    cdef int way

    if source.family == WT_AF_INET:
        key = <uint64_t>load_be32(source.address) << 32
    else:
        key = load_be64(source.address)
    blake2s(digest, sizeof(digest), <const uint8_t *>&key, sizeof(key), limiter.hash_key,
            sizeof(limiter.hash_key))
    entry = limiter.entries + RATELIMITER_WAYS * (load_le64(digest) & limiter.set_mask)
    for way in range(RATELIMITER_WAYS):
        if entry[way].source == key and entry[way].family == source.family:
            chosen = &entry[way]
            break
        if entry[way].full_at_ns <= now_ns:
            chosen = &entry[way]
    if chosen == NULL:
        return False
    if chosen.source != key or chosen.family != source.family:
        chosen.source = key
        chosen.family = source.family
        chosen.full_at_ns = now_ns
    if chosen.full_at_ns < now_ns:
        chosen.full_at_ns = now_ns
    if chosen.full_at_ns + cost_ns > now_ns + PACKETS_BURSTABLE * cost_ns:
        return False
    chosen.full_at_ns += cost_ns
    return True
