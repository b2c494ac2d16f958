"""Hearing of changes on PostgreSQL: LISTEN on a connection of its own, by psycopg."""

from __future__ import annotations

import contextlib
from typing import Any

import psycopg
from sqlalchemy.engine import URL

from wantastic.server.database import Signal

LISTEN_TIMEOUT_S = 0.5
LISTEN_PROBE_S = 5.0


class PostgresSignal(Signal):
    def __init__(self, url: URL, channel: str) -> None:
        try:
            self._connection = psycopg.connect(**_psycopg_arguments(url), autocommit=True)
            self._connection.execute(f"LISTEN {channel}")
        except psycopg.Error as error:
            raise OSError(str(error)) from error
        self._first = True
        self._silent_s = 0.0

    def wait(self) -> bool:
        # What was committed before LISTEN took effect announced itself to nobody.
        if self._first:
            self._first = False
            return True
        try:
            heard = list(self._connection.notifies(timeout=LISTEN_TIMEOUT_S, stop_after=1))
            self._silent_s = 0.0 if heard else self._silent_s + LISTEN_TIMEOUT_S
            if self._silent_s >= LISTEN_PROBE_S:
                # A dead peer is found out by asking it something.
                self._connection.execute("SELECT 1")
                self._silent_s = 0.0
        except psycopg.Error as error:
            raise OSError(str(error)) from error
        return bool(heard)

    def close(self) -> None:
        with contextlib.suppress(psycopg.Error):
            self._connection.close()


def _psycopg_arguments(url: URL) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "host": url.host,
        "port": url.port,
        "user": url.username,
        "password": url.password,
        "dbname": url.database,
    }
    arguments.update(url.query)
    return {name: value for name, value in arguments.items() if value is not None}
