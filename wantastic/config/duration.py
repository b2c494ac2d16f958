"""Go's duration syntax ("24h", "1h30m", "1.5s"), which the configuration file uses."""

from __future__ import annotations

import re

UNITS_NS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
# Go keeps a duration in a signed 64-bit number of nanoseconds: about 292 years.
MAX_NS = 2**63 - 1
_MAX_TEXT = 64
_PART = re.compile(r"([0-9]*)(?:\.([0-9]*))?(ns|us|µs|μs|ms|s|m|h)")


def parse_duration(text: str) -> int:
    """Return nanoseconds; ValueError for what time.ParseDuration refuses."""
    if text.lstrip("+-") == "0" and len(text) <= 2:
        return 0
    body = text[1:] if text[:1] in ("+", "-") else text
    if not body or len(body) > _MAX_TEXT:
        raise ValueError("not a duration")
    total, at = 0, 0
    while at < len(body):
        part = _PART.match(body, at)
        if part is None or not (part[1] or part[2]):
            raise ValueError("not a duration")
        unit = UNITS_NS[part[3]]
        total += int(part[1] or 0) * unit
        if part[2]:
            total += int(part[2]) * unit // 10 ** len(part[2])
        at = part.end()
    if total > MAX_NS:
        raise ValueError("longer than 292 years")
    return -total if text[0] == "-" else total


def render_duration(ns: int) -> str:
    """Return the shortest text of whole units that parses back to `ns`."""
    if ns == 0:
        return "0s"
    sign, rest, text = ("-" if ns < 0 else ""), abs(ns), ""
    for unit in ("h", "m", "s", "ms", "us", "ns"):
        count, rest = divmod(rest, UNITS_NS[unit])
        if count:
            text += f"{count}{unit}"
    return sign + text
