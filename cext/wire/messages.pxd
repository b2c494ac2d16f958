# SPDX-License-Identifier: Apache-2.0
# The four messages of WireGuard; sizes and rules are in messages.h.
from libc.stdint cimport uint8_t


cdef extern from "wire/messages.h" nogil:
    enum:
        WG_MESSAGE_INITIATION
        WG_MESSAGE_RESPONSE
        WG_MESSAGE_COOKIE
        WG_MESSAGE_DATA
        WG_TIMESTAMP_LEN
        WG_MAC_LEN
        WG_COOKIE_LEN
        WG_COOKIE_NONCE_LEN
        WG_MESSAGE_DATA_MIN

    struct wg_macs:
        uint8_t mac1[16]
        uint8_t mac2[16]

    struct wg_message_initiation:
        uint8_t type[4]
        uint8_t sender[4]
        uint8_t ephemeral[32]
        uint8_t static_key[48]
        uint8_t timestamp[28]
        wg_macs macs

    struct wg_message_response:
        uint8_t type[4]
        uint8_t sender[4]
        uint8_t receiver[4]
        uint8_t ephemeral[32]
        uint8_t nothing[16]
        wg_macs macs

    struct wg_message_cookie:
        uint8_t type[4]
        uint8_t receiver[4]
        uint8_t nonce[24]
        uint8_t cookie[32]

    struct wg_message_data:
        uint8_t type[4]
        uint8_t receiver[4]
        uint8_t counter[8]
