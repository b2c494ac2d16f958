"""The program's entry: arguments to a command, the command to its file, errors to statuses.

Only what a command needs is imported, and only then: `-version` has to be quick on a
600 MHz router.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from wantastic.cli import args, exits


def _help(command: args.Help) -> int:
    from wantastic.cli.help import HELP

    sys.stdout.write(HELP)
    return exits.OK


def _version(command: args.Version) -> int:
    from wantastic.version import VERSION

    sys.stdout.write(f"wantasticd {VERSION}\n")
    return exits.OK


def _run(command: args.Run) -> int:
    from wantastic.cli.run import run

    return run(command)


def _check(command: args.Check) -> int:
    from wantastic.cli.check import check

    return check(command)


def _status(command: args.ShowStatus) -> int:
    from wantastic.cli.status import show_status

    return show_status(command)


def _interface(command: args.Interface) -> int:
    from wantastic.cli.interface import run_interface

    return run_interface(command)


def _subcommand(command: args.Subcommand) -> int:
    try:
        module = import_module(args.SUBCOMMANDS[command.name])
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("wantastic."):
            raise
        sys.stderr.write(f"wantasticd: this build has no {command.name}\n")
        return exits.NOT_BUILT_IN
    # The executable starts without (buildroot/static/runtime/quick.py); subcommands may last.
    gc.enable()
    status: int = module.run(command.arguments)
    return status


COMMANDS: dict[type, Callable[..., int]] = {
    args.Help: _help,
    args.Version: _version,
    args.Run: _run,
    args.Check: _check,
    args.ShowStatus: _status,
    args.Interface: _interface,
    args.Subcommand: _subcommand,
}


def _say_end(text: str, arguments: Sequence[str]) -> None:
    from wantastic.telemetry.log import Log

    log = Log()
    # A token in the wrong place is part of what is said; whoever reads syslog must not have it.
    values = (word.partition("=")[2] if word.startswith("-") else word for word in arguments)
    log.hide(*(part for value in values for part in (value, value[:80], value[:40])))
    log.say_end(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; return its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if not arguments:
            raise args.UsageError("nothing to do")
        command = args.parse_args(arguments, os.environ)
        return COMMANDS[type(command)](command)
    except args.UsageError as error:
        from wantastic.cli.help import USAGE

        _say_end(f"wantasticd: {error}", arguments)
        sys.stderr.write(f"\n{USAGE}\nwantasticd -help tells more.\n")
        return exits.USAGE
    except KeyboardInterrupt:
        return exits.OK
    except BrokenPipeError:
        # Whoever read our output has gone, as `| head` does; there is nobody to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return exits.OK
    except Exception as error:
        if {"-v", "--v", "-vv", "--vv"} & set(arguments):
            raise
        kind = type(error).__name__
        _say_end(f"wantasticd: {kind}: {error}. With -v it tells where.", arguments)
        return exits.FAILED


if __name__ == "__main__":
    sys.exit(main())
