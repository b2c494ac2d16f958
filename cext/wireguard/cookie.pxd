# SPDX-License-Identifier: Apache-2.0
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cext.wire.endpoint cimport endpoint
from cext.wire.messages cimport wg_macs, wg_message_cookie
from cext.wireguard.state cimport cookie_checker, cookie_maker, wg_random_fn


cdef void cookie_keys(uint8_t *mac1_key, uint8_t *cookie_key,
                      const uint8_t *public_key) noexcept nogil
# `message` has `length` bytes, its MACs included.
cdef bint cookie_check_mac1(const cookie_checker *checker, const uint8_t *message,
                            size_t length) noexcept nogil
cdef bint cookie_check_mac2(cookie_checker *checker, uint64_t now_ns, const uint8_t *message,
                            size_t length, const endpoint *source) noexcept nogil
# Write a reply to the message with these MACs from the index `sender`.
cdef void cookie_reply(cookie_checker *checker, uint64_t now_ns, wg_message_cookie *reply,
                       const wg_macs *macs, const uint8_t *sender, const endpoint *source,
                       wg_random_fn random, void *random_ctx) noexcept nogil
# Fill in both MACs of a message of ours.
cdef void cookie_add_macs(cookie_maker *maker, uint64_t now_ns, uint8_t *message,
                          size_t length) noexcept nogil
cdef bint cookie_consume_reply(cookie_maker *maker, uint64_t now_ns,
                               const wg_message_cookie *reply) noexcept nogil
