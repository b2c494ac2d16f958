"""Addresses that can be one host: a table, the dial of both protocols, and the whole of IPv4."""

from __future__ import annotations

import errno
import ipaddress

import pytest

from cext.engine.testing_relay import RelayPair
from cext.engine.userspace import is_host

# number, address, whether it can be a host
TABLE = [
    (1, "10.9.0.2", True),
    (2, "192.168.1.1", True),
    (3, "100.64.0.1", True),
    (4, "1.0.0.0", True),
    (5, "223.255.255.255", True),
    (6, "0.0.0.0", False),
    (7, "0.1.2.3", False),
    (8, "127.0.0.1", False),
    (9, "127.255.255.254", False),
    (10, "169.254.169.254", False),
    (11, "169.253.255.255", True),
    (12, "224.0.0.1", False),
    (13, "239.255.255.250", False),
    (14, "240.0.0.1", False),
    (15, "255.255.255.255", False),
    (16, "fd09::2", True),
    (17, "2001:db8::1", True),
    (18, "::", False),
    (19, "::1", False),
    (20, "::127.0.0.1", False),
    (21, "::10.9.0.2", False),
    (22, "::ffff:127.0.0.1", False),
    (23, "::ffff:10.9.0.2", False),
    (24, "fe80::1", False),
    (25, "febf::1", False),
    (26, "fec0::1", False),
    (27, "ff02::1", False),
    (28, "100::1", False),
    (29, "100:0:0:1::1", True),
    (30, "64:ff9b::8.8.8.8", True),
    (31, "64:ff9b::127.0.0.1", False),
    (32, "64:ff9b::169.254.169.254", False),
    (33, "64:ff9b::0.0.0.0", False),
    (34, "64:ff9b:1::224.0.0.1", False),
    (35, "64:ff9b:1:7::192.0.2.1", True),
    (36, "64:ff9b::1:0:0", False),
    (37, "2002:7f00:1::1", False),
    (38, "2002:a9fe:a9fe::1", False),
    (39, "2002:808:808::1", True),
    (40, "2002:e000:1::", False),
    (41, "2001:0:808:808::80ff:fffe", False),
    (42, "2001:0:808:808::f7f7:f7f7", True),
    (43, "2001:1::1", True),
    (44, "fbff::1", True),
]


@pytest.mark.parametrize(("number", "address", "good"), TABLE)
def test_table(number: int, address: str, good: bool) -> None:
    assert is_host(address) is good, number
    result, _ = RelayPair().dial(0, address, 80)
    mapped = getattr(ipaddress.ip_address(address), "ipv4_mapped", None)
    if mapped is None:
        assert (result == -errno.EACCES) is not good, number


def test_ipv4_is_refused_by_blocks() -> None:
    """Against the standard library, one address of every /16."""
    for high in range(65536):
        address = ipaddress.IPv4Address(high << 16 | 0x0102)
        no_host = (
            address.is_loopback
            or address.is_link_local
            or address.is_multicast
            or address.is_reserved
            or high < 256
        )
        assert is_host(str(address)) is not no_host, address
        for carrier in (f"64:ff9b::{address}", f"2002:{high:x}:102::5"):
            assert is_host(carrier) is not no_host, carrier
