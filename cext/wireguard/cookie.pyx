# SPDX-License-Identifier: Apache-2.0
"""MAC1, MAC2 and cookie replies; the theory is in cookie.h."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy, memset

from cext.base.endian cimport store_be16, store_le32
from cext.base.secret cimport secret_equal, secret_erase
from cext.crypto.crypto cimport (
    blake2s,
    blake2s_final,
    blake2s_init,
    blake2s_state,
    blake2s_update,
    xaead_open,
    xaead_seal,
)
from cext.wire.endpoint cimport WT_AF_INET, endpoint
from cext.wire.messages cimport (
    WG_COOKIE_LEN,
    WG_MAC_LEN,
    WG_MESSAGE_COOKIE,
    wg_macs,
    wg_message_cookie,
)
from cext.wireguard.constants cimport COOKIE_SECRET_LATENCY_NS, COOKIE_SECRET_MAX_AGE_NS
from cext.wireguard.state cimport cookie_checker, cookie_maker, wg_random_fn


cdef void labelled(uint8_t *out, const char *label, const uint8_t *public_key) noexcept nogil:
    cdef blake2s_state hash

    blake2s_init(&hash, 32, NULL, 0)
    blake2s_update(&hash, <const uint8_t *>label, 8)
    blake2s_update(&hash, public_key, 32)
    blake2s_final(&hash, out)


cdef void cookie_keys(uint8_t *mac1_key, uint8_t *cookie_key,
                      const uint8_t *public_key) noexcept nogil:
    labelled(mac1_key, b"mac1----", public_key)
    labelled(cookie_key, b"cookie--", public_key)


cdef wg_macs *macs_of(const uint8_t *message, size_t length) noexcept nogil:
    return <wg_macs *>(message + length - sizeof(wg_macs))


cdef bint cookie_check_mac1(const cookie_checker *checker, const uint8_t *message,
                            size_t length) noexcept nogil:
    cdef uint8_t mac[16]

    blake2s(mac, WG_MAC_LEN, message, length - sizeof(wg_macs), checker.mac1_key, 32)
    return secret_equal(mac, macs_of(message, length).mac1, WG_MAC_LEN)


cdef void bake(cookie_checker *checker, uint8_t *cookie,
               const endpoint *source) noexcept nogil:
    """MAC over the source's address and port: a cookie is good for nobody else."""
    cdef blake2s_state hash
    cdef uint8_t port[2]

    store_be16(port, source.port)
    blake2s_init(&hash, WG_COOKIE_LEN, checker.secret, 32)
    blake2s_update(&hash, source.address, 4 if source.family == WT_AF_INET else 16)
    blake2s_update(&hash, port, sizeof(port))
    blake2s_final(&hash, cookie)


cdef bint cookie_check_mac2(cookie_checker *checker, uint64_t now_ns, const uint8_t *message,
                            size_t length, const endpoint *source) noexcept nogil:
    cdef uint8_t cookie[16]
    cdef uint8_t mac[16]
    cdef bint right

    if (checker.secret_born_ns == 0
            or now_ns - checker.secret_born_ns >= COOKIE_SECRET_MAX_AGE_NS):
        return False
    bake(checker, cookie, source)
    blake2s(mac, WG_MAC_LEN, message, length - WG_MAC_LEN, cookie, WG_COOKIE_LEN)
    right = secret_equal(mac, macs_of(message, length).mac2, WG_MAC_LEN)
    secret_erase(cookie, sizeof(cookie))
    return right


cdef void cookie_reply(cookie_checker *checker, uint64_t now_ns, wg_message_cookie *reply,
                       const wg_macs *macs, const uint8_t *sender, const endpoint *source,
                       wg_random_fn random, void *random_ctx) noexcept nogil:
    cdef uint8_t cookie[16]

    if (checker.secret_born_ns == 0
            or now_ns - checker.secret_born_ns >= COOKIE_SECRET_MAX_AGE_NS):
        random(random_ctx, checker.secret, sizeof(checker.secret))
        checker.secret_born_ns = now_ns
    store_le32(reply.type, WG_MESSAGE_COOKIE)
    memcpy(reply.receiver, sender, sizeof(reply.receiver))
    random(random_ctx, reply.nonce, sizeof(reply.nonce))
    bake(checker, cookie, source)
    xaead_seal(reply.cookie, cookie, WG_COOKIE_LEN, macs.mac1, WG_MAC_LEN, reply.nonce,
               checker.cookie_key)
    secret_erase(cookie, sizeof(cookie))


cdef void cookie_add_macs(cookie_maker *maker, uint64_t now_ns, uint8_t *message,
                          size_t length) noexcept nogil:
    cdef wg_macs *macs = macs_of(message, length)

    blake2s(macs.mac1, WG_MAC_LEN, message, length - sizeof(wg_macs), maker.mac1_key, 32)
    memcpy(maker.last_mac1, macs.mac1, WG_MAC_LEN)
    maker.awaits_reply = True
    if (maker.born_ns and now_ns - maker.born_ns
            < COOKIE_SECRET_MAX_AGE_NS - COOKIE_SECRET_LATENCY_NS):
        blake2s(macs.mac2, WG_MAC_LEN, message, length - WG_MAC_LEN, maker.cookie,
                WG_COOKIE_LEN)
    else:
        memset(macs.mac2, 0, WG_MAC_LEN)


cdef bint cookie_consume_reply(cookie_maker *maker, uint64_t now_ns,
                               const wg_message_cookie *reply) noexcept nogil:
    cdef uint8_t cookie[16]

    if not maker.awaits_reply:
        return False
    if not xaead_open(cookie, reply.cookie, sizeof(reply.cookie), maker.last_mac1, WG_MAC_LEN,
                      reply.nonce, maker.cookie_key):
        return False
    memcpy(maker.cookie, cookie, WG_COOKIE_LEN)
    maker.born_ns = now_ns
    maker.awaits_reply = False
    secret_erase(cookie, sizeof(cookie))
    return True
