"""When the device's token is refreshed; pure.

Refresh at min(refresh_time of the file, the server's hint, 2/3 of the lifetime), up to a
tenth earlier so that a fleet enrolled together drifts apart. Counted on the monotonic
clock from the answer that brought the token; over a restart, from the wall clock at which
it was saved, as far as that can be believed. Nothing here ever cuts a tunnel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from wantastic.control.backoff import Random, spread_s

SOON_S: Final = 60.0
"""After a restart whose clock cannot be believed the refresh is drawn from this time."""
MIN_INTERVAL_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Terms:
    """What the server said about a token; 0 is not stated."""

    lifetime_s: int = 0
    refresh_after_s: int = 0


NO_TERMS: Final = Terms()


def interval_s(terms: Terms, refresh_time_s: float) -> float:
    """Return the time from issue to refresh; 0 when there is nothing to keep to."""
    wanted = [refresh_time_s] if refresh_time_s > 0 else []
    if terms.refresh_after_s:
        wanted.append(float(terms.refresh_after_s))
    if terms.lifetime_s:
        wanted.append(terms.lifetime_s * 2 / 3)
    if not wanted:
        return 0.0
    return max(min(wanted), min(MIN_INTERVAL_S, terms.lifetime_s * 2 / 3 or MIN_INTERVAL_S))


def refresh_in_s(
    terms: Terms,
    refresh_time_s: float,
    random: Random,
    *,
    saved_unix_s: float = 0.0,
    now_unix_s: float = 0.0,
) -> float | None:
    """Return how long to wait from now; None for never.

    `saved_unix_s` is 0 for a token that came just now.
    """
    interval = interval_s(terms, refresh_time_s)
    if not interval:
        return None
    planned = spread_s(interval, random)
    if not saved_unix_s:
        return planned
    age = now_unix_s - saved_unix_s
    if age < 0 or age >= planned:
        return min(SOON_S, planned) * random()
    return planned - age


def expires_in_s(terms: Terms, saved_unix_s: float, now_unix_s: float) -> float | None:
    """Return what is left of the lifetime (negative: over); None when it has no end."""
    if not terms.lifetime_s:
        return None
    return saved_unix_s + terms.lifetime_s - now_unix_s
