"""Two stacks joined by an impaired link each way, run natively in virtual time."""

from typing import Literal

from cext.netstack.testing import Stack

class Network:
    """Stacks a and b and a link each way; everything follows from the seeds."""

    a: Stack
    b: Stack
    now_ns: int

    def __init__(self, a: Stack, b: Stack, seed: int = 1) -> None: ...
    def impair(
        self,
        which: Literal["ab", "ba", "both"] = "both",
        delay_ms: float = 0.0,
        jitter_ms: float = 0.0,
        rate_mbit: float = 0.0,
        queue_bytes: int = 0,
        loss: float = 0.0,
        duplicate: float = 0.0,
        reorder: float = 0.0,
        reorder_ms: float = 0.0,
        corrupt: float = 0.0,
    ) -> None:
        """Set a link. Probabilities from 0 to 1; 0 Mbit/s is unlimited."""

    def link_status(self) -> dict[str, tuple[int, int, int]]:
        """For each link: packets offered, lost, and refused by a full simulation."""

    def run(
        self,
        seconds: float | None = None,
        until_finished: int = 0,
        check: bool = False,
        max_steps: int = 0,
    ) -> float:
        """Run until the time is over, so many native flows of `a` ended, or nothing is left.

        Returns the virtual seconds that passed. `check` looks at the invariants after each
        step and raises AssertionError.
        """
