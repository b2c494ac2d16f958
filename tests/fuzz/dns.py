"""Fuzz target for what names are looked up with: answers of name servers, files of the host."""

from __future__ import annotations

import contextlib
import ipaddress

from wantastic.device.dns_message import A, make_query, parse_answer
from wantastic.device.outside import parse_hosts, parse_nameservers

QUERY = make_query(7, "gw.test", A)
# An answer with one record, up to where the records begin.
HEAD = QUERY[:2] + bytes.fromhex("8180 0001 0001 0000 0000") + QUERY[12:]


def fuzz_dns(data: bytes) -> None:
    """Raise only when a parser breaks its promise."""
    for message in (data, QUERY[:2] + data, HEAD + data):
        with contextlib.suppress(ValueError):
            found, ttl_s = parse_answer(message, QUERY)
            if not 0 <= ttl_s <= 300 or len(found) > 64:
                raise AssertionError("out of its bounds")
            for address in found:
                ipaddress.ip_address(address)
    text = data.decode("utf-8", "replace")
    for address in (*parse_hosts(text, "gw.test"), *parse_nameservers(text)):
        ipaddress.ip_address(address)
