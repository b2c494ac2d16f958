"""The terminal's foreground, so that Ctrl-C means us and not also `make`, which would call it
a failure."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def foreground() -> Iterator[None]:
    """Have the terminal's keys sent to a process group of our own while the block runs.

    Nothing is done without a terminal, or when we lead our group: then a shell started us.
    """
    before = os.getpgrp()
    try:
        mine = sys.stdin.isatty() and before != os.getpid() and os.tcgetpgrp(0) == before
    except (OSError, ValueError):
        mine = False
    if not mine:
        yield
        return
    # In the background, tcsetpgrp() would stop us. Ctrl-Z would leave `make` waiting.
    for number in (signal.SIGTTOU, signal.SIGTSTP):
        signal.signal(number, signal.SIG_IGN)
    os.setpgid(0, 0)
    os.tcsetpgrp(0, os.getpgrp())
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.tcsetpgrp(0, before)
