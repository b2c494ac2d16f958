"""What the agent tells the server about itself, and how it keeps outside the tunnel."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from wantastic.agent import uplink
from wantastic.agent.uplink import Outside, facts, read_model
from wantastic.config.model import Config, ExitNodeConfig, InterfaceConfig
from wantastic.control import methods


@pytest.mark.parametrize("mode", ["auto", "tun", "userspace", "both"])
@pytest.mark.parametrize("exit_node", [True, False])
def test_capabilities_follow_the_configuration(mode: str, exit_node: bool) -> None:
    """`-exit-node` sets exit_node.enabled; the server learns of it."""
    config = Config(
        interface=InterfaceConfig(mode=mode),  # type: ignore[arg-type]
        exit_node=ExitNodeConfig(enabled=exit_node),
    )
    found = facts(config)
    assert (methods.CAPABILITY_EXIT_NODE in found.capabilities) == exit_node
    assert (methods.CAPABILITY_TUN in found.capabilities) == (mode != "userspace")
    assert {methods.CAPABILITY_WATCH, methods.CAPABILITY_REKEY} <= set(found.capabilities)
    assert found.os.startswith("Linux ")
    assert found.version
    assert found.arch


def test_the_board_s_name_is_made_printable(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"Router\x1b[2J 3000\0")
    paths = (str(tmp_path / "missing"), str(tmp_path / "model"))
    assert read_model(paths) == "Router [2J 3000"
    assert read_model(paths[:1]) == ""


def test_names_are_asked_outside_only_while_something_leads_into_the_tunnel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[str, int]] = []

    async def resolve(name: str, mark: int) -> tuple[str, ...]:
        asked.append((name, mark))
        return ("192.0.2.1",)

    async def by_host(name: str) -> list[str]:
        return ["192.0.2.2"]

    monkeypatch.setattr(uplink, "host_lookup", by_host)

    async def main() -> None:
        assert await Outside(lambda: 51820, resolve).lookup("c.test") == ["192.0.2.1"]
        assert await Outside(lambda: 0, resolve).lookup("c.test") == ["192.0.2.2"]
        assert await Outside().lookup("c.test") == ["192.0.2.2"]

    asyncio.run(main())
    assert asked == [("c.test", 51820)]
