"""An asyncio loop whose clock jumps to the next timer, so that days pass in milliseconds.

Only for what waits on timers and futures; sockets and threads have no virtual time.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _JumpingSelector(selectors.SelectSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise RuntimeError("everything waits, and no timer is left")
        ready = super().select(0)
        if not ready and timeout > 0:
            self.now_s += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """time() is virtual and starts at 0; `wall()` starts at a plausible date."""

    WALL_START_S = 1_790_000_000.0

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)
        self.wall_jump_s = 0.0

    def time(self) -> float:
        return self._jumping.now_s

    def wall(self) -> float:
        return self.WALL_START_S + self.time() + self.wall_jump_s


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in virtual time to its end."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


def wall() -> float:
    """Return the running loop's wall clock."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return loop.wall()
