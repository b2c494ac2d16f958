# SPDX-License-Identifier: Apache-2.0
from libc.stdint cimport uint64_t


cdef extern from "wireguard/constants.h" nogil:
    uint64_t NS_PER_SECOND
    uint64_t NS_PER_MS
    uint64_t REKEY_AFTER_MESSAGES
    uint64_t REJECT_AFTER_MESSAGES
    uint64_t REKEY_AFTER_TIME_NS
    uint64_t REJECT_AFTER_TIME_NS
    uint64_t REKEY_ATTEMPT_TIME_NS
    uint64_t REKEY_TIMEOUT_NS
    uint64_t KEEPALIVE_TIMEOUT_NS
    uint64_t LAST_MINUTE_NS
    uint64_t NEW_HANDSHAKE_NS
    uint64_t ZERO_KEYS_NS
    uint64_t COOKIE_SECRET_MAX_AGE_NS
    uint64_t COOKIE_SECRET_LATENCY_NS
    uint64_t UNDER_LOAD_NS
    uint64_t TIMESTAMP_STEP_NS
    enum:
        REKEY_TIMEOUT_JITTER_MAX_MS
        MAX_TIMER_HANDSHAKES
        INITIATIONS_PER_SECOND
        PACKETS_PER_SECOND
        PACKETS_BURSTABLE
        PADDING_MULTIPLE
