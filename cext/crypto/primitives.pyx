# SPDX-License-Identifier: Apache-2.0
"""Python's face of cext/crypto: keys, checks and tests; packets never come here."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize

from cext.base.secret cimport secret_erase
from cext.crypto.crypto cimport (
    AEAD_BATCH_MAX,
    AEAD_KEY_LEN,
    AEAD_TAG_LEN,
    BLAKE2S_LEN,
    X25519_LEN,
    XAEAD_NONCE_LEN,
    aead_job,
    aead_open_batch,
    aead_seal_batch,
    crypto_backend,
    crypto_init,
    crypto_select,
    crypto_variant,
    selftest_library,
)
from cext.crypto cimport crypto as c

if crypto_init() != 0:
    raise RuntimeError("a known answer of the cryptography failed; nothing may start")


cdef int check(str what, bytes value, Py_ssize_t size) except -1:
    if len(value) != size:
        raise ValueError(f"{what} has {len(value)} bytes, it needs {size}")
    return 0


cdef inline uint8_t *at(bytes value) noexcept:
    return <uint8_t *>PyBytes_AS_STRING(value)


cdef bytes room(Py_ssize_t size):
    return PyBytes_FromStringAndSize(NULL, size)


def aead_seal(bytes key, bytes nonce, bytes plaintext, bytes associated=b"", /):
    cdef bytes out = room(len(plaintext) + AEAD_TAG_LEN)

    check("key", key, AEAD_KEY_LEN)
    check("nonce", nonce, 12)
    c.aead_seal(at(out), at(plaintext), len(plaintext), at(associated), len(associated),
                at(nonce), at(key))
    return out


def aead_open(bytes key, bytes nonce, bytes sealed, bytes associated=b"", /):
    cdef bytes out = room(max(0, len(sealed) - AEAD_TAG_LEN))

    check("key", key, AEAD_KEY_LEN)
    check("nonce", nonce, 12)
    if c.aead_open(at(out), at(sealed), len(sealed), at(associated), len(associated),
                   at(nonce), at(key)):
        return out
    return None


def xaead_seal(bytes key, bytes nonce, bytes plaintext, bytes associated=b"", /):
    cdef bytes out = room(len(plaintext) + AEAD_TAG_LEN)

    check("key", key, AEAD_KEY_LEN)
    check("nonce", nonce, XAEAD_NONCE_LEN)
    c.xaead_seal(at(out), at(plaintext), len(plaintext), at(associated), len(associated),
                 at(nonce), at(key))
    return out


def xaead_open(bytes key, bytes nonce, bytes sealed, bytes associated=b"", /):
    cdef bytes out = room(max(0, len(sealed) - AEAD_TAG_LEN))

    check("key", key, AEAD_KEY_LEN)
    check("nonce", nonce, XAEAD_NONCE_LEN)
    if c.xaead_open(at(out), at(sealed), len(sealed), at(associated), len(associated),
                    at(nonce), at(key)):
        return out
    return None


cdef list run_batch(object jobs, bint seal):
    cdef size_t n = len(jobs), i
    cdef aead_job *list_ = NULL
    cdef list out = []
    cdef object job
    cdef bytes key, data
    cdef uint64_t counter

    if n > AEAD_BATCH_MAX:
        raise ValueError(f"a batch has at most {AEAD_BATCH_MAX} packets, this one {n}")
    for job in jobs:
        key, counter, data = job
        check("key", key, AEAD_KEY_LEN)
        if not seal and len(data) < AEAD_TAG_LEN:
            raise ValueError(f"a sealed packet has at least {AEAD_TAG_LEN} bytes")
        out.append(room(len(data) + (AEAD_TAG_LEN if seal else -AEAD_TAG_LEN)))
    list_ = <aead_job *>calloc(n + 1, sizeof(aead_job))
    if list_ == NULL:
        raise MemoryError
    try:
        for i in range(n):
            key, counter, data = jobs[i]
            list_[i].key = at(key)
            list_[i].counter = counter
            list_[i].data = at(data)
            list_[i].out = at(<bytes>out[i])
            list_[i].len = <uint32_t>(len(data) - (0 if seal else AEAD_TAG_LEN))
        if seal:
            aead_seal_batch(list_, n)
            return out
        aead_open_batch(list_, n)
        for i in range(n):
            if not list_[i].ok:
                out[i] = None
        return out
    finally:
        free(list_)


def seal_batch(object jobs, /):
    return run_batch(jobs, True)


def open_batch(object jobs, /):
    return run_batch(jobs, False)


def x25519(bytes secret, bytes point, /):
    cdef bytes out = room(X25519_LEN)

    check("secret", secret, X25519_LEN)
    check("point", point, X25519_LEN)
    if c.x25519(at(out), at(secret), at(point)):
        return out
    return None


def x25519_public(bytes secret, /):
    cdef bytes out = room(X25519_LEN)

    check("secret", secret, X25519_LEN)
    c.x25519_public(at(out), at(secret))
    return out


def blake2s(bytes data, bytes key=b"", Py_ssize_t size=BLAKE2S_LEN, /):
    if not 1 <= size <= BLAKE2S_LEN:
        raise ValueError(f"size is {size}, it must be 1 to {BLAKE2S_LEN}")
    if len(key) > BLAKE2S_LEN:
        raise ValueError(f"key has {len(key)} bytes, at most {BLAKE2S_LEN} are possible")
    cdef bytes out = room(size)
    c.blake2s(at(out), size, at(data), len(data), at(key), len(key))
    return out


def hmac_blake2s(bytes key, bytes data, /):
    cdef bytes out = room(BLAKE2S_LEN)

    c.hmac_blake2s(at(out), at(key), len(key), at(data), len(data))
    return out


def kdf(unsigned int n, bytes chaining_key, bytes data, /):
    cdef uint8_t out[96]
    cdef unsigned int i
    cdef tuple result

    check("chaining_key", chaining_key, BLAKE2S_LEN)
    if not 1 <= n <= 3:
        raise ValueError(f"n is {n}, it must be 1 to 3")
    c.kdf(out, n, at(chaining_key), at(data), len(data))
    result = ()
    for i in range(n):
        result += (out[32 * i:32 * i + 32],)
    secret_erase(out, sizeof(out))
    return result


def backend():
    return crypto_backend().decode()


def available():
    cdef list names = []
    cdef const char *name
    cdef size_t i = 0

    name = crypto_variant(i)
    while name != NULL:
        names.append(name.decode())
        i += 1
        name = crypto_variant(i)
    return tuple(names)


def select(str name, /):
    if crypto_select(name.encode()) != 0:
        raise ValueError(f"variant {name} is not available here, choose from {available()}")


def wrong_answer():
    cdef const char *name = selftest_library()
    return None if name == NULL else name.decode()
