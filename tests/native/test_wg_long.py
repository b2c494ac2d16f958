"""The long boring run: ten million packets between two devices, with rekeys."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cext.wireguard.testing_run import long_run

if TYPE_CHECKING:
    from cext.wireguard.testing_run import LongRun

MS = 10**6


def check(run: LongRun, packets: int) -> None:
    assert run["wrong"] == 0, run
    assert run["sent"] >= packets
    assert run["delivered"] == run["sent"] - run["lost"]
    assert run["ids"] == run["ids_sent"], "each packet once, and none for another"
    assert run["refused"] == run["duplicated"] > 0
    assert sum(sum(drops.values()) for drops in run["drops"]) == run["refused"]
    assert all(set(drops) <= {"wg_replay"} for drops in run["drops"])


@pytest.mark.parametrize("seed", range(3))
def test_a_hundred_thousand_packets_in_long_pauses(seed: int) -> None:
    """200 ms between batches: a rekey every 600 batches."""
    run = long_run(100_000, 200 * MS, seed)
    check(run, 100_000)
    assert run["handshakes"] >= 2 * 2


@pytest.mark.slow
def test_ten_million_packets() -> None:
    run = long_run(10_000_000, 20 * MS)
    check(run, 10_000_000)
    # 3125 s: a session each 120 s, seen by both sides.
    assert 2 * 24 <= run["handshakes"] <= 2 * 28
