# SPDX-License-Identifier: Apache-2.0
from libc.stdint cimport uint8_t, uint16_t, uint32_t


cdef extern from "wire/tcp.h" nogil:
    enum:
        TCP_SOURCE_PORT
        TCP_DESTINATION_PORT
        TCP_MAX_HEADER_LEN
        TCP_MAX_OPTIONS_LEN
        TCP_OPTION_END
        TCP_OPTION_NOP
        TCP_OPTION_MSS
        TCP_OPTION_WINDOW_SCALE
        TCP_OPTION_SACK_PERMITTED
        TCP_OPTION_SACK
        TCP_OPTION_TIMESTAMP
        TCP_OPTION_USER_TIMEOUT
        TCP_MAX_WINDOW_SCALE
        TCP_MAX_SACK_BLOCKS
        TCP_HAS_MSS
        TCP_HAS_WINDOW_SCALE
        TCP_HAS_SACK_PERMITTED
        TCP_HAS_TIMESTAMP
        TCP_HAS_USER_TIMEOUT

    struct sequence_range:
        uint32_t start
        uint32_t end

    struct tcp_segment:
        uint16_t source_port
        uint16_t destination_port
        uint8_t flags
        uint8_t options
        uint8_t window_scale
        uint8_t sacks
        uint32_t seq
        uint32_t ack
        uint16_t window
        uint16_t mss
        uint32_t ts_value
        uint32_t ts_echo
        uint32_t user_timeout_s
        uint32_t payload_len
        sequence_range sack[4]
        const uint8_t *payload

    bint seq_lt(uint32_t a, uint32_t b)
    bint seq_leq(uint32_t a, uint32_t b)
    bint seq_gt(uint32_t a, uint32_t b)
    bint seq_geq(uint32_t a, uint32_t b)
    uint32_t seq_max(uint32_t a, uint32_t b)
