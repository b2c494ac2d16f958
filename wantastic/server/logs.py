"""Structured logs of the server: one line an event, as text or JSON, on standard error.

Fields are given as `extra`. Nothing secret is ever given: tokens, codes and keys have no
field, and objects that hold them do not show them.
"""

from __future__ import annotations

import json
import logging
import sys
import time

_ORDINARY = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class Formatter(logging.Formatter):
    """Renders a record with its fields."""

    def __init__(self, *, as_json: bool) -> None:
        super().__init__()
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        """Return one line; a traceback becomes a field."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        fields: dict[str, object] = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "room": record.name.removeprefix("wantastic.server."),
            "message": record.getMessage(),
        }
        fields.update({k: v for k, v in vars(record).items() if k not in _ORDINARY})
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        if self._as_json:
            return json.dumps(fields, default=str)
        head = " ".join(str(fields.pop(k)) for k in ("time", "level", "room", "message"))
        # What strangers put into a value must not forge a line.
        return " ".join([head, *(f"{k}={json.dumps(v, default=str)}" for k, v in fields.items())])


def configure(level: str, *, as_json: bool) -> None:
    """Send everything to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Formatter(as_json=as_json))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("alembic", "sqlalchemy", "asyncio", "grpc", "psycopg"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
