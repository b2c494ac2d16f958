"""rtnetlink bytes: written and read back, against the kernel, and against any bytes."""

from __future__ import annotations

import errno
import os
import struct
import subprocess
from collections.abc import Iterator
from ipaddress import ip_interface, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.netlink import fuzz_netlink
from tests.support.configs import own_addresses, ranges
from wantastic.config.model import IpInterface, IpNetwork
from wantastic.device import netlink as nl
from wantastic.device.host import LinuxHost


def only(request: nl.Request) -> nl.Body:
    (message,) = nl.parse(nl.frame(request, 7))
    assert message.sequence == 7
    return message.body


@given(own_addresses.filter(bool), st.integers(1, 2**31 - 1))
def test_an_address_reads_back(found: tuple[IpInterface, ...], ifindex: int) -> None:
    address = found[0]
    body = only(nl.address_change(ifindex, address, add=True))
    assert body == nl.AddressNotice(False, ifindex, str(address.ip), address.network.prefixlen)


@given(ranges, st.integers(1, 2**31 - 1), st.integers(1, 2**32 - 1), st.booleans())
def test_a_route_reads_back(network: IpNetwork, ifindex: int, table: int, add: bool) -> None:
    body = only(nl.route_change(ifindex, network, add=add, table=table))
    where = str(network.network_address)
    assert body == nl.RouteNotice(not add, ifindex, where, network.prefixlen, table)


@given(
    st.builds(
        nl.Rule,
        st.sampled_from([4, 6]),
        st.integers(1, 2**32 - 1),
        st.none() | st.integers(0, 2**32 - 1),
        st.none() | st.integers(0, 128),
    )
)
def test_a_rule_reads_back(rule: nl.Rule) -> None:
    assert only(nl.rule_change(rule, add=True)) == nl.RuleNotice(False, rule)
    assert only(nl.rule_change(rule, add=False)) == nl.RuleNotice(True, rule)


def test_a_refusal_carries_the_kernels_words() -> None:
    text = nl.attribute(nl.NLMSGERR_ATTR_MSG, b"no good\0")
    payload = struct.pack("=i", -22) + struct.pack("=IHHII", 16, 24, 5, 3, 0) + text
    flags = nl.NLM_F_CAPPED | nl.NLM_F_ACK_TLVS
    data = struct.pack("=IHHII", 16 + len(payload), nl.NLMSG_ERROR, flags, 3, 0) + payload
    assert list(nl.parse(data)) == [nl.Message(3, nl.Answer(22, "no good"))]


def test_a_datagram_of_several_messages() -> None:
    parts = [nl.link_change(n, up=True, mtu_bytes=1400) for n in (1, 2, 3)]
    data = b"".join(nl.frame(p, 1) for p in parts)
    assert [m.body.ifindex for m in nl.parse(data) if isinstance(m.body, nl.LinkNotice)] == [
        1,
        2,
        3,
    ]


@given(st.binary(max_size=200))
def test_any_bytes_are_skipped(data: bytes) -> None:
    fuzz_netlink(data)


@given(st.data())
def test_damaged_messages_are_skipped(data: st.DataObject) -> None:
    message = bytearray(nl.frame(nl.route_change(3, ip_network("10.0.0.0/8"), add=True), 1))
    at = data.draw(st.integers(0, len(message) - 1))
    message[at] = data.draw(st.integers(0, 255))
    fuzz_netlink(bytes(message[: data.draw(st.integers(0, len(message)))]))


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root for a namespace")


@pytest.fixture
def host() -> Iterator[LinuxHost]:
    """A LinuxHost in a network namespace of this thread's own, with a pair of links."""
    with open("/proc/thread-self/ns/net") as home:  # noqa: PTH123
        os.unshare(os.CLONE_NEWNET) if hasattr(os, "unshare") else unshare_net()
        pair = ["d0", "type", "veth", "peer", "name", "d1"]
        subprocess.run(["ip", "link", "add", *pair], check=True)
        subprocess.run(["ip", "link", "set", "d1", "up"], check=True)
        found = LinuxHost()
        try:
            yield found
        finally:
            found.close()
            setns(home.fileno())


def unshare_net() -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.unshare(0x40000000) == 0


def setns(fd: int) -> None:
    import ctypes

    assert ctypes.CDLL(None, use_errno=True).setns(fd, 0x40000000) == 0


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


@needs_root
def test_the_kernel_does_what_we_ask(host: LinuxHost) -> None:
    import socket

    index = socket.if_nametoindex("d0")
    host.set_link(index, up=True, mtu_bytes=1380)
    link = host.link(index)
    assert link is not None
    assert (link.name, link.up, link.mtu_bytes) == ("d0", True, 1380)
    for address in ("10.7.0.2/24", "fd07::2/64"):
        host.add_address(index, ip_interface(address))
        assert address in ip("addr", "show", "d0")
        with pytest.raises(OSError, match=r".") as caught:
            host.add_address(index, ip_interface(address))
        assert caught.value.errno == errno.EEXIST
    for network in ("10.8.0.0/16", "fd08::/48"):
        host.add_route(index, ip_network(network))
        version = ip_network(network).version
        assert network in ip(f"-{version}", "route", "show", "dev", "d0")
        assert any(r.prefix_length in (16, 48) for r in host.routes(version))
        host.remove_route(index, ip_network(network))
        assert network not in ip(f"-{version}", "route", "show", "dev", "d0")
    for version in (4, 6):
        before = ip(f"-{version}", "rule")
        mark = nl.Rule(version, 51820, not_fwmark=51820)
        main = nl.Rule(version, 254, suppress_prefixlength=0)
        for rule in (mark, main):
            host.add_rule(rule)
        shown = ip(f"-{version}", "rule")
        assert "not from all fwmark 0xca6c lookup 51820" in shown
        assert "suppress_prefixlength 0" in shown
        found = host.rules(version)
        assert found.count(mark) == 1
        assert found.count(main) == 1
        for rule in (mark, main):
            host.remove_rule(rule)
        assert ip(f"-{version}", "rule") == before
    host.remove_address(index, ip_interface("10.7.0.2/24"))
    assert "10.7.0.2" not in ip("addr", "show", "d0")
    with pytest.raises(OSError, match=r"."):
        host.remove_address(index, ip_interface("10.7.0.2/24"))
