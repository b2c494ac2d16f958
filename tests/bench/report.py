"""How benchmarks choose peers, interleave them, print and keep what they measured."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.support import peers
from tests.support.netns import available
from tests.support.peers import Implementation

ROOT = Path(__file__).resolve().parents[2]
Rounds = dict[str, dict[str, list[float]]]  # implementation -> measure -> one value a round


@dataclass(frozen=True)
class Measure:
    """One column: its key, its heading, how to print a value, which way is better."""

    key: str
    heading: str
    layout: str = "{:.2f}"
    lower_is_better: bool = True


@dataclass(frozen=True)
class Goal:
    """`ours / peer` (or its inverse where more is better) must be at most `at_most`."""

    measure: str
    peer: str
    at_most: float


class Resident(Protocol):
    """Whatever has a resident size."""

    def rss_kib(self) -> int: ...


class PeakRss:
    """The highest resident size of any of some programs while the block runs, MiB."""

    def __init__(self, *programs: Resident) -> None:
        self._programs = programs
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.mib = 0.0

    def _watch(self) -> None:
        # At the end once more: a block may be over before the second look.
        last = False
        while not last:
            last = self._stop.wait(0.05)
            self.mib = max(self.mib, *(p.rss_kib() / 1024 for p in self._programs))

    def __enter__(self) -> PeakRss:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def median(values: Sequence[float]) -> float:
    """Return the median, nan of nothing."""
    return statistics.median(values) if values else float("nan")


def cpu_model() -> str:
    """Return the CPU's name and the SIMD sets that matter here."""
    try:
        info = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.machine()
    fields = dict(line.split(":", 1) for line in info.split("\n\n")[0].splitlines() if ":" in line)
    fields = {k.strip(): v.strip() for k, v in fields.items()}
    flags = set(fields.get("flags", fields.get("Features", "")).split())
    found = [f for f in ("avx2", "avx512f", "avx512ifma", "neon", "asimd") if f in flags]
    return f"{fields.get('model name', platform.machine())} ({', '.join(found) or 'no SIMD'})"


def table(rounds: Rounds, measures: Sequence[Measure]) -> str:
    """Return a Markdown table of medians, one row an implementation."""
    head = ["", *(m.heading for m in measures)]
    rows = [head, ["---"] * len(head)]
    for name, values in rounds.items():
        cells = [m.layout.format(median(values.get(m.key, []))) for m in measures]
        rows.append([name, *cells])
    widths = [max(len(r[i]) for r in rows) for i in range(len(head))]
    return "\n".join(
        "| " + " | ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)) + " |" for r in rows
    )


def ratio(rounds: Rounds, measure: Measure, ours: str, peer: str) -> float:
    """Return ours/peer, inverted where more is better: below 1 is better than the peer."""
    a = median(rounds[ours].get(measure.key, []))
    b = median(rounds[peer].get(measure.key, []))
    top, bottom = (a, b) if measure.lower_is_better else (b, a)
    return top / bottom if bottom else float("nan")


def verdicts(
    rounds: Rounds, measures: Sequence[Measure], goals: Sequence[Goal], ours: str
) -> list[str]:
    """Return one line a goal: reached or not, with the figure."""
    by_key = {m.key: m for m in measures}
    lines = []
    for goal in goals:
        if goal.peer not in rounds:
            lines.append(f"not measured: {goal.measure} against {goal.peer} (peer absent)")
            continue
        value = ratio(rounds, by_key[goal.measure], ours, goal.peer)
        word = "reached" if value <= goal.at_most else "NOT reached"
        lines.append(
            f"{word}: {by_key[goal.measure].heading} 1/{1 / value:.2f} of {goal.peer}"
            f" (goal 1/{1 / goal.at_most:.2f})"
        )
    return lines


def arguments(description: str | None) -> argparse.ArgumentParser:
    """Return the options that every benchmark against peers has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", action="append", help="measure implementations whose name has it")
    parser.add_argument("--keep", action="store_true", help="write the result to docs/bench/")
    parser.add_argument("--json", action="store_true", help="print all values as JSON")
    return parser


def choose(only: Sequence[str] | None) -> dict[str, Implementation]:
    """Return the implementations that can be had here; exit where none can be measured."""
    if not available():
        print("this benchmark needs root, ip and /dev/net/tun", file=sys.stderr)
        raise SystemExit(3)
    return {
        name: found
        for name, factory in peers.FACTORIES.items()
        if (not only or any(o in name for o in only)) and (found := factory())
    }


def keep(name: str, title: str, text: str, rounds: Rounds) -> None:
    """Write docs/bench/NAME.md and .json: the last result, with the machine it is from."""
    folder = ROOT / "docs" / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    head = f"# {title}\n\n{cpu_model()}, kernel {platform.release()}\n\n"
    (folder / f"{name}.md").write_text(head + text + "\n")
    (folder / f"{name}.json").write_text(json.dumps(rounds, indent=1) + "\n")


def interleave(
    names: Sequence[str],
    rounds: int,
    measure: Callable[[str], dict[str, float]],
) -> Rounds:
    """Measure every implementation once a round, in turn; return all values."""
    result: Rounds = {name: {} for name in names}
    for number in range(rounds):
        for name in names:
            values = measure(name)
            for key, value in values.items():
                result[name].setdefault(key, []).append(value)
            shown = "  ".join(f"{k}={v:.3g}" for k, v in values.items())
            print(f"round {number + 1}/{rounds}  {name:20} {shown}", file=sys.stderr, flush=True)
    return result
