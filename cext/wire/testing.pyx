# SPDX-License-Identifier: Apache-2.0
# cython: warn.undeclared=False
"""What tests call of cext/wire; not part of the firmware executable."""

from libc.stdint cimport uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from cpython.bytes cimport PyBytes_AS_STRING

from cext.wire.checksum cimport (
    checksum_add,
    checksum_add_portable,
    checksum_copy,
    checksum_fold,
    checksum_is_wide,
    checksum_pseudo,
    checksum_store,
    checksum_store_udp,
    checksum_valid,
)
from cext.wire.ip cimport (
    IP_ICMP_ERROR_MAX,
    ip_icmp_too_big,
    ip_icmp_unreachable,
    ip_info,
    ip_parse,
)


def checksum(list parts, int offset=0, bint udp=False):
    """Return the two bytes that a checksum field over `parts` gets.

    Each part is read from memory that begins `offset` bytes behind an aligned address.
    """
    cdef uint8_t field[2]
    cdef unsigned long long total = 0
    cdef uint8_t *copy
    cdef bytes part
    for part in parts:
        copy = <uint8_t *>malloc(len(part) + offset + 1)
        memcpy(copy + offset, PyBytes_AS_STRING(part), len(part))
        total = checksum_add(total, copy + offset, len(part))
        free(copy)
    if udp:
        checksum_store_udp(field, total)
    else:
        checksum_store(field, total)
    return bytes([field[0], field[1]])


def is_wide():
    """Return whether checksums are made with vectors."""
    return checksum_is_wide()


def sums(bytes data, int offset=0, unsigned long long total=0):
    """Return the folded sums of the portable way, the chosen way, and that with a copy.

    The data lie `offset` bytes behind an aligned address, and are copied to another such.
    """
    cdef size_t size = len(data)
    cdef uint8_t *memory = <uint8_t *>malloc(2 * (size + offset) + 64)
    cdef uint8_t *source = memory + offset
    cdef uint8_t *to = source + size + offset + 7
    try:
        memcpy(source, PyBytes_AS_STRING(data), size)
        to[size] = 0xa5
        found = (checksum_fold(checksum_add_portable(total, source, size)),
                 checksum_fold(checksum_add(total, source, size)),
                 checksum_fold(checksum_copy(total, to, source, size)))
        assert (<char *>to)[:size] == data
        assert to[size] == 0xa5
        return found
    finally:
        free(memory)


def copy(bytes data):
    """Return what checksum_copy() copied, and whether its sum is that of a valid packet."""
    cdef uint8_t *to = <uint8_t *>malloc(len(data) + 1)
    try:
        total = checksum_copy(0, to, PyBytes_AS_STRING(data), len(data))
        return (<char *>to)[:len(data)], bool(checksum_valid(total))
    finally:
        free(to)


def pseudo_valid(bytes addresses, int protocol, bytes payload):
    """Return whether a payload with its checksum is right below these two addresses."""
    total = checksum_pseudo(PyBytes_AS_STRING(addresses), len(addresses) // 2, protocol,
                            len(payload))
    return bool(checksum_valid(checksum_add(total, PyBytes_AS_STRING(payload), len(payload))))


def parse(bytes packet):
    """Return ip_info as a dict, None for what is no packet."""
    cdef ip_info info
    if not ip_parse(&info, <const uint8_t *>PyBytes_AS_STRING(packet), len(packet)):
        return None
    return {
        "version": info.version,
        "protocol": info.protocol,
        "first_fragment": bool(info.first_fragment),
        "fragment": bool(info.fragment),
        "l4_offset": info.l4_offset,
        "total_len": info.total_len,
    }


def unreachable(bytes packet, bytes source=None):
    """Return the ICMP error that answers `packet`, empty when there is none."""
    cdef uint8_t *out = <uint8_t *>malloc(IP_ICMP_ERROR_MAX)
    cdef const uint8_t *address = NULL
    try:
        if source is not None:
            address = <const uint8_t *>PyBytes_AS_STRING(source)
        length = ip_icmp_unreachable(out, <const uint8_t *>PyBytes_AS_STRING(packet),
                                     len(packet), address, 1, 3)
        return (<char *>out)[:length]
    finally:
        free(out)


def too_big(bytes packet, int mtu):
    """Return the ICMP error for a packet larger than `mtu`."""
    cdef uint8_t *out = <uint8_t *>malloc(IP_ICMP_ERROR_MAX)
    try:
        length = ip_icmp_too_big(out, <const uint8_t *>PyBytes_AS_STRING(packet), len(packet),
                                 NULL, mtu)
        return (<char *>out)[:length]
    finally:
        free(out)
