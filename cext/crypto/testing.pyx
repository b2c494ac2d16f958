# SPDX-License-Identifier: Apache-2.0
"""Harnesses that only tests need: variants against each other, and the raw parts of the AEAD.

Every comparison runs natively with the GIL released. Its memory is laid out so
that a byte written or changed anywhere but in a job's `out` is found.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy, memset, strcmp

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize

from cext.crypto.crypto cimport (
    AEAD_TAG_LEN,
    aead_job,
    blake2s_final,
    blake2s_init,
    blake2s_state,
    blake2s_update,
)
from cext.crypto.variant cimport (
    CHACHA_BLOCK,
    aead_variant,
    aead_variants,
    block_group,
    hchacha20,
    poly1305,
    poly1305_blocks,
    poly1305_final,
    poly1305_init,
)


cdef enum:
    JOBS = 128
    KEYS = 5
    GUARD = 80  # bytes kept free around each packet, and the range of alignments


cdef struct Arena:
    # Everything one comparison needs. All three packet areas use the same offsets.
    uint64_t random
    uint8_t keys[KEYS][32]
    aead_job jobs[JOBS]
    aead_job reference[JOBS]
    size_t offset[JOBS]
    uint8_t tampered[JOBS]
    size_t size
    uint8_t *plain
    uint8_t *ours
    uint8_t *theirs
    uint8_t *before


cdef uint64_t draw(Arena *a, uint64_t below) noexcept nogil:
    a.random ^= a.random << 13
    a.random ^= a.random >> 7
    a.random ^= a.random << 17
    return (a.random >> 11) % below


cdef void broken_seal_batch(const aead_variant *v, aead_job *jobs, size_t n) noexcept nogil:
    aead_variants[0].seal_batch(aead_variants[0], jobs, n)
    jobs[n - 1].out[jobs[n - 1].len] ^= 1


# A reference that is wrong in one bit, for the test of the comparison itself.
cdef aead_variant broken
broken.name = "broken"
broken.seal_batch = broken_seal_batch


cdef const aead_variant *find(str name) except NULL:
    cdef bytes wanted = name.encode()
    cdef size_t i = 0

    if name == "broken":
        return &broken
    while aead_variants[i] != NULL:
        if strcmp(aead_variants[i].name, wanted) == 0 and aead_variants[i].available():
            return aead_variants[i]
        i += 1
    raise ValueError(f"this CPU does not run the variant {name}")


cdef void fill(Arena *a, uint8_t *p, size_t size) noexcept nogil:
    cdef size_t i

    for i in range(size):
        p[i] = <uint8_t>draw(a, 256)


cdef bint same(const uint8_t *a, const uint8_t *b, size_t size) noexcept nogil:
    return size == 0 or memcmp(a, b, size) == 0


cdef size_t layout(Arena *a, const uint32_t *lengths, size_t n, bint mixed_keys) noexcept nogil:
    # Place n packets, each at a random alignment; return the bytes in use.
    cdef size_t i, at = GUARD, key = draw(a, KEYS)

    for i in range(n):
        at += draw(a, 64)
        a.offset[i] = at
        at += lengths[i] + AEAD_TAG_LEN + GUARD
        if mixed_keys:
            key = draw(a, KEYS)
        a.jobs[i].key = a.keys[key]
        a.jobs[i].counter = draw(a, 1 << 52) << draw(a, 12)
        a.jobs[i].len = lengths[i]
        a.reference[i] = a.jobs[i]
    return at


cdef int compare(Arena *a, const aead_variant *v, const aead_variant *reference,
                 const uint32_t *lengths, size_t n, bint mixed_keys, bint in_place,
                 unsigned int tamper_of) noexcept nogil:
    # Seal and open one batch with both; 0, or the number of the check that failed.
    cdef size_t used = layout(a, lengths, n, mixed_keys), i, end
    cdef aead_job *j

    for i in range(n):
        j = &a.jobs[i]
        j.data = (a.ours if in_place else a.plain) + a.offset[i]
        j.out = a.ours + a.offset[i]
        a.reference[i].data = a.plain + a.offset[i]
        a.reference[i].out = a.theirs + a.offset[i]
    memcpy(a.ours, a.plain if in_place else a.before, used)
    memcpy(a.theirs, a.plain if in_place else a.before, used)
    v.seal_batch(v, a.jobs, n)
    reference.seal_batch(reference, a.reference, n)
    if not same(a.ours, a.theirs, used):
        return 1

    # Open what was sealed, some of it changed by one bit in text or tag.
    for i in range(n):
        a.tampered[i] = tamper_of != 0 and draw(a, tamper_of) == 0
        if a.tampered[i]:
            end = a.jobs[i].len + AEAD_TAG_LEN
            a.theirs[a.offset[i] + draw(a, end)] ^= <uint8_t>(1 << draw(a, 8))
    memcpy(a.ours, a.theirs if in_place else a.before, used)
    for i in range(n):
        a.jobs[i].data = (a.ours if in_place else a.theirs) + a.offset[i]
        a.jobs[i].ok = not a.jobs[i].ok
    v.open_batch(v, a.jobs, n)
    for i in range(n):
        j = &a.jobs[i]
        if j.ok == a.tampered[i]:
            return 2
        if a.tampered[i]:
            if not same(j.out, (a.theirs if in_place else a.before) + a.offset[i],
                        j.len + AEAD_TAG_LEN):
                return 3
        elif not same(j.out, a.plain + a.offset[i], j.len):
            return 4
        # Put back what may differ, so that one comparison covers all the rest.
        memcpy(j.out, (a.theirs if in_place else a.before) + a.offset[i], j.len)
    if not same(a.ours, a.theirs if in_place else a.before, used):
        return 5
    return 0


cdef class Comparison:
    """One variant against a reference variant; every method raises at the first difference."""

    cdef:
        Arena *arena
        const aead_variant *ours
        const aead_variant *theirs

    def __cinit__(self, str name, str reference, size_t longest, uint64_t seed=1):
        cdef size_t size = JOBS * (longest + AEAD_TAG_LEN + GUARD + 64) + GUARD
        cdef Arena *a = <Arena *>malloc(sizeof(Arena))

        if a == NULL:
            raise MemoryError
        memset(a, 0, sizeof(Arena))
        self.arena = a
        self.ours = find(name)
        self.theirs = find(reference)
        a.size = size
        a.random = (seed + 1) * <uint64_t>0x9E3779B9 << 17 | 1
        a.plain = <uint8_t *>malloc(4 * size)
        if a.plain == NULL:
            raise MemoryError
        a.ours = a.plain + size
        a.theirs = a.ours + size
        a.before = a.theirs + size
        with nogil:
            fill(a, &a.keys[0][0], sizeof(a.keys))
            fill(a, a.plain, size)
            fill(a, a.before, size)

    def __dealloc__(self):
        if self.arena != NULL:
            free(self.arena.plain)
            free(self.arena)

    def lengths(self, uint32_t first, uint32_t last, list batches):
        """Seal and open batches of equal packets of every length from first to last."""
        cdef uint32_t lengths[JOBS]
        cdef uint32_t size = first
        cdef size_t n, i
        cdef object batch
        cdef int failed = 0

        for batch in batches:
            n = batch
            if n > JOBS:
                raise ValueError(f"batches have at most {JOBS} packets")
            with nogil:
                for size in range(first, last + 1):
                    for i in range(n):
                        lengths[i] = size
                    failed = compare(self.arena, self.ours, self.theirs, lengths, n,
                                     size % 3 == 0, size % 2 == 0, 0 if size % 4 else 5)
                    if failed:
                        break
            if failed:
                raise AssertionError(f"check {failed}: {n} packets of {size} bytes")

    def mixed(self, size_t rounds, uint32_t longest):
        """Seal and open random batches: counts, keys, lengths and alignments differ."""
        cdef uint32_t lengths[JOBS]
        cdef size_t n = 0, i, k
        cdef int failed = 0
        cdef Arena *a = self.arena

        with nogil:
            for k in range(rounds):
                n = 1 + draw(a, 64 if k % 8 else JOBS)
                for i in range(n):
                    lengths[i] = <uint32_t>draw(a, 1 + draw(a, longest + 1))
                failed = compare(a, self.ours, self.theirs, lengths, n, k % 3 != 0,
                                 k % 2 == 0, 0 if k % 4 == 0 else 4)
                if failed:
                    break
        if failed:
            raise AssertionError(f"check {failed}: {n} packets of up to {longest} bytes")

    def messages(self, size_t rounds, uint32_t longest):
        """Seal and open single messages with associated data and whole nonces."""
        cdef Arena *a = self.arena
        cdef size_t k, length = 0, ad_len = 0
        cdef int failed = 0
        cdef uint8_t *nonce
        cdef uint8_t *ad

        with nogil:
            for k in range(rounds):
                length = draw(a, longest + 1)
                ad_len = draw(a, 100) if k % 8 else draw(a, longest + 1)
                nonce = a.before + draw(a, 64)
                ad = a.before + draw(a, 64)
                self.theirs.seal(self.theirs, a.theirs, a.plain, length, ad, ad_len, nonce,
                                 a.keys[k % KEYS])
                self.ours.seal(self.ours, a.ours, a.plain, length, ad, ad_len, nonce,
                               a.keys[k % KEYS])
                if not same(a.ours, a.theirs, length + AEAD_TAG_LEN):
                    failed = 1
                    break
                if not self.ours.open(self.ours, a.ours, a.ours, length, ad, ad_len, nonce,
                                      a.keys[k % KEYS]) or not same(a.ours, a.plain, length):
                    failed = 2
                    break
                a.theirs[draw(a, length + AEAD_TAG_LEN)] ^= 0x10
                memcpy(a.ours, a.before, length)
                if self.ours.open(self.ours, a.ours, a.theirs, length, ad, ad_len, nonce,
                                  a.keys[k % KEYS]) or not same(a.ours, a.before, length):
                    failed = 3
                    break
        if failed:
            raise AssertionError(f"check {failed}: {length} bytes, {ad_len} associated")


cdef inline uint8_t *at(bytes value) noexcept:
    return <uint8_t *>PyBytes_AS_STRING(value)


def chacha20(str name, bytes key, tuple nonce, uint32_t counter, bytes data, bint runs=False):
    """XOR the key stream of a variant that uses the common driver over `data`.

    `nonce` is three words. `runs` sends whole runs through the run function and only
    the rest through groups; otherwise all goes through groups.
    """
    cdef const aead_variant *v = find(name)
    cdef bytes out = PyBytes_FromStringAndSize(NULL, len(data))
    cdef uint32_t words[3]
    cdef block_group g
    cdef size_t done = 0, blocks = len(data) // CHACHA_BLOCK, i

    if v.ops == NULL:
        raise ValueError(f"{name} has no key stream of its own")
    for i in range(3):
        words[i] = nonce[i]
    blocks -= blocks % v.ops.run
    if runs and blocks:
        v.ops.xor_run(at(key), words, counter, at(data), at(out), blocks)
        done = blocks * CHACHA_BLOCK
    while done < <size_t>len(data):
        g.n = 0
        g.one_key = True
        while done < <size_t>len(data) and g.n < v.ops.blocks:
            i = g.n
            g.counter[i] = counter + <uint32_t>(done // CHACHA_BLOCK)
            g.nonce[0][i], g.nonce[1][i], g.nonce[2][i] = words[0], words[1], words[2]
            g.key[i] = at(key)
            g.data[i] = at(data) + done
            g.out[i] = at(out) + done
            g.len[i] = <uint32_t>min(<size_t>CHACHA_BLOCK, len(data) - done)
            done += g.len[i]
            g.n += 1
        v.ops.xor_group(&g)
    return out


def poly1305_tag(str name, bytes key, bytes message):
    """Return the Poly1305 tag; long messages through the variant's own loop if it has one."""
    cdef const aead_variant *v = find(name)
    cdef bytes out = PyBytes_FromStringAndSize(NULL, 16)
    cdef poly1305 state
    cdef uint8_t last[16]
    cdef size_t blocks = len(message) // 16, rest = len(message) % 16

    poly1305_init(&state, at(key))
    if v.ops != NULL and blocks >= v.ops.long_blocks:
        v.ops.poly_long(&state, at(message), blocks)
    else:
        poly1305_blocks(&state, at(message), blocks, 1)
    if rest:
        memset(last, 0, sizeof(last))
        memcpy(last, at(message) + 16 * blocks, rest)
        last[rest] = 1
        poly1305_blocks(&state, last, 1, 0)
    poly1305_final(&state, at(out))
    return out


def hchacha(bytes key, bytes nonce):
    """Return the 32-byte subkey of XChaCha20."""
    cdef bytes out = PyBytes_FromStringAndSize(NULL, 32)

    hchacha20(at(out), at(nonce), at(key))
    return out


def blake2s_pieces(list pieces, bytes key, size_t size):
    """Hash the pieces one update each."""
    cdef blake2s_state state
    cdef bytes out = PyBytes_FromStringAndSize(NULL, size)
    cdef bytes piece

    blake2s_init(&state, size, at(key), len(key))
    for piece in pieces:
        blake2s_update(&state, at(piece), len(piece))
    blake2s_final(&state, at(out))
    return out
