"""Structured logs: a level, a message, fields; as text or JSON; never with a secret in them.

Every line is made by one function, render(), and passes one filter on the way:
  - fields whose name says that they are secret show "(hidden)";
  - anything that looks like a WireGuard key in base64 or hexadecimal shows "(key)".
    A public key is logged as short_key(): enough to tell peers apart;
  - the values given to hide() (tokens) are replaced wherever they appear.
"""

from __future__ import annotations

import json
import os
import re
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from wantastic.config.keys import encode_key
from wantastic.config.model import LOG_LEVELS, LogConfig, LogLevel

Field: TypeAlias = object
Sink: TypeAlias = Callable[[LogLevel, str], None]

HIDDEN = "(hidden)"
SECRET_FIELDS = re.compile(r"key|psk|token|secret|password|authorization|cookie", re.IGNORECASE)
# Fields that the rule above would hide although they are for everybody.
PUBLIC_FIELDS = frozenset({"public_key", "peer", "key_file"})
_KEY = re.compile(
    r"(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{43}=|(?<![0-9A-Fa-f])[0-9A-Fa-f]{64}(?![0-9A-Fa-f])"
)
_BEARER = re.compile(r"(?i)\bbearer\s+\S+")
_PLAIN = re.compile(r"[A-Za-z0-9_./:%+@,()\[\]-]+\Z")
_MAX_LINE = 2000

# RFC 5424 severities, with facility 3 (system daemons).
SYSLOG_PRIORITY = {"error": 27, "warning": 28, "info": 30, "debug": 31, "trace": 31}
SYSLOG_SOCKET = "/dev/log"


def short_key(public_key: bytes) -> str:
    """Return the first characters of a public key: what logs call a peer."""
    return encode_key(public_key)[:8] + "..."


def render_text(level: str, message: str, fields: dict[str, str], unix_ns: int) -> str:
    """Return `TIME level message name=value ...`."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(unix_ns // 10**9))
    parts = [f"{stamp}.{unix_ns // 10**6 % 1000:03d}Z {level:7} {message}"]
    for name, value in fields.items():
        parts.append(f"{name}={value if _PLAIN.match(value) else json.dumps(value)}")
    return " ".join(parts)


def render_json(level: str, message: str, fields: dict[str, str], unix_ns: int) -> str:
    """Return one JSON object on one line."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(unix_ns // 10**9))
    stamp += f".{unix_ns // 10**6 % 1000:03d}Z"
    return json.dumps({"time": stamp, "level": level, "message": message} | fields)


RENDERERS = {"text": render_text, "json": render_json}


class Log:
    """Where the rooms write; one object for the whole process."""

    def __init__(
        self,
        config: LogConfig | None = None,
        sink: Sink | None = None,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._secrets: tuple[str, ...] = ()
        self._clock_ns = clock_ns
        self._own_sink = sink
        self.configure(config or LogConfig())

    def configure(self, config: LogConfig) -> None:
        """Change level, format and target while running."""
        self.level = config.level
        self._rank = LOG_LEVELS.index(config.level)
        self._render = RENDERERS[config.format]
        self._sink = self._own_sink or open_sink(config.target)

    def say_end(self, text: str) -> None:
        """Say why the process ends, in lines: on standard error, and where it is for the log.

        An init system starts daemons with standard error on the null device; what they say there
        is lost, and before the configuration is read nobody knows of another place. So syslog
        has it then, too.
        """
        to_stderr("error", text)
        if not isinstance(self._sink, SyslogSink):
            if self._own_sink or not leads_nowhere(2):
                return
            self._sink = open_sink("syslog")
        for line in text.splitlines():
            self.error(line.removeprefix("wantasticd: "))

    def hide(self, *secrets: str) -> None:
        """Never let these appear, wherever they come from; short ones are not worth it."""
        self._secrets += tuple(s for s in secrets if len(s) >= 4 and s not in self._secrets)

    def wants(self, level: LogLevel) -> bool:
        """Return whether a line of this level would be written."""
        return LOG_LEVELS.index(level) <= self._rank

    def write(self, level: LogLevel, message: str, fields: dict[str, Field]) -> None:
        """Write one line, if the level is wanted."""
        if not self.wants(level):
            return
        shown = {name: self._field(name, value) for name, value in fields.items()}
        line = self._render(level, self._filter(message), shown, self._clock_ns())
        self._sink(level, line[:_MAX_LINE])

    def _field(self, name: str, value: Field) -> str:
        if name not in PUBLIC_FIELDS and SECRET_FIELDS.search(name):
            return HIDDEN
        if isinstance(value, bytes):
            return short_key(value) if name in PUBLIC_FIELDS else HIDDEN
        return self._filter(str(value))

    def _filter(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        text = _BEARER.sub("Bearer " + HIDDEN, _KEY.sub("(key)", text))
        # A line is a line: what others put into a value must not forge another one.
        return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)

    def error(self, message: str, **fields: Field) -> None:
        """Something the user asked for does not work."""
        self.write("error", message, fields)

    def warning(self, message: str, **fields: Field) -> None:
        """It works, but not as asked."""
        self.write("warning", message, fields)

    def info(self, message: str, **fields: Field) -> None:
        """What an operator wants to read afterwards."""
        self.write("info", message, fields)

    def debug(self, message: str, **fields: Field) -> None:
        """What a developer wants to read."""
        self.write("debug", message, fields)

    def trace(self, message: str, **fields: Field) -> None:
        """Single events of the data path's control side."""
        self.write("trace", message, fields)


def open_sink(target: str) -> Sink:
    """Return where lines go; syslog falls back to standard error where nobody listens."""
    if target == "syslog":
        try:
            return SyslogSink(SYSLOG_SOCKET)
        except OSError as error:
            to_stderr("warning", f"syslog cannot be reached ({error.strerror}); using stderr")
    return to_stderr


def to_stderr(level: LogLevel, line: str) -> None:
    """Write a line; a closed or full stderr is no reason to stop a tunnel."""
    try:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        pass


def leads_nowhere(descriptor: int) -> bool:
    """Return whether it is closed or the null device."""
    try:
        return os.fstat(descriptor).st_rdev == Path(os.devnull).stat().st_rdev
    except OSError:
        return True


class SyslogSink:
    """Lines to the local syslog daemon (RFC 3164 form), found again after its restart."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._socket = self._connect()

    def _connect(self) -> socket.socket:
        found = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            found.connect(self._path)
        except OSError:
            found.close()
            raise
        return found

    def __call__(self, level: LogLevel, line: str) -> None:
        data = f"<{SYSLOG_PRIORITY[level]}>wantasticd[{os.getpid()}]: {line}".encode()
        for attempt in (1, 2):
            try:
                self._socket.send(data)
                return
            except BlockingIOError:
                return
            except OSError:
                if attempt == 1:
                    try:
                        fresh = self._connect()
                    except OSError:
                        return
                    self._socket.close()
                    self._socket = fresh
