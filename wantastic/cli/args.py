"""The command line as a value: pure, and the same for one dash and two.

    parse_args(argv, environ) -> a command, or UsageError

Three forms:
    wantasticd -config FILE [flags]      the agent
    wantasticd [-f] NAME                 one interface, in wireguard-go's form
    wantasticd SUBCOMMAND [flags]        demo, and what other rooms register
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from wantastic.config.model import ForwardConfig, ForwardEnd


class UsageError(Exception):
    """The arguments make no sense together; the text says which and what to do."""


@dataclass(frozen=True, slots=True)
class Run:
    """Run the agent. The control plane acts on what is about enrolment."""

    config_path: str = ""
    auth_url: str = ""
    token: str = field(default="", repr=False)
    token_file: str = ""
    exit_node: bool = False
    forwards: tuple[ForwardConfig, ...] = ()
    verbosity: int = 0

    @property
    def enrols(self) -> bool:
        """Whether a flag asks to register with a control server."""
        return bool(self.auth_url or self.token or self.token_file)


@dataclass(frozen=True, slots=True)
class Check:
    """Judge a configuration and end."""

    config_path: str
    json: bool = False


@dataclass(frozen=True, slots=True)
class ShowStatus:
    """Ask a running agent how it is; of `interface`, or the one of `config_path`, or all."""

    config_path: str = ""
    interface: str = ""
    json: bool = False


@dataclass(frozen=True, slots=True)
class Interface:
    """Serve one interface that `wg` configures, as wireguard-go does."""

    name: str
    foreground: bool = False
    tun_fd: int = -1
    uapi_fd: int = -1
    log_level: str = "error"
    keep_output: bool = False
    name_file: str = ""


@dataclass(frozen=True, slots=True)
class Subcommand:
    """Hand the rest of the arguments to a subcommand."""

    name: str
    arguments: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Help:
    """Print the help."""


@dataclass(frozen=True, slots=True)
class Version:
    """Print the version."""


Command: TypeAlias = Run | Check | ShowStatus | Interface | Subcommand | Help | Version

# Name -> module with `run(arguments: Sequence[str]) -> int`, imported when it is used.
SUBCOMMANDS: dict[str, str] = {
    "demo": "wantastic.cli.demo",
    "nc": "wantastic.cli.nc",
    "conformance": "wantastic.control.conformance",
    "selftest": "wantastic.cli.selftest",
}

VALUE_FLAGS = {"config", "auth-url", "token", "token-file", "interface"}
# As ssh's: these may be given more than once.
FORWARD_FLAGS: dict[str, ForwardEnd] = {"L": "local", "R": "tunnel"}
SWITCHES = {
    "check": "check",
    "status": "status",
    "json": "json",
    "v": "v",
    "vv": "vv",
    "version": "version",
    "help": "help",
    "h": "help",
    "exit-node": "exit-node",
    "f": "foreground",
    "foreground": "foreground",
}
# wireguard-go's LOG_LEVEL; what it does not know counts as error.
LOG_LEVELS = {"verbose": "debug", "debug": "debug", "info": "info", "silent": "silent"}


@dataclass(slots=True)
class _Found:
    values: dict[str, str] = field(default_factory=dict)
    switches: dict[str, int] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)
    forwards: list[tuple[str, str]] = field(default_factory=list)

    def has(self, name: str) -> bool:
        return name in self.switches


def _split(argv: Sequence[str]) -> _Found:
    """Sort arguments into flags with values, switches and words."""
    found, rest = _Found(), list(argv)
    while rest:
        word = rest.pop(0)
        if word == "--":
            found.words += rest
            break
        if not word.startswith("-") or word == "-":
            found.words.append(word)
            continue
        name, equals, value = word.lstrip("-").partition("=")
        if len(word) - len(word.lstrip("-")) > 2 or not name:
            raise UsageError(f"{word[:40]} is not a flag")
        if name in VALUE_FLAGS or name in FORWARD_FLAGS:
            if not equals:
                if not rest:
                    raise UsageError(f"-{name} needs a value")
                value = rest.pop(0)
            if not value:
                raise UsageError(f"-{name} needs a value that is not empty")
            if name in FORWARD_FLAGS:
                found.forwards.append((name, value))
                continue
            if name in found.values:
                raise UsageError(f"-{name} is given twice")
            found.values[name] = value
        elif name in SWITCHES:
            if equals:
                raise UsageError(f"-{name} takes no value")
            name = SWITCHES[name]
            found.switches[name] = found.switches.get(name, 0) + 1
        else:
            raise UsageError(_unknown(name))
    return found


def _unknown(name: str) -> str:
    import difflib

    near = difflib.get_close_matches(name, [*VALUE_FLAGS, *FORWARD_FLAGS, *SWITCHES], n=1)
    return f"-{name[:40]} is not a flag" + (f"; did you mean -{near[0]}?" if near else "")


def parse_args(argv: Sequence[str], environ: Mapping[str, str]) -> Command:
    """Return what the arguments (without the program's name) ask for."""
    if argv and argv[0] in SUBCOMMANDS:
        return Subcommand(argv[0], tuple(argv[1:]))
    found = _split(argv)
    if found.has("help"):
        return Help()
    if found.has("version"):
        return Version()
    if found.words:
        return _interface(found, environ)
    if found.has("foreground"):
        raise UsageError("-f needs the name of an interface: wantasticd -f wg0")
    config = found.values.get("config", "")
    if found.has("status"):
        _only(found, "-status", {"config", "interface"}, {"status", "json", "v", "vv"})
        return ShowStatus(config, found.values.get("interface", ""), found.has("json"))
    if "interface" in found.values:
        raise UsageError("-interface belongs to -status; the configuration names the interface")
    if found.has("check"):
        if not config:
            raise UsageError("-check needs -config FILE")
        _only(found, "-check", {"config"}, {"check", "json", "v", "vv"})
        return Check(config, found.has("json"))
    if found.has("json"):
        raise UsageError("-json belongs to -status or -check")
    return _run(found)


def _only(found: _Found, flag: str, values: set[str], switches: set[str]) -> None:
    wrong = [*(set(found.values) - values), *(set(found.switches) - switches)]
    wrong += [name for name, _ in found.forwards]
    if wrong:
        raise UsageError(f"{flag} and -{wrong[0]} do not go together")


def _forwards(found: _Found) -> tuple[ForwardConfig, ...]:
    """Return what -L and -R say."""
    if not found.forwards:
        return ()
    # What -version and -help can do without.
    from wantastic.config.access import MAX_FORWARDS, parse_forward, place_of

    forwards: dict[object, ForwardConfig] = {}
    for name, text in found.forwards:
        try:
            forward = parse_forward(FORWARD_FLAGS[name], text)
        except ValueError as error:
            raise UsageError(f"-{name} {text[:80]}: {error}") from None
        if place_of(forward) in forwards:
            raise UsageError(f"-{name} {text[:80]}: another one listens there")
        forwards[place_of(forward)] = forward
    if len(forwards) > MAX_FORWARDS:
        raise UsageError(f"{len(forwards)} forwards; at most {MAX_FORWARDS} are possible")
    return tuple(forwards.values())


def _run(found: _Found) -> Run:
    run = Run(
        config_path=found.values.get("config", ""),
        auth_url=found.values.get("auth-url", ""),
        token=found.values.get("token", ""),
        token_file=found.values.get("token-file", ""),
        exit_node=found.has("exit-node"),
        forwards=_forwards(found),
        verbosity=found.switches.get("v", 0) + 2 * found.switches.get("vv", 0),
    )
    if run.token == "-":
        # Standard input, as the path that the control plane reads it from.
        run = replace(run, token="", token_file="/dev/stdin")
        if "token-file" in found.values:
            raise UsageError("-token and -token-file do not go together")
    if sum(map(bool, (run.auth_url, run.token, run.token_file))) > 1:
        raise UsageError("-auth-url, -token and -token-file do not go together: give one")
    if run.auth_url and not run.auth_url.startswith("https://"):
        raise UsageError('-auth-url needs an address that begins with "https://"')
    if not run.config_path and not run.enrols:
        raise UsageError("nothing to do: give -config FILE, or see -help")
    return run


def _interface(found: _Found, environ: Mapping[str, str]) -> Interface:
    """wireguard-go's form: one name, -f, and the environment."""
    # Not at the top: -version and -status would import the whole model of the configuration.
    from wantastic.config.values import is_interface_name

    _only(found, found.words[0][:40], set(), {"foreground"})
    if len(found.words) > 1:
        raise UsageError(f"{found.words[1][:40]}: only one interface name is possible")
    name = found.words[0]
    if not is_interface_name(name):
        raise UsageError(f"{name[:40]} cannot be the name of an interface")
    level = environ.get("LOG_LEVEL", "")
    return Interface(
        name=name,
        foreground=found.has("foreground") or environ.get("WG_PROCESS_FOREGROUND") == "1",
        tun_fd=_descriptor(environ, "WG_TUN_FD"),
        uapi_fd=_descriptor(environ, "WG_UAPI_FD"),
        log_level=LOG_LEVELS.get(level.lower(), "error"),
        keep_output=bool(level) and level.lower() != "silent",
        name_file=environ.get("WG_TUN_NAME_FILE", ""),
    )


def _descriptor(environ: Mapping[str, str], name: str) -> int:
    text = environ.get(name, "")
    if not text:
        return -1
    if not (text.isascii() and text.isdigit()) or len(text) > 9:
        raise UsageError(f"{name} must be the number of an open file descriptor")
    return int(text)
