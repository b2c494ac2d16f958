"""The conformance command: our server keeps every rule, each wrong server breaks its own."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from tests.support import server as support
from tests.support.backend import FAULTS, Backend
from wantastic.config.model import HostPort
from wantastic.control import conformance, conformance_rules, transport
from wantastic.control.client import Server
from wantastic.control.conformance_session import Session

REUSABLE, ONE_OFF = "reusable-token", "one-off-token"
# The backend's stream beats five times a second; the contract's minute is too long for a test.
SILENCE_S = 2.0


async def examine(faults: tuple[str, ...], library: transport.TransportName) -> dict[str, str]:
    """Run the rules against a backend with faults; return rule -> state."""
    server, port = await Backend(REUSABLE, ONE_OFF, faults).start()
    at = Server(HostPort("127.0.0.1", port), insecure=True)
    try:
        opened = await conformance.Target(at, transport.load(library)).open()
        session = Session(opened, (REUSABLE,), ONE_OFF, "", os.urandom, silence_s=SILENCE_S)
        outcomes = await conformance.check(session, slow=True)
        await session.close()
    finally:
        await server.stop(None)
    return {outcome.rule: outcome.state for outcome in outcomes}


@pytest.mark.parametrize("library", ["grpcio", "grpclib"])
def test_a_backend_that_keeps_the_contract_passes(library: transport.TransportName) -> None:
    states = asyncio.run(examine((), library))
    assert {rule for rule, state in states.items() if state != "ok"} == set()


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_a_wrong_server_fails_on_its_rule(fault: str) -> None:
    states = asyncio.run(examine((fault,), "grpcio"))
    failed = {rule for rule, state in states.items() if state == "fail"}
    assert FAULTS[fault] in failed, (fault, failed)


def test_every_rule_has_a_server_that_breaks_it() -> None:
    assert {rule.name for rule in conformance_rules.RULES} == set(FAULTS.values())


def test_our_server_keeps_every_rule(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = tmp_path / "state"
    support.set_gateway(state)
    reusable, one_off = tmp_path / "reusable", tmp_path / "one-off"
    reusable.write_text(support.new_token(state, "--reusable"))
    one_off.write_text(support.new_token(state))
    options = ("--host", "localhost", "--host", "127.0.0.1")
    with support.serving(state, *options) as server:
        arguments = [
            "--server",
            f"localhost:{server.ports['grpc']}",
            "--ca",
            str(state / "ca.pem"),
            "--token-file",
            str(reusable),
            "--one-off-token-file",
            str(one_off),
        ]
        assert conformance.run([*arguments, "--json"]) == conformance.OK
        rows = json.loads(capsys.readouterr().out)
        states = {row["rule"]: row["state"] for row in rows}
        assert {r for r, s in states.items() if s != "ok"} == {"watch.heartbeat"}
        # The one-off token is used by now: the same run again fails on that rule alone.
        assert conformance.run(arguments) == conformance.FAILED
        lines = capsys.readouterr().out.splitlines()
        assert next(line for line in lines if line.startswith("FAIL")).split()[1] == (
            "register.one-off"
        )
        assert len(lines) == len(conformance_rules.RULES) + 1


def test_wrong_arguments_and_nobody_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert conformance.run([]) == conformance.USAGE
    assert conformance.run(["--server", "a:b:c"]) == conformance.USAGE
    assert conformance.run(["--server", "192.0.2.1:1", "--insecure"]) == conformance.USAGE
    assert conformance.run(["--server", "127.0.0.1:9", "--insecure"]) == conformance.NO_SERVER
    assert "Nothing listens" in capsys.readouterr().err
    missing = str(tmp_path / "missing")
    arguments = ["--server", "127.0.0.1:9", "--insecure", "--token-file", missing]
    assert conformance.run(arguments) == conformance.USAGE
