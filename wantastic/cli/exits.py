"""The exit statuses, for docs/cli.md and for whoever reads `$?`."""

from __future__ import annotations

OK = 0
FAILED = 1
USAGE = 2
CONFIG = 3
CANNOT_START = 4
NO_AGENT = 5
UNHEALTHY = 6
NOT_BUILT_IN = 7
STATE = 8

MEANINGS: dict[int, str] = {
    OK: "done; a daemon was ended by a signal or with its interface",
    FAILED: "something unforeseen; the message says what",
    USAGE: "wrong arguments",
    CONFIG: "the configuration is wrong or cannot be read",
    CANNOT_START: "no TUN device, a taken port or name, or no permission",
    NO_AGENT: "-status: no agent runs, or it does not answer",
    UNHEALTHY: "-status: the agent runs with a condition of severity error",
    NOT_BUILT_IN: "asked for what this build does not contain",
    STATE: "the identity cannot be read from or kept in state_dir",
}
