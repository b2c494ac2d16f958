"""A restarted server and its agents over real connections: all come back, spread over time.

`python -m tests.bench.storm` does the same with 1,000 agents and the real window of 30 s.
"""

from __future__ import annotations

import random

import pytest

from tests.bench import storm


def test_what_is_called_a_storm() -> None:
    rng = random.Random(1)
    for count in (60, 1000):
        even = [rng.uniform(0, 30) for _ in range(count)]
        assert not storm.is_storm(even, count, 30)
        # Everybody at once; everybody within a tenth; half of them in one moment.
        assert storm.is_storm([7.0] * count, count, 30)
        assert storm.is_storm([rng.uniform(4, 7) for _ in range(count)], count, 30)
        assert storm.is_storm([7.0 if n % 2 else t for n, t in enumerate(even)], count, 30)


@pytest.mark.slow
def test_agents_of_a_restarted_server_come_back_spread_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert storm.run(["--agents", "60", "--window", "3"]) == 0, capsys.readouterr().out
    out = capsys.readouterr().out
    assert "NOT BACK" not in out
    assert out.count("the busiest") == 2


def test_agents_without_a_spread_are_found_out(capsys: pytest.CaptureFixture[str]) -> None:
    # Nothing but the agents' own source: the server and the connections spread as ever. On a
    # busy machine the second try of all of them is late too, and nobody need wait for that.
    words = ["--agents", "40", "--window", "2", "--timeout", "5"]
    assert storm.run(words, draw=lambda: 0.999) == 1
    assert "A STORM" in capsys.readouterr().out
