"""The search list: which names are asked for, in which order, against glibc's rules (ndots:1)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wantastic.config.model import DnsConfig, DnsServer, HostPort
from wantastic.device.dns_message import A
from wantastic.proxy.names import Names

SERVERS = tuple(DnsServer(HostPort(f"10.0.0.{n}", 53)) for n in (1, 2))


class Net:
    """A tunnel with IPv4 only."""

    addresses = ("10.9.0.1",)

    def forget_names(self) -> None:
        pass


class Asked(Names):
    """Names whose servers know `zone`; those in `dead` do not answer."""

    def __init__(self, zone: dict[str, str], dead: int = 0, **config: Any) -> None:
        super().__init__(Net(), lambda: 0.0)  # type: ignore[arg-type]
        self.zone, self.dead = zone, SERVERS[:dead]
        self.asked: list[str] = []
        self.use(DnsConfig(servers=SERVERS, **config))

    async def _ask(self, server: DnsServer, name: str, kind: int) -> tuple[list[str], int]:
        assert kind == A
        self.asked.append(name)
        if server in self.dead:
            raise TimeoutError
        return ([self.zone[name]], 60) if name in self.zone else ([], 5)

    def find(self, name: str) -> tuple[str, ...]:
        return asyncio.run(self.resolve(name))


SEARCH = ("corp.example", "example")
ROWS: list[tuple[str, str, list[str], str]] = [
    ("nas", "nas.corp.example", ["nas.corp.example"], "1"),
    ("nas", "nas.example", ["nas.corp.example", "nas.example"], "2"),
    ("nas", "nas", ["nas.corp.example", "nas.example", "nas"], "3"),
    ("www.example", "www.example", ["www.example"], "4"),
    ("nas.lab", "nas.lab.example", ["nas.lab", "nas.lab.corp.example", "nas.lab.example"], "5"),
]


@pytest.mark.parametrize(("name", "known", "asked", "row"), ROWS)
def test_order(name: str, known: str, asked: list[str], row: str) -> None:
    names = Asked({known: "10.0.0.9"}, search=SEARCH)
    assert names.find(name) == ("10.0.0.9",), row
    assert names.asked == asked
    # Known now, under its whole name.
    names.asked.clear()
    assert names.find(name) == ("10.0.0.9",)
    assert known not in names.asked


def test_a_record_of_the_configuration_is_found_by_its_short_name() -> None:
    names = Asked({}, search=SEARCH, records=(("nas.corp.example", ("10.0.0.7",)),))
    assert names.find("nas") == ("10.0.0.7",)
    assert names.asked == []


def test_the_search_ends_where_nobody_answers() -> None:
    names = Asked({"nas.example": "10.0.0.9"}, dead=2, search=SEARCH)
    with pytest.raises(OSError, match="no address"):
        names.find("nas")
    assert names.asked == ["nas.corp.example"] * 2
    # One server that answers is enough.
    assert Asked({"nas.example": "10.0.0.9"}, dead=1, search=SEARCH).find("nas") == ("10.0.0.9",)


def test_a_name_that_would_be_too_long_is_not_completed() -> None:
    name = ".".join(["a" * 49] * 5)
    names = Asked({}, search=SEARCH)
    with pytest.raises(OSError, match="no address"):
        names.find(name)
    assert names.asked == [name]


@given(
    st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=3),
    st.lists(st.sampled_from(["a", "b", "a.b", "c"]), max_size=4),
    st.sets(st.sampled_from(["a", "b", "a.b", "b.a", "a.a", "a.b.c", "b.c", "a.a.b"])),
)
def test_against_the_rule(labels: list[str], search: list[str], zone: set[str]) -> None:
    """resolv.conf(5): fewer dots than ndots, the list first; else the name itself first."""
    name = ".".join(labels)
    order = [f"{name}.{domain}" for domain in search]
    order.insert(0 if len(labels) > 1 else len(order), name)
    expected = next((n for n in order if n in zone), None)
    names = Asked({n: f"10.1.0.{len(n)}" for n in zone}, search=tuple(search))
    if expected is None:
        with pytest.raises(OSError, match="no address"):
            names.find(name)
    else:
        assert names.find(name) == (f"10.1.0.{len(expected)}",)
    assert names.asked == order[: order.index(expected) + 1 if expected else None]
