"""`wantasticd -config FILE`: the agent as a process.

The seam to the control plane: where wantastic.agent.runner exists, it gets the whole
Run (configuration, enrolment, exit node) and the log, and returns the exit status.
Without it this file serves the configured tunnel alone, and says so when a flag asks
for more.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec

from wantastic.cli import exits
from wantastic.cli.args import Run
from wantastic.config.access import add_forwards
from wantastic.config.errors import ConfigError
from wantastic.config.model import Config, LogLevel
from wantastic.telemetry.log import Log

AGENT = "wantastic.agent"
RUNNER = f"{AGENT}.runner"
VERBOSE: tuple[LogLevel | None, ...] = (None, "debug", "trace")


def override_of(command: Run) -> Callable[[Config], Config]:
    """Return what the flags change in a configuration, also after each reload."""
    level = VERBOSE[min(command.verbosity, 2)]

    def override(config: Config) -> Config:
        if level:
            config = replace(config, log=replace(config.log, level=level))
        if command.exit_node:
            config = replace(config, exit_node=replace(config.exit_node, enabled=True))
        if command.forwards:
            forwards = add_forwards(config.forwards, command.forwards)
            config = replace(config, forwards=forwards)
        return config

    return override


def run(command: Run) -> int:
    """Run the agent until it is told to end."""
    log = Log()
    log.hide(command.token)
    if command.token:
        log.warning("other users can see -token while this runs; -token-file hides it")
    # Of the package: to look for a module in one that is missing is an error.
    if find_spec(AGENT):
        status: int = import_module(RUNNER).run(command, override_of(command), log)
        return status
    if command.enrols or not command.config_path:
        sys.stderr.write(
            "wantasticd: this build cannot enrol with a control server. "
            "Give -config FILE with the tunnel's server and keys.\n"
        )
        return exits.NOT_BUILT_IN
    return serve_config(command, log)


def serve_config(command: Run, log: Log) -> int:
    """Serve the tunnel of a configuration file."""
    from wantastic.device.service import Plan, serve

    plan = Plan(config_path=command.config_path, override=override_of(command))
    return guard(lambda: asyncio.run(serve(plan, log, ready=lambda: None)), log)


def guard(action: Callable[[], None], log: Log) -> int:
    """Do something that may fail in known ways; return the exit status."""
    from wantastic.device.device import StartError
    from wantastic.store.record import StoreError

    try:
        action()
    except ConfigError as error:
        log.say_end(str(error))
        return exits.CONFIG
    except StoreError as error:
        log.say_end(f"wantasticd: {error}")
        return exits.STATE
    except StartError as error:
        log.say_end(f"wantasticd: {error}")
        return exits.CANNOT_START
    except PermissionError as error:
        log.say_end(f"wantasticd: {error}. Run as root or with CAP_NET_ADMIN.")
        return exits.CANNOT_START
    return exits.OK
