# SPDX-License-Identifier: Apache-2.0
# IP headers on the way out, the queue of finished packets, fragmentation.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cext.netstack.layout cimport netstack
from cext.wire.ip cimport ip_info


# Write an IP header right in front of the upper layer at `upper`; the packet's first byte.
# `source` and `destination` are 16 bytes. Not to be fragmented on its way.
cdef uint8_t *ip_header(uint8_t *upper, const uint8_t *source, const uint8_t *destination,
                        uint32_t protocol, uint32_t length, uint32_t ttl) noexcept nogil
# Sum of the pseudo header of such a packet, for checksum_add().
cdef uint64_t ip_pseudo(const uint8_t *source, const uint8_t *destination, uint32_t protocol,
                        uint32_t length) noexcept nogil
# The 16-byte forms of a packet's addresses.
cdef void ip_addresses(const uint8_t *packet, const ip_info *info, uint8_t *source,
                       uint8_t *destination) noexcept nogil
# A block for one answer: `offset` is where the packet may begin. NS_NIL (counted) at a limit.
cdef uint32_t answer_take(netstack *s) noexcept nogil
# Queue it; offset and len of the block now say where the packet is.
cdef void answer_push(netstack *s, uint32_t index, uint32_t owner, uint32_t peer) noexcept nogil
# Send an upper layer of `head` (8 bytes) and payload, in fragments when it must be.
# False when blocks ran out (then nothing is sent).
cdef bint ip_send(netstack *s, const uint8_t *source, const uint8_t *destination,
                  uint32_t protocol, const uint8_t *head, const uint8_t *payload,
                  uint32_t length, uint32_t ttl, uint32_t owner, uint32_t peer) noexcept nogil
# Whether an address of 16 bytes is one of ours.
cdef bint ip_is_ours(const netstack *s, const uint8_t *address) noexcept nogil
# Our first address of the family of `like`, or NULL.
cdef const uint8_t *ip_our_address(const netstack *s, const uint8_t *like) noexcept nogil
