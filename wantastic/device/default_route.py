"""A default route into the tunnel that the tunnel's own packets do not follow.

The scheme of wg-quick: the outer packets carry a mark; everything without the mark
looks into a table of its own, which holds nothing but the default route; routes more
specific than a default one keep being taken from the main table first.

    not fwmark M lookup M
    lookup main suppress_prefixlength 0

What was there before us is left when we go; what a killed run of ours left is ours.
"""

from __future__ import annotations

import contextlib
from ipaddress import ip_network

from wantastic.config.model import DEFAULT_PORT, IpNetwork
from wantastic.device.host import Host
from wantastic.device.netlink import RT_TABLE_MAIN, Rule

DEFAULTS: dict[int, IpNetwork] = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}
FIRST_TABLE = DEFAULT_PORT
LAST_TABLE = FIRST_TABLE + 1000


def free_table(host: Host, wanted: int) -> int:
    """Return `wanted`, or the first table without routes when 0 is wanted."""
    if wanted:
        return wanted
    used = {route.table for version in (4, 6) for route in host.routes(version)}
    return next(table for table in range(FIRST_TABLE, LAST_TABLE) if table not in used)


class DefaultRoute:
    """The default routes of one interface; add() per IP version, remove() once."""

    def __init__(self, host: Host, ifindex: int, mark: int) -> None:
        self.mark = mark
        self.versions: set[int] = set()
        self._host = host
        self._ifindex = ifindex
        self._rules: list[Rule] = []
        self._valid_mark_before: str | None = None

    def add(self, version: int) -> None:
        """Take the default route of one IP version; OSError leaves nothing of it behind."""
        self._host.add_route(self._ifindex, DEFAULTS[version], self.mark)
        added: list[Rule] = []
        try:
            ours = self._add_rule(Rule(version, self.mark, not_fwmark=self.mark), added)
            main = Rule(version, RT_TABLE_MAIN, suppress_prefixlength=0)
            if not self._add_rule(main, added) and not ours:
                # Both stood: a run of ours was killed before it could remove them.
                added.append(main)
            if not ours:
                added.append(Rule(version, self.mark, not_fwmark=self.mark))
        except OSError:
            self._remove(added)
            with contextlib.suppress(OSError):
                self._host.remove_route(self._ifindex, DEFAULTS[version], self.mark)
            raise
        self._rules += added
        self.versions.add(version)
        if version == 4 and self._valid_mark_before is None:
            # Strict reverse path filtering would drop replies to marked packets.
            with contextlib.suppress(OSError):
                self._valid_mark_before = self._host.src_valid_mark("1")

    def _add_rule(self, rule: Rule, added: list[Rule]) -> bool:
        """Add a rule; False when it stood already."""
        if rule in self._host.rules(rule.version):
            return False
        self._host.add_rule(rule)
        added.append(rule)
        return True

    def _remove(self, rules: list[Rule]) -> None:
        for rule in reversed(rules):
            with contextlib.suppress(OSError):
                self._host.remove_rule(rule)

    def remove(self) -> None:
        """Put everything back."""
        self._remove(self._rules)
        for version in self.versions:
            with contextlib.suppress(OSError):
                self._host.remove_route(self._ifindex, DEFAULTS[version], self.mark)
        if self._valid_mark_before not in (None, "1"):
            with contextlib.suppress(OSError):
                self._host.src_valid_mark(str(self._valid_mark_before))
        self._rules, self.versions = [], set()
        self._valid_mark_before = None
