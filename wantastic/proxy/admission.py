"""Which openings go on when there are many: one listener's table; pure.

    enter() -> ASKING --asked()--> CARRIED OUT --leave()--> gone
                 |                                            ^
                 +---- gives way to a newer one: end() -------+

An opening asks until its request is whole; a client that says nothing, or a byte now and
then, could otherwise hold a place for as long as an opening may take. So the oldest that
still asks gives way: among those of the newcomer's source where that has its share,
among all where the table is full. Where none asks, the newcomer is turned away.

A source is an IPv4 address or a /64, of which one host has as many addresses as it likes.
Clients on this host all come from the same address, so that one may have the whole table.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass

MAX_OPENING = 256
# Of one source: three of them fill the table with requests that are being carried out.
SHARE = MAX_OPENING // 3
V6_PREFIX = 64
LOCAL = "this host"


@dataclass(eq=False, slots=True)
class Place:
    """One opening's place in the table."""

    source: str
    end: Callable[[], None]
    asks: bool = True

    def asked(self) -> None:
        """Its request is whole: it is not ended for others any more."""
        self.asks = False


def source_of(address: str) -> str:
    """Return what an address counts as."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if found.is_loopback:
        return LOCAL
    if found.version == 4:
        return str(found)
    return str(ipaddress.ip_network((found, V6_PREFIX), strict=False))


class Admission:
    """The places of a listener, oldest first."""

    def __init__(self, size: int = MAX_OPENING, share: int = SHARE) -> None:
        self._size = size
        self._share = share
        self._places: dict[Place, None] = {}

    def __len__(self) -> int:
        return len(self._places)

    def enter(self, address: str, end: Callable[[], None]) -> Place | None:
        """Return a place for a client at `address`, or None; end() is called to take it back."""
        source = source_of(address)
        own = [place for place in self._places if place.source == source]
        if len(own) >= (self._size if source == LOCAL else self._share):
            if not self._give_way(own):
                return None
        elif len(self._places) >= self._size and not self._give_way(list(self._places)):
            return None
        place = Place(source, end)
        self._places[place] = None
        return place

    def _give_way(self, among: list[Place]) -> bool:
        oldest = next((place for place in among if place.asks), None)
        if oldest is None:
            return False
        self.leave(oldest)
        oldest.end()
        return True

    def leave(self, place: Place) -> None:
        """Free a place; nothing when it was taken back."""
        self._places.pop(place, None)
