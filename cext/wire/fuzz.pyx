# SPDX-License-Identifier: Apache-2.0
"""Fuzz targets of the wire room.

  ip    one packet: what ip_parse() finds lies inside it; the ICMP error that answers it
        is a packet itself, has a right checksum, and is answered by nothing
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t
from libc.stdlib cimport abort, free, malloc
from libc.string cimport memcpy

from cpython.bytes cimport PyBytes_AS_STRING

from cext.wire.checksum cimport checksum_add, checksum_pseudo, checksum_valid
from cext.wire.ip cimport (
    IP_ICMP_ERROR_MAX,
    IP_PROTOCOL_ICMPV6,
    ip_icmp_too_big,
    ip_icmp_unreachable,
    ip_info,
    ip_parse,
)


cdef inline void must(bint condition) noexcept nogil:
    if not condition:
        abort()


cdef void check_error(const uint8_t *error, size_t size) noexcept nogil:
    cdef ip_info info
    cdef unsigned long long total = 0
    if size == 0:
        return
    must(size <= IP_ICMP_ERROR_MAX)
    must(ip_parse(&info, error, size))
    must(info.total_len == size)
    if info.version == 6:
        total = checksum_pseudo(error + info.addresses, 16, IP_PROTOCOL_ICMPV6,
                                <unsigned int>(size - info.l4_offset))
    else:
        must(checksum_valid(checksum_add(0, error, info.l4_offset)))
    must(checksum_valid(checksum_add(total, error + info.l4_offset, size - info.l4_offset)))
    must(ip_icmp_unreachable(NULL, error, size, NULL, 1, 3) == 0)


cdef int fuzz_ip(const uint8_t *data, size_t size) noexcept nogil:
    cdef ip_info info
    # Exactly as large as the packet, so that a sanitizer sees every byte too many.
    cdef uint8_t *packet = <uint8_t *>malloc(size if size else 1)
    cdef uint8_t *error = <uint8_t *>malloc(IP_ICMP_ERROR_MAX)
    must(packet != NULL and error != NULL)
    memcpy(packet, data, size)
    if ip_parse(&info, packet, size):
        must(info.total_len <= size)
        must(info.l4_offset <= info.total_len)
        must(info.addresses + 2 * info.address_len <= info.l4_offset)
        must(info.fragment or info.first_fragment)
    check_error(error, ip_icmp_unreachable(error, packet, size, NULL, 1, 3))
    check_error(error, ip_icmp_too_big(error, packet, size, NULL, 1280))
    free(error)
    free(packet)
    return 0


def run(str name, bytes data):
    cdef const uint8_t *start = <const uint8_t *>PyBytes_AS_STRING(data)
    cdef size_t size = len(data)
    cdef int result
    if name != "ip":
        raise KeyError(name)
    with nogil:
        result = fuzz_ip(start, size)
    return result
