"""The fuzz targets in Python: functions of bytes that raise nothing at all."""

from __future__ import annotations

from collections.abc import Callable

from tests.fuzz.config import fuzz_config
from tests.fuzz.control import (
    fuzz_configuration,
    fuzz_error,
    fuzz_sign_in,
    fuzz_stored,
)
from tests.fuzz.dns import fuzz_dns
from tests.fuzz.netlink import fuzz_netlink
from tests.fuzz.uapi import fuzz_uapi
from wantastic.proxy.credentials import Credentials
from wantastic.proxy.http import HttpProxy
from wantastic.proxy.socks5 import Socks5Server, parse_datagram


def socks5(data: bytes) -> None:
    """Both kinds of server; what the client sends, then a datagram."""
    for server in (Socks5Server(), Socks5Server(Credentials("u", "p"))):
        for at in range(0, len(data), 7):
            server.receive(data[at : at + 7])
        assert len(server.data_to_send()) < 64
    parse_datagram(data)


def http_proxy(data: bytes) -> None:
    """A head in two pieces."""
    proxy = HttpProxy()
    proxy.receive(data[: len(data) // 2])
    proxy.receive(data[len(data) // 2 :])
    proxy.data_to_send()


# "ROOM:NAME" -> the function
TARGETS: dict[str, Callable[[bytes], None]] = {
    "config:file": fuzz_config,
    "control:configuration": fuzz_configuration,
    "control:error": fuzz_error,
    "control:sign_in": fuzz_sign_in,
    "control:stored": fuzz_stored,
    "device:dns": fuzz_dns,
    "device:netlink": fuzz_netlink,
    "device:uapi": fuzz_uapi,
    "proxy:socks5": socks5,
    "proxy:http": http_proxy,
}
