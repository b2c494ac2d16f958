"""The command `wantastic-server`: arguments, the operator's subcommands, serving.

Exit codes: 0 done, 1 refused or failed (the reason is on standard error), 2 wrong usage.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

from wantastic.server import commands, logs, settings
from wantastic.server.commands import Command, Row
from wantastic.server.database import Database, DatabaseError
from wantastic.server.keyring import KeyringError
from wantastic.server.records import GatewayError, Refused
from wantastic.server.settings import Settings, SettingsError, Terms

DATABASE_VARIABLE = "WANTASTIC_DATABASE"
UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
HIDDEN_IN_TABLES = frozenset({"settings", "public_key", "tenant_id"})


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit code."""
    args = _parser().parse_args(arguments)
    try:
        if args.run is None:
            return _serve(args)
        return _operate(args)
    except (Refused, DatabaseError, KeyringError, SettingsError, GatewayError) as error:
        print(f"wantastic-server: {error}", file=sys.stderr)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"wantastic-server: {where}{error.strerror or error}", file=sys.stderr)
    return 1


def duration(text: str) -> int:
    """Read 90s, 15m, 24h or 7d as seconds."""
    match = re.fullmatch(r"(\d{1,9})([smhd])", text)
    if match is None or not int(match[1]):
        raise argparse.ArgumentTypeError(f"{text!r}: write 90s, 15m, 24h or 7d")
    return int(match[1]) * UNITS_S[match[2]]


def count(text: str) -> int:
    """Read a number that may be 0."""
    if not text.isdecimal() or len(text) > 9:
        raise argparse.ArgumentTypeError(f"{text!r}: write a number, 0 or more")
    return int(text)


def _serve(args: argparse.Namespace) -> int:
    logs.configure(args.log_level, as_json=args.log_format == "json")
    wanted = _settings(args)
    wanted.check()
    # Imported here: the operator's commands need neither gRPC nor an event loop.
    from wantastic.server.app import App

    app = App(wanted)
    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    with contextlib.suppress(ImportError):
        # A fifth less CPU for each call; nothing depends on it.
        factory = importlib.import_module("uvloop").new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(app.run(announce=args.json))
    return 0


def _operate(args: argparse.Namespace) -> int:
    if args.run is _ca:
        print((args.state / settings.ROOT_CERTIFICATE_FILE).read_text(), end="")
        return 0
    database = Database.open(_database(args))
    try:
        if args.run is _migrate:
            database.migrate()
            rows: list[Row] = [{"database": database.shown_url, "migrated": True}]
        elif args.run is _restored:
            database.check_schema()
            database.new_epoch()
            rows = [{"database": database.shown_url, "etags_renewed": True}]
        else:
            if database.kind == "sqlite":
                database.migrate()
            else:
                database.check_schema()
            with database.write() as transaction:
                rows = args.run(transaction, args)
    finally:
        database.close()
    _show(rows, as_json=args.json)
    return 0


def _show(rows: list[Row], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    if not rows:
        print("none")
        return
    if len(rows) == 1 and "token" in rows[0]:
        # Alone on standard output, so that a script can take it as it is.
        print(rows[0].pop("token"))
        details = ", ".join(f"{k} {v}" for k, v in rows[0].items() if v not in ("", None))
        print(details, file=sys.stderr)
        return
    columns = [name for name in rows[0] if name not in HIDDEN_IN_TABLES]
    cells = [columns, *[[_cell(row[name]) for name in columns] for row in rows]]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    for line in cells:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        )


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = "" if value is None else str(value)
    # What a device said about itself must not move an operator's cursor.
    return "".join(c for c in text if c.isprintable()) or "-"


def _database(args: argparse.Namespace) -> str:
    """A URL may hold a password, which has no place among the arguments."""
    if args.database:
        return str(args.database)
    from_environment = os.environ.get(DATABASE_VARIABLE)
    if from_environment:
        return from_environment
    args.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    return str(args.state / settings.DATABASE_FILE)


def _settings(args: argparse.Namespace) -> Settings:
    def address(text: str | None, name: str) -> settings.Address | None:
        return None if text in (None, "off") else settings.parse_address(str(text), name)

    listen = settings.parse_address(args.listen, "--listen")
    default_host = "localhost" if listen.host in ("0.0.0.0", "::") else listen.host
    return Settings(
        state=args.state,
        database=_database(args),
        listen=listen,
        mtls_listen=address(args.mtls_listen, "--mtls-listen"),
        http_listen=address(args.http_listen, "--http-listen"),
        metrics_listen=address(args.metrics_listen, "--metrics-listen"),
        hosts=tuple(args.host or (default_host,)),
        public_url=args.public_url,
        tls_certificate=args.tls_cert,
        tls_key=args.tls_key,
        insecure=args.insecure,
        gateway=args.gateway,
        gateway_host=args.gateway_host or (args.host or [""])[0] or default_host,
        gateway_port=args.gateway_port,
        gateway_tun=args.gateway_tun,
        gateway_forwards=tuple(
            settings.parse_forward(text, "--gateway-forward") for text in args.gateway_forward
        ),
        terms=Terms(
            token_lifetime_s=args.token_lifetime,
            refresh_grace_s=args.refresh_grace,
            poll_after_s=args.poll_after,
        ),
        drain_s=args.drain,
    )


def _migrate() -> None:
    """Stands for `database migrate`."""


def _restored() -> None:
    """Stands for `database restored`."""


def _ca() -> None:
    """Stands for `ca`."""


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--state",
        type=Path,
        default=settings.DEFAULT_STATE,
        metavar="DIR",
        help="folder of the key file and the SQLite database (default: %(default)s)",
    )
    common.add_argument(
        "--database",
        metavar="URL",
        help=f"sqlite:///PATH or postgresql://USER@HOST/NAME; ${DATABASE_VARIABLE} when it "
        "holds a password (default: server.db in the state folder)",
    )
    common.add_argument("--json", action="store_true", help="print JSON")
    parser = argparse.ArgumentParser(
        prog="wantastic-server", description="The control server and gateway of wantasticd."
    )
    rooms = parser.add_subparsers(dest="room", required=True, metavar="COMMAND")
    _serve_parser(rooms.add_parser("serve", parents=[common], help="run the server"))
    _ca_parser = rooms.add_parser("ca", parents=[common], help="print the root certificate")
    _ca_parser.set_defaults(run=_ca)

    def room(name: str, text: str) -> argparse._SubParsersAction[argparse.ArgumentParser]:
        made = rooms.add_parser(name, help=text)
        return made.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(
        where: argparse._SubParsersAction[argparse.ArgumentParser],
        name: str,
        run: Command,
        *positional: str,
        tenant: str = "",
    ) -> argparse.ArgumentParser:
        made = where.add_parser(name, parents=[common], help=run.__doc__)
        for argument in positional:
            made.add_argument(argument)
        if tenant:
            made.add_argument("--tenant", default="", help=tenant)
        made.set_defaults(run=run)
        return made

    where = room("tenant", "customers: their ranges and settings")
    made = action(where, "create", commands.tenant_create, "name")
    made.add_argument("--ipv4", default="", metavar="RANGE")
    made.add_argument("--ipv6", default="", metavar="RANGE")
    made.add_argument("--approval", action="store_true", help="devices wait for approval")
    made.add_argument("--max-devices", type=count, default=0, metavar="N", help="0: no limit")
    made.add_argument("--settings", type=Path, metavar="FILE")
    action(where, "list", commands.tenant_list)
    made = action(where, "set", commands.tenant_set, "name")
    made.add_argument("--approval", action=argparse.BooleanOptionalAction)
    made.add_argument("--max-devices", type=count, metavar="N", help="0: no limit")
    made.add_argument("--settings", type=Path, metavar="FILE")

    where = room("token", "enrolment tokens")
    made = action(where, "create", commands.token_create, tenant="whose devices it lets in")
    made.add_argument("--reusable", action="store_true", help="lets in more than one device")
    made.add_argument("--uses", type=int, help="how many devices at most")
    made.add_argument("--lifetime", type=duration, default="24h", help="default: %(default)s")
    made.add_argument("--label", default="", help="for people")
    made.add_argument("--device", default="", metavar="ID", help="only this device_id")
    action(where, "list", commands.token_list, tenant="only its tokens")
    action(where, "revoke", commands.token_revoke, "id")

    where = room("device", "registered devices")
    made = action(where, "list", commands.device_list, tenant="only its devices")
    made.add_argument("--pending", action="store_true", help="only those that wait")
    action(where, "approve", commands.device_approve, "name", tenant="which one it joins")
    action(where, "remove", commands.device_remove, "name", tenant="whose device is meant")
    action(where, "revoke", commands.device_revoke, "name", tenant="whose device is meant")
    made = action(where, "rekey", commands.device_rekey, "name", tenant="whose device is meant")
    when = made.add_mutually_exclusive_group()
    when.add_argument("--within", type=duration, default="24h", help="default: %(default)s")
    when.add_argument("--withdraw", action="store_true", help="take the order back")

    where = room("operator", "people who approve devices on the page")
    action(where, "create", commands.operator_create, "name", tenant="only for it")
    action(where, "list", commands.operator_list)
    action(where, "remove", commands.operator_remove, "name")

    where = room("gateway", "where tunnels end")
    made = action(where, "set", commands.gateway_set)
    made.add_argument("--name", default="default")
    made.add_argument("--public-key", required=True)
    made.add_argument("--endpoint", required=True, metavar="HOST:PORT")
    action(where, "list", commands.gateway_list)

    where = room("database", "schema and backups")
    for name, run, text in (
        ("migrate", _migrate, "bring the schema to this version"),
        ("restored", _restored, "after restoring a backup: make every device ask anew"),
    ):
        made = where.add_parser(name, parents=[common], help=text)
        made.set_defaults(run=run)
    return parser


def _serve_parser(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--listen", default="0.0.0.0:8443", metavar="HOST:PORT", help="gRPC (%(default)s)")
    add("--mtls-listen", metavar="HOST:PORT", help="gRPC that demands a device's certificate")
    add("--http-listen", metavar="HOST:PORT", help="device flow and approval page (off)")
    add("--public-url", default="", metavar="URL", help="how browsers reach --http-listen")
    add("--metrics-listen", metavar="HOST:PORT", help="/metrics and /healthz, plaintext (off)")
    add("--host", action="append", metavar="NAME", help="name or address in the certificate")
    add("--tls-cert", type=Path, metavar="FILE", help="PEM chain (default: from our own CA)")
    add("--tls-key", type=Path, metavar="FILE")
    add("--insecure", action="store_true", help="no TLS; loopback only")
    add("--gateway", default="", help="device, or wg:INTERFACE (none)")
    add("--gateway-host", default="", metavar="NAME", help="where devices reach the gateway")
    add("--gateway-port", type=int, default=51820, help="UDP port of --gateway device")
    add("--gateway-tun", default="", metavar="NAME", help="TUN device of --gateway device (none)")
    add(
        "--gateway-forward",
        action="append",
        default=[],
        metavar="PORT=ADDRESS:PORT",
        help="with --gateway device: let devices reach a TCP service at a port of the gateway's "
        "tunnel address; may be repeated",
    )
    add("--token-lifetime", type=duration, default="24h", help="default: %(default)s")
    add("--refresh-grace", type=duration, default="30d", help="default: %(default)s")
    add("--poll-after", type=duration, default="5m", help="default: %(default)s")
    add("--drain", type=float, default=10.0, metavar="SECONDS", help="default: %(default)s")
    add("--log-format", choices=("text", "json"), default="text")
    add("--log-level", choices=("debug", "info", "warning", "error"), default="info")
    parser.set_defaults(run=None)


if __name__ == "__main__":
    sys.exit(main())
