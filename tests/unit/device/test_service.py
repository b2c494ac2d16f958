"""The running process around a device, as far as it needs no host."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from tests.support.fake_engine import FakeEngine
from tests.support.fake_host import FakeHost
from wantastic.device.resolver import SystemResolver
from wantastic.device.service import Plan, Service, World
from wantastic.telemetry.log import Log


class Recorder:
    """In the place of the socket for `wg`."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []

    async def start(self, name: str, fd: int = -1) -> None:
        self.calls.append((name, fd))

    async def close(self) -> None:
        self.calls.append(("close", 0))


def test_a_descriptor_for_wg_is_used_once() -> None:
    """It is closed with the first socket; its number may be another file's by then."""
    world = World(
        engine=lambda config: FakeEngine(),  # type: ignore[arg-type,return-value]
        host=FakeHost,
        resolver=SystemResolver(),
        unix_ns=lambda: 0,
    )
    service: Any = Service(Plan(config_path="c.json", uapi_fd=5), Log(), world)
    service.device = SimpleNamespace(name="wg0")
    service._uapi = recorder = Recorder()

    async def life() -> None:
        await service._open_uapi(service.plan.uapi_fd)
        await service._reopen_uapi()

    asyncio.run(life())
    assert recorder.calls == [("wg0", 5), ("close", 0), ("wg0", -1)]
