# SPDX-License-Identifier: Apache-2.0
# What was sent: in order, in order of transmission, SACKed, lost; delivery-rate samples.
from libc.stdint cimport uint32_t

from cext.netstack.layout cimport netstack, tcp_flow
from cext.wire.tcp cimport tcp_segment


# What one ACK told.
#   acked        bytes acknowledged cumulatively
#   sacked       bytes newly SACKed
#   delivered    bytes newly known to have arrived, either way
#   first_rtt_us, last_rtt_us   of the oldest and newest block acknowledged that was
#                sent once; 0: none
#   rate_*       what the newest delivered block remembers of when it was sent
#   dsack        it reported a duplicate, which ends at dsack_end
#   disowned     by it the last retransmission that could have been needed was not
cdef struct ack_sample:
    uint32_t acked
    uint32_t sacked
    uint32_t delivered
    uint32_t first_rtt_us
    uint32_t last_rtt_us
    uint32_t rate_delivered
    uint32_t rate_delivered_us
    uint32_t rate_sent_us
    bint rate_known
    bint rate_app_limited
    uint32_t dsack_end
    bint dsack
    bint disowned


cdef void scoreboard_ack(netstack *s, tcp_flow *t, const tcp_segment *seg,
                         ack_sample *sample) noexcept nogil
cdef void scoreboard_sack(netstack *s, tcp_flow *t, const tcp_segment *seg,
                          ack_sample *sample) noexcept nogil
# Store the rate that the sample shows.
cdef void scoreboard_rate(netstack *s, tcp_flow *t, const ack_sample *sample) noexcept nogil
# A block was handed to the network, for the first time or again.
cdef void scoreboard_sent(netstack *s, tcp_flow *t, uint32_t index) noexcept nogil
# Deem a block lost: it will be sent again. Whether that is new.
cdef bint scoreboard_lost(netstack *s, tcp_flow *t, uint32_t index) noexcept nogil
# The receiver broke its word (RFC 2018 section 8): forget every SACK.
cdef void scoreboard_renege(netstack *s, tcp_flow *t) noexcept nogil
# What was deemed lost was only late: in flight again.
cdef void scoreboard_unlose(netstack *s, tcp_flow *t) noexcept nogil
# Cut a block so that it has `length` bytes; the rest becomes the next one. False: no room.
cdef bint scoreboard_split(netstack *s, tcp_flow *t, uint32_t index,
                           uint32_t length) noexcept nogil
# 0, or the number of the rule that lists and counters break (tests and fuzzing).
cdef int scoreboard_check(netstack *s, tcp_flow *t) noexcept nogil
