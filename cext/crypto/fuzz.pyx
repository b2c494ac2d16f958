# SPDX-License-Identifier: Apache-2.0
"""Fuzz targets: all AEAD variants agree on any batch; BLAKE2s does not care about pieces.

aead: byte 0 is the number of jobs, byte 1 holds options, then three bytes a job (length,
key and place, damage); what follows is plaintext, used cyclically.
"""

from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport abort
from libc.string cimport memcmp, memcpy, memset

from cpython.bytes cimport PyBytes_AS_STRING

from cext.crypto.crypto cimport (
    AEAD_TAG_LEN,
    aead_job,
    blake2s,
    blake2s_final,
    blake2s_init,
    blake2s_state,
    blake2s_update,
)
from cext.crypto.variant cimport aead_variant, aead_variants


cdef enum:
    JOBS = 24
    STRIDE = 1100
    AREA = JOBS * STRIDE


cdef void seal_all(const aead_variant *v, const uint8_t *data, size_t n, uint8_t *keys,
                   uint8_t *area, bint opening, const uint8_t *verdicts) noexcept nogil:
    # Seal or open n jobs in place; opening must give exactly the verdicts.
    cdef aead_job jobs[JOBS]
    cdef const uint8_t *d
    cdef size_t i

    for i in range(n):
        d = data + 2 + 3 * i
        jobs[i].key = keys + 32 * (d[1] & 3)
        jobs[i].counter = <uint64_t>d[1] << (d[1] & 63) ^ i
        jobs[i].out = area + i * STRIDE + (d[1] >> 2 & 31)
        jobs[i].data = jobs[i].out
        jobs[i].len = d[0] * (1 + (data[1] & 3))
        jobs[i].ok = verdicts[i] == 0
    if not opening:
        v.seal_batch(v, jobs, n)
        return
    v.open_batch(v, jobs, n)
    for i in range(n):
        if jobs[i].ok != (verdicts[i] != 0):
            abort()


cdef int fuzz_aead(const uint8_t *data, size_t size) noexcept nogil:
    cdef uint8_t plain[AREA]
    cdef uint8_t sealed[AREA]
    cdef uint8_t area[AREA]
    cdef uint8_t damaged[AREA]
    cdef uint8_t keys[4 * 32]
    cdef uint8_t verdicts[JOBS]
    cdef size_t n, i, k, length, begin, rest, used
    cdef const uint8_t *d

    if size < 2:
        return 0
    n = data[0] % (JOBS + 1)
    if size < 2 + 3 * n:
        return 0
    rest = size - 2 - 3 * n
    # Only what the jobs use: these copies were most of a run.
    used = n * STRIDE
    if rest == 0:
        memset(plain, 0, used)
    else:
        length = min(rest, used)
        memcpy(plain, data + 2 + 3 * n, length)
        while length < used:
            memcpy(plain + length, plain, min(length, used - length))
            length += min(length, used - length)
    for i in range(<size_t>128):
        keys[i] = <uint8_t>(i * data[1] + i)

    i = 0
    while aead_variants[i] != NULL:
        if aead_variants[i].available():
            memcpy(area, plain, used)
            memset(verdicts, 1, sizeof(verdicts))
            seal_all(aead_variants[i], data, n, keys, area, False, verdicts)
            if i == 0:
                memcpy(sealed, area, used)
            elif memcmp(sealed, area, used) != 0:
                abort()
            for k in range(n):
                d = data + 2 + 3 * k
                length = d[0] * (1 + (data[1] & 3)) + AEAD_TAG_LEN
                begin = k * STRIDE + (d[1] >> 2 & 31)
                verdicts[k] = d[2] < 128
                if not verdicts[k]:
                    area[begin + d[2] % length] ^= <uint8_t>(1 << (d[2] & 7))
            memcpy(damaged, area, used)
            seal_all(aead_variants[i], data, n, keys, area, True, verdicts)
            for k in range(n):
                d = data + 2 + 3 * k
                length = d[0] * (1 + (data[1] & 3))
                begin = k * STRIDE + (d[1] >> 2 & 31)
                if verdicts[k]:
                    if memcmp(area + begin, plain + begin, length) != 0:
                        abort()
                    memcpy(area + begin, damaged + begin, length)
            if memcmp(area, damaged, used) != 0:
                abort()
        i += 1
    return 0


cdef int fuzz_blake2s(const uint8_t *data, size_t size) noexcept nogil:
    cdef blake2s_state state
    cdef uint8_t whole[32]
    cdef uint8_t pieces[32]
    cdef size_t out_len, key_len, done = 0, piece

    if size < 35:
        return 0
    out_len = 1 + data[0] % 32
    key_len = data[1] % 33
    blake2s(whole, out_len, data + 35, size - 35, data + 2, key_len)
    blake2s_init(&state, out_len, data + 2, key_len)
    while done < size - 35:
        # The message cuts itself: a byte tells how long the piece after it is.
        piece = min(<size_t>data[35 + done], size - 35 - done)
        if piece == 0:
            blake2s_update(&state, data, 0)
            piece = 1
        blake2s_update(&state, data + 35 + done, piece)
        done += piece
    blake2s_final(&state, pieces)
    if memcmp(whole, pieces, out_len) != 0:
        abort()
    return 0


def run(str name, bytes data, /):
    cdef const uint8_t *p = <const uint8_t *>PyBytes_AS_STRING(data)
    cdef size_t size = len(data)

    if name == "aead":
        return fuzz_aead(p, size)
    if name == "blake2s":
        return fuzz_blake2s(p, size)
    raise ValueError(f"no fuzz target {name}, choose from aead, blake2s")
