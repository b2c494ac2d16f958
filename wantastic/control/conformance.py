"""`wantasticd conformance`: checks anybody's control server against the contract.

One line a rule: `ok`, `FAIL` with what was seen, or `skip` with why (the server does not
offer it, or the rule needs something that was not given). The rules stand in
conformance_rules.py; this file connects, runs them in order, and prints.

A rule that fails does not stop the others, but those that need what it should have
brought are skipped. The devices that are made are called conformance-...; remove them
afterwards.

Exit status: 0 every rule holds or was skipped, 1 a rule fails, 2 wrong arguments,
4 no gRPC server answers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from wantastic.config.model import HostPort
from wantastic.config.values import parse_host_port
from wantastic.control import conformance_rules as rules
from wantastic.control.client import Server
from wantastic.control.conformance_session import Broken, NotOffered, Session
from wantastic.control.diagnose import diagnose
from wantastic.control.enrol import read_token_file
from wantastic.control.errors import ControlError, LocalError
from wantastic.control.resolve import host_lookup
from wantastic.control.tls import read_roots
from wantastic.control.transport import (
    Address,
    Connect,
    ConnectFailed,
    Limits,
    StatusError,
    Tls,
    Transport,
    TransportName,
    load,
)

OK, FAILED, USAGE, NO_SERVER = 0, 1, 2, 4
RULE_S = 20.0
SLOW_RULE_S = 90.0
DEFAULT_PORT = 443


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one rule; `state` is "ok", "fail" or "skip"."""

    rule: str
    text: str
    state: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """Where the server is and how to reach it."""

    server: Server
    connect: Connect

    async def open(self) -> Transport:
        """Connect to the first address that answers. ControlError."""
        at = self.server.at
        try:
            addresses = [Address(host, at.port) for host in await host_lookup(at.host)]
        except OSError:
            raise LocalError("name_not_found", f"No address is known for {at.host}") from None
        name = self.server.server_name or at.host
        tls = None if self.server.insecure else Tls(name, self.server.roots_pem)
        for address in addresses:
            try:
                return await self.connect(address, self.server.authority, tls, Limits())
            except ConnectFailed:
                continue
        raise await diagnose(addresses[0], tls)


async def check(session: Session, *, slow: bool) -> list[Outcome]:
    """Run every rule, in order."""
    outcomes: list[Outcome] = []
    held: set[str] = set()
    for rule in rules.RULES:
        missing = [name for name in rule.needs if name not in held]
        if missing:
            outcome = Outcome(rule.name, rule.text, "skip", f"needs {missing[0]}")
        elif rule.slow and not slow:
            outcome = Outcome(rule.name, rule.text, "skip", "takes a minute; pass --slow")
        else:
            outcome = await _run(rule, session)
        if outcome.state == "ok":
            held.add(rule.name)
        outcomes.append(outcome)
    return outcomes


async def _run(rule: rules.Rule, session: Session) -> Outcome:
    try:
        async with asyncio.timeout(SLOW_RULE_S if rule.slow else RULE_S):
            await rule.check(session)
    except NotOffered as reason:
        return Outcome(rule.name, rule.text, "skip", str(reason))
    except Broken as broken:
        return Outcome(rule.name, rule.text, "fail", str(broken))
    except StatusError as error:
        return Outcome(rule.name, rule.text, "fail", f"the call failed with {error}")
    except ConnectFailed:
        return Outcome(rule.name, rule.text, "fail", "the connection was lost")
    except TimeoutError:
        return Outcome(rule.name, rule.text, "fail", "no answer in time")
    return Outcome(rule.name, rule.text, "ok")


def render(outcomes: Sequence[Outcome]) -> str:
    """Return one line a rule, and the sum."""
    marks = {"ok": "ok  ", "fail": "FAIL", "skip": "skip"}
    width = max(len(outcome.rule) for outcome in outcomes)
    lines = []
    for outcome in outcomes:
        line = f"{marks[outcome.state]}  {outcome.rule:{width}}  {outcome.text}"
        # What the server said must not move the cursor.
        detail = "".join(c if c.isprintable() else "?" for c in outcome.detail)
        lines.append(f"{line}: {detail}" if detail else line)
    counts = {state: sum(o.state == state for o in outcomes) for state in marks}
    lines.append(f"{counts['ok']} hold, {counts['fail']} fail, {counts['skip']} skipped")
    return "\n".join(lines) + "\n"


def run(arguments: Sequence[str]) -> int:
    """Run the command; return its exit status."""
    parser = _parser()
    try:
        args = parser.parse_args(arguments)
    except SystemExit as end:
        return OK if end.code in (None, 0) else USAGE
    try:
        target = Target(_server(args), load(args.transport))
        target.server.check()
        tokens = tuple(read_token_file(path) for path in args.token_file)
        one_off = read_token_file(args.one_off_token_file) if args.one_off_token_file else ""
        outcomes = asyncio.run(_connect_and_check(target, tokens, one_off, args))
    except ValueError as error:
        sys.stderr.write(f"wantasticd: --server: {error}\n")
        return USAGE
    except ControlError as error:
        remedy = f" {error.remedy}" if error.remedy else ""
        sys.stderr.write(f"wantasticd: {error.reason}.{remedy}\n")
        return USAGE if isinstance(error, LocalError) else NO_SERVER
    if args.json:
        rows = [
            {"rule": o.rule, "text": o.text, "state": o.state, "detail": o.detail} for o in outcomes
        ]
        sys.stdout.write(json.dumps(rows, indent=2) + "\n")
    else:
        sys.stdout.write(render(outcomes))
    return FAILED if any(outcome.state == "fail" for outcome in outcomes) else OK


async def _connect_and_check(
    target: Target, tokens: tuple[str, ...], one_off: str, args: argparse.Namespace
) -> list[Outcome]:
    transport = await target.open()
    session = Session(transport, tokens, one_off, args.tenant, os.urandom)
    try:
        return await check(session, slow=args.slow)
    finally:
        await session.close()


def _server(args: argparse.Namespace) -> Server:
    at: HostPort = parse_host_port(args.server, DEFAULT_PORT)
    roots = b"" if args.insecure else read_roots(args.ca)
    return Server(at, roots, args.server_name, args.insecure)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wantasticd conformance",
        description="Check a control server against the contract of protos/auth.proto.",
    )
    add = parser.add_argument
    names: tuple[TransportName, ...] = ("auto", "grpcio", "grpclib")
    add("--server", "-server", required=True, metavar="HOST[:PORT]")
    add(
        "--token-file",
        "-token-file",
        action="append",
        default=[],
        metavar="FILE",
        help="an enrolment token; give a reusable one, or this option three times",
    )
    add(
        "--one-off-token-file",
        metavar="FILE",
        default="",
        help="a fresh one-off token, for the rule about redeeming it twice",
    )
    add("--tenant", default="", metavar="ID", help="the tenant of the tokens, if it must be named")
    add("--ca", default="", metavar="FILE", help="trust this CA only (default: the system's)")
    add("--server-name", default="", metavar="NAME", help="the name in the certificate")
    add("--insecure", action="store_true", help="no TLS; loopback only")
    add("--transport", choices=names, default="auto")
    add("--slow", action="store_true", help="also the rules that take a minute")
    add("--json", action="store_true")
    return parser
