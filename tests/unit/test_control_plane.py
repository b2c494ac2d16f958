"""The control plane's driver in virtual time: enrolment, tokens, configuration, outages."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise
from typing import Any

import pytest

from tests.support.control_peers import authority
from tests.support.fake_control import (
    GATEWAY_KEY,
    KEY,
    FakeServer,
    Harness,
    Lines,
    MemoryRecord,
    refuse,
)
from tests.support.virtual_time import VirtualLoop, run_virtual, wall
from wantastic.config.keys import encode_key
from wantastic.control import auth_pb2 as pb
from wantastic.control import methods
from wantastic.control.configuration import Registration
from wantastic.control.errors import RemoteError
from wantastic.control.report import ApplyReport
from wantastic.control.transport import StatusError

HOUR = 3600.0
DAY = 24 * HOUR


def addresses(*texts: str) -> pb.Configuration:
    return pb.Configuration(addresses=pb.AddressList(addresses=texts))


def names(server: FakeServer) -> list[str]:
    return [name for _, name in server.calls]


# ---- Enrolment ----------------------------------------------------------------------


def test_first_run_registers_and_follows() -> None:
    async def main() -> None:
        server = FakeServer(configuration=addresses("10.0.0.2/32"))
        device = Harness.make(server)
        await device.run_for(100)
        assert device.listening.names()[:4] == ["registering", "fine", "registered", "fine"]
        registration = device.listening.of("registered")[0]
        assert registration == Registration(GATEWAY_KEY, "gw.example")
        (received,) = device.listening.of("configuration")
        assert received.statement == {"addresses": ["10.0.0.2/32"]}
        assert server.devices == {device.plane.credentials.device_id: encode_key(KEY)}
        assert names(server) == ["RegisterDevice", "WatchConfiguration"]
        first = server.requests[0]
        assert first.agent.protocol_version == 1
        assert "watch" in first.agent.capabilities
        assert device.plane.status()["mode"] == "stream"
        assert device.plane.status()["clock_offset_s"] == 0.0

    run_virtual(main())


def test_a_lost_answer_does_not_cost_the_one_off_token() -> None:
    async def main() -> None:
        server = FakeServer(lose_answers=2)
        device = Harness.make(server)
        await device.run_for(200)
        assert len(server.devices) == 1
        assert names(server).count("RegisterDevice") == 3
        assert "registered" in device.listening.names()

    run_virtual(main())


def test_a_restart_during_enrolment_asks_again_under_the_same_name() -> None:
    async def main() -> None:
        server = FakeServer(lose_answers=1)
        record = MemoryRecord()
        await Harness.make(server, record=record, seed=1).run_for(0.5)
        again = Harness.make(server, record=record, seed=2)
        await again.run_for(60)
        assert len(server.devices) == 1
        assert "registered" in again.listening.names()

    run_virtual(main())


def test_restart_with_a_stored_identity_needs_no_enrolment_token() -> None:
    async def main() -> None:
        server, record = FakeServer(), MemoryRecord()
        await Harness.make(server, record=record).run_for(60)
        again = Harness.make(server, record=record, token="")
        await again.run_for(60)
        assert names(server).count("RegisterDevice") == 1
        assert again.listening.names()[0] == "registered"
        # The same token on the command line or in the file is not another one.
        await Harness.make(server, record=record).run_for(60)
        assert names(server).count("RegisterDevice") == 1
        # Another one is.
        server.enrolment_tokens["one-off-2"] = None
        await Harness.make(server, record=record, token="one-off-2").run_for(60)
        assert names(server).count("RegisterDevice") == 2

    run_virtual(main())


def test_a_token_is_not_sent_to_another_server() -> None:
    async def main() -> None:
        server, record = FakeServer(), MemoryRecord()
        await Harness.make(server, record=record).run_for(60)
        other = Harness.make(
            FakeServer(), record=record, token="", options={"server": "evil.example:443"}
        )
        await other.run_for(60)
        assert other.server.calls == []
        assert other.listening.of("trouble")[0] == "no_token"

    run_virtual(main())


def test_no_token_waits_until_there_is_one() -> None:
    async def main() -> None:
        server = FakeServer()
        device = Harness.make(server, token="")
        asyncio.get_running_loop().call_later(10 * DAY, device.plane.use_token, "one-off")
        await device.run_for(10 * DAY + 60)
        assert device.listening.of("trouble")[0] == "no_token"
        assert server.connections[0] >= 10 * DAY
        assert device.plane.is_registered

    run_virtual(main())


@pytest.mark.parametrize("row", range(1, 5))
def test_refused_enrolments_are_asked_again_seldom(row: int) -> None:
    code = [
        pb.ERROR_TOKEN_INVALID, pb.ERROR_TOKEN_USED, pb.ERROR_DEVICE_PENDING, pb.ERROR_NO_ADDRESS,
    ][row - 1]  # fmt: skip

    async def main() -> None:
        server = FakeServer(fail_next={"RegisterDevice": [refuse(code) for _ in range(20)]})
        device = Harness.make(server)
        await device.run_for(DAY)
        assert device.plane.is_registered
        assert (
            device.listening.of("trouble")
            == [pb.ErrorCode.Name(code).removeprefix("ERROR_").lower()] * 20
        )
        assert server.calls[20][0] > 20 * 60

    run_virtual(main())


def test_the_documents_own_way_to_refuse() -> None:
    async def main() -> None:
        class Bare(FakeServer):
            def _register(self, request: Any, bearer: str) -> Any:
                return pb.RegisterDeviceResponse(success=False)

        device = Harness.make(Bare())
        await device.run_for(60)
        assert device.listening.of("trouble")[0] == "token_invalid"

    run_virtual(main())


def test_a_server_of_the_bare_document_is_enough() -> None:
    """No capabilities, no terms, no etag, RefreshToken and WatchConfiguration unknown."""

    async def main() -> None:
        class Bare(FakeServer):
            def _register(self, request: Any, bearer: str) -> Any:
                self.tokens["forever"] = (request.device_id, 1e12)
                self.devices[request.device_id] = request.public_key
                return pb.RegisterDeviceResponse(
                    success=True, token="forever", server_key=GATEWAY_KEY, endpoint="gw:51820"
                )

            def _configuration(self, request: Any) -> Any:
                return pb.GetConfigurationResponse()

        server = Bare(without_methods=frozenset({"RefreshToken", "WatchConfiguration"}))
        device = Harness.make(server)
        await device.run_for(3 * DAY)
        assert device.listening.of("trouble") == []
        assert len(device.listening.of("configuration")) == 1
        polls = names(server).count("GetConfiguration")
        assert 3 * DAY / 300 * 0.95 < polls < 3 * DAY / 300 * 1.15

    run_virtual(main())


def test_the_other_path_is_found_and_remembered() -> None:
    async def main() -> None:
        server = FakeServer(prefix="/grpc.AuthService/")
        device = Harness.make(server)
        await device.run_for(10 * 60)
        assert device.plane.is_registered
        assert device.listening.of("trouble") == []

    run_virtual(main())


# ---- Tokens -------------------------------------------------------------------------


def test_the_token_is_refreshed_at_two_thirds_of_its_life_for_a_month() -> None:
    async def main() -> None:
        server = FakeServer(lifetime_s=int(DAY), capabilities=())
        device = Harness.make(server)
        await device.run_for(30 * DAY)
        at = [when for when, name in server.calls if name == "RefreshToken"]
        gaps = [b - a for a, b in pairwise(at)]
        assert min(gaps) >= 16 * HOUR * 0.9
        assert max(gaps) <= 16 * HOUR + 1
        assert device.listening.of("trouble") == []
        # One write for each token and a few for enrolment: flash lives.
        assert device.record.writes <= len(at) + 5

    run_virtual(main())


def test_over_a_restart_the_refresh_keeps_its_time() -> None:
    async def main() -> None:
        server, record = FakeServer(capabilities=()), MemoryRecord()
        await Harness.make(server, record=record).run_for(10 * HOUR)
        await Harness.make(server, record=record, token="", seed=2).run_for(7 * HOUR)
        (at,) = [when for when, name in server.calls if name == "RefreshToken"]
        assert 16 * HOUR * 0.9 <= at <= 16 * HOUR + 60

    run_virtual(main())


@pytest.mark.parametrize("jump_s", [-50 * 365 * DAY, -HOUR, HOUR, 10 * 365 * DAY])
def test_a_jump_of_the_clock_over_a_restart_costs_one_refresh_at_most(jump_s: float) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        server, record = FakeServer(capabilities=(), lifetime_s=0), MemoryRecord()
        await Harness.make(server, record=record).run_for(60)
        loop.wall_jump_s = jump_s
        again = Harness.make(server, record=record, token="", seed=2)
        await again.run_for(2 * HOUR)
        assert names(server).count("RefreshToken") <= 1
        assert again.listening.of("trouble") == []

    run_virtual(main())


def test_the_server_forgets_us_and_a_reusable_token_brings_us_back() -> None:
    async def main() -> None:
        server = FakeServer(enrolment_tokens={"reusable": None})
        device = Harness.make(server, token="reusable")
        asyncio.get_running_loop().call_later(HOUR, server.forget)
        await device.run_for(3 * HOUR)
        assert device.listening.of("forgotten") == ["token_invalid"]
        assert names(server).count("RegisterDevice") == 3  # the stored token is tried as well
        assert len(server.devices) == 1

    run_virtual(main())


def test_the_server_forgets_us_and_remembers_days_later() -> None:
    """A database restored from an old copy, and then from the right one."""

    async def main() -> None:
        server = FakeServer()
        device = Harness.make(server)
        loop = asyncio.get_running_loop()
        kept: dict[str, Any] = {}

        def forget() -> None:
            kept.update(devices=dict(server.devices), tokens=dict(server.tokens))
            server.forget()
            server.enrolment_tokens.clear()

        def remember() -> None:
            server.devices.update(kept["devices"])
            server.tokens.update({t: (d, 1e12) for t, (d, _) in kept["tokens"].items()})

        loop.call_later(HOUR, forget)
        loop.call_later(3 * DAY, remember)
        await device.run_for(3 * DAY + 2 * HOUR)
        assert device.listening.of("forgotten") == ["token_invalid"]
        assert device.listening.names()[-1] == "fine"
        assert device.plane.phase == "stopped"
        assert names(server).count("RegisterDevice") < 3 * DAY / HOUR * 4

    run_virtual(main())


def test_a_token_that_expired_during_an_outage_is_replaced_by_registering_again() -> None:
    async def main() -> None:
        server = FakeServer(enrolment_tokens={"reusable": None}, lifetime_s=3600)
        device = Harness.make(server, token="reusable")
        loop = asyncio.get_running_loop()
        loop.call_later(600, server.stop)
        loop.call_later(DAY, server.start)
        await device.run_for(DAY + HOUR)
        assert device.listening.of("forgotten") == ["token_expired"]
        assert device.listening.names()[-1] == "fine"

    run_virtual(main())


# ---- Configuration ------------------------------------------------------------------


@pytest.mark.parametrize("capabilities", [("watch",), ("long_poll",), ()])
def test_changes_arrive_once_each(capabilities: tuple[str, ...]) -> None:
    async def main() -> None:
        server = FakeServer(capabilities=capabilities, configuration=addresses("10.0.0.1/32"))
        device = Harness.make(server)
        loop = asyncio.get_running_loop()
        arrived: list[float] = []
        for i in range(1, 6):
            loop.call_later(i * HOUR, server.change, addresses(f"10.0.0.{i + 1}/32"))
        task = asyncio.ensure_future(device.run_for(6 * HOUR))
        for i in range(1, 6):
            while len(device.listening.of("configuration")) <= i:
                await asyncio.sleep(1)
            arrived.append(loop.time() - i * HOUR)
        await task
        received = device.listening.of("configuration")
        assert [r.statement["addresses"] for r in received] == [
            [f"10.0.0.{i}/32"] for i in range(1, 7)
        ]
        assert max(arrived) < (310 if not capabilities else 10)
        assert device.listening.of("trouble") == []

    run_virtual(main())


def test_the_same_configuration_under_another_etag_is_no_change() -> None:
    async def main() -> None:
        server = FakeServer(configuration=addresses("10.0.0.1/32"))
        device = Harness.make(server)

        def again() -> None:
            server.change(server.configuration)
            server.version -= 1

        asyncio.get_running_loop().call_later(HOUR, again)
        await device.run_for(2 * HOUR)
        assert len(device.listening.of("configuration")) == 1

    run_virtual(main())


def test_parts_that_are_left_out_stay_as_they_were() -> None:
    async def main() -> None:
        server = FakeServer(configuration=pb.Configuration(
            addresses=pb.AddressList(addresses=["10.0.0.1/32"]), mtu=1400,
            routes=pb.RangeList(ranges=["10.0.0.0/8"]),
        ))  # fmt: skip
        device = Harness.make(server)
        change = pb.Configuration(mtu=1300, routes=pb.RangeList())
        asyncio.get_running_loop().call_later(HOUR, server.change, change)
        await device.run_for(2 * HOUR)
        assert device.listening.of("configuration")[-1].statement == {
            "addresses": ["10.0.0.1/32"], "mtu": 1300, "routes": [],
        }  # fmt: skip

    run_virtual(main())


def test_a_cold_start_with_the_cache_asks_for_what_is_new_only() -> None:
    async def main() -> None:
        server, record = FakeServer(configuration=addresses("10.0.0.1/32")), MemoryRecord()
        first = Harness.make(server, record=record)
        await first.run_for(60)
        (held,) = first.listening.of("configuration")
        again = Harness.make(server, record=record, held=held, token="")
        await again.run_for(600)
        assert again.listening.of("configuration") == []
        assert again.plane.status()["configuration_version"] == 1

    run_virtual(main())


@pytest.mark.parametrize("capabilities", [("watch",), ("long_poll",), ()])
def test_reports_reach_the_server_at_once(capabilities: tuple[str, ...]) -> None:
    async def main() -> None:
        server = FakeServer(capabilities=capabilities)
        device = Harness.make(server)
        report = ApplyReport(1, 2, "no_handshake", "no peer answered", KEY)
        loop = asyncio.get_running_loop()
        loop.call_later(HOUR, device.plane.report, report)
        await device.run_for(HOUR + 5)
        request = server.requests[-1]
        assert request.applied_version == 1
        assert request.apply_error.version == 2
        assert request.apply_error.code == pb.APPLY_ERROR_NO_HANDSHAKE
        assert request.public_key == encode_key(KEY)

    run_virtual(main())


def test_a_silent_stream_is_given_up_after_120_seconds() -> None:
    async def main() -> None:
        server = FakeServer()
        device = Harness.make(server)
        loop = asyncio.get_running_loop()
        loop.call_later(HOUR, setattr, server, "silent_streams", True)
        await device.run_for(HOUR + 200)
        assert set(device.listening.of("trouble")) == {"timeout"}
        again = [at for at, name in server.calls if name == "WatchConfiguration" and at > HOUR]
        assert HOUR + 60 <= again[0] <= HOUR + 120 + 31

    run_virtual(main())


def test_a_server_that_says_watch_and_cannot() -> None:
    async def main() -> None:
        server = FakeServer(without_methods=frozenset({"WatchConfiguration"}))
        device = Harness.make(server)
        await device.run_for(HOUR)
        assert names(server).count("WatchConfiguration") == 1
        assert device.listening.of("configuration")
        assert device.listening.of("trouble") == []

    run_virtual(main())


def test_a_long_poll_that_answers_at_once_does_not_spin() -> None:
    async def main() -> None:
        class Hasty(FakeServer):
            async def answer(self, name: str, request: Any, bearer: str) -> Any:
                if name == "GetConfiguration":
                    request.wait_ms = 0
                return await super().answer(name, request, bearer)

        server = Hasty(capabilities=("long_poll",))
        await Harness.make(server).run_for(HOUR)
        assert names(server).count("GetConfiguration") <= HOUR / 5 + 2

    run_virtual(main())


def test_not_modified_since_nothing_is_an_error() -> None:
    async def main() -> None:
        class Odd(FakeServer):
            def _configuration(self, request: Any) -> Any:
                return pb.GetConfigurationResponse(not_modified=True)

        device = Harness.make(Odd(capabilities=()))
        await device.run_for(60)
        assert device.listening.of("trouble")[0] == "bad_message"

    run_virtual(main())


# ---- Outages ------------------------------------------------------------------------


def test_a_day_without_network_and_back() -> None:
    async def main() -> None:
        server = FakeServer()
        device = Harness.make(server)
        loop = asyncio.get_running_loop()
        loop.call_later(HOUR, server.stop)
        loop.call_later(HOUR + DAY, server.start)
        await device.run_for(HOUR + DAY + 1000)
        assert device.listening.names()[-1] == "fine"
        assert device.listening.of("forgotten") in ([], ["token_expired"])
        during = [at for at in server.connections if HOUR < at < HOUR + DAY]
        assert 100 < len(during) < 600  # it never stopped trying, and never hurried
        back = next(at for at in server.connections if at > HOUR + DAY)
        assert back < HOUR + DAY + 900

    run_virtual(main())


def test_retry_after_is_honoured() -> None:
    async def main() -> None:
        busy = [refuse(pb.ERROR_RATE_LIMITED, retry_after_ms=600_000) for _ in range(3)]
        server = FakeServer(fail_next={"RegisterDevice": busy})
        await Harness.make(server).run_for(HOUR)
        at = [when for when, name in server.calls if name == "RegisterDevice"]
        gaps = [b - a for a, b in pairwise(at)]
        assert len(at) == 4
        assert all(600 <= gap <= 760 for gap in gaps)

    run_virtual(main())


def test_a_server_restarted_under_a_thousand_devices_sees_no_storm() -> None:
    async def main() -> None:
        server = FakeServer(enrolment_tokens={f"one-off-{i}": None for i in range(1000)})
        devices = [
            Harness.make(server, token=f"one-off-{i}", seed=i, options={"device_id": f"d{i}"})
            for i in range(1000)
        ]
        loop = asyncio.get_running_loop()
        runs = [asyncio.ensure_future(device.run_for(200)) for device in devices]
        await asyncio.sleep(100)
        assert len(server.open) == 1000
        server.stop()
        server.start()
        stopped = loop.time()
        await asyncio.gather(*runs)
        back = sorted(at - stopped for at in server.connections if at >= stopped)
        assert len(back) == 1000
        assert back[-1] < 31
        per_second = [sum(1 for at in back if s <= at < s + 1) for s in range(31)]
        assert max(per_second) < 70, per_second

    run_virtual(main())


def test_a_full_disk_stops_nothing() -> None:
    async def main() -> None:
        server = FakeServer()
        device = Harness.make(server, record=MemoryRecord(failing=True))
        await device.run_for(2 * DAY)
        assert device.listening.names()[-1] == "fine"
        assert any("cannot be saved" in line for line in device.log.lines)

    run_virtual(main())


# ---- Certificates -------------------------------------------------------------------


def test_client_certificate_is_issued_renewed_and_stored() -> None:
    async def main() -> None:
        from datetime import UTC, datetime, timedelta

        def sign(request: bytes) -> list[bytes]:
            drift = datetime.fromtimestamp(wall(), UTC) - datetime.now(UTC)
            return [authority().sign(request, drift, drift + timedelta(days=9))]

        server, record = FakeServer(sign=sign, capabilities=()), MemoryRecord()
        device = Harness.make(server, record=record, options={"certificate": True})
        await device.run_for(30 * DAY)
        certificate = device.plane.credentials.certificate
        assert certificate is not None
        chain, key = device.plane.identity()
        assert chain.startswith(b"-----BEGIN CERTIFICATE")
        assert key.startswith(b"-----BEGIN PRIVATE KEY")
        asked = [r for r in server.requests if getattr(r, "certificate_request", b"")]
        assert 5 <= len(asked) <= 7  # each six days
        again = Harness.make(server, record=record, options={"certificate": True})
        assert again.plane.identity() == (chain, key)

    run_virtual(main())


# ---- Rotation of the static key ------------------------------------------------------


def test_register_key_names_both_keys() -> None:
    async def main() -> None:
        server = FakeServer()
        device = Harness.make(server)
        task = asyncio.ensure_future(device.run_for(600))
        await asyncio.sleep(60)
        await device.plane.register_key(KEY, KEY[::-1])
        request = server.requests[-1]
        assert request.public_key == encode_key(KEY[::-1])
        assert request.replaces_public_key == encode_key(KEY)
        server.fail_next["RegisterDevice"] = [refuse(pb.ERROR_KEY_IN_USE)]
        with pytest.raises(RemoteError):
            await device.plane.register_key(KEY, KEY[::-1])
        await task

    run_virtual(main())


# ---- Secrets ------------------------------------------------------------------------


def test_no_secret_in_any_log_line_of_any_level() -> None:
    async def main() -> Lines:
        lines = Lines()
        for failing in ({}, {"RegisterDevice": [refuse(pb.ERROR_TOKEN_USED)]}):
            enrolment = "very-secret-enrolment"
            server = FakeServer({enrolment: None}, fail_next=failing, lose_answers=1)
            device = Harness.make(server, token=enrolment, options={"certificate": True})
            task = asyncio.ensure_future(device.run_for(3 * DAY))
            await asyncio.sleep(HOUR)
            server.fail_next = {
                "RefreshToken": [StatusError("INTERNAL", "boom"), StatusError("UNKNOWN", "x")]
            }
            server.stop()
            await asyncio.sleep(HOUR)
            server.start()
            await asyncio.sleep(DAY)
            server.forget()
            await task
            lines.lines += device.log.lines
            lines.lines += [repr(device.plane.credentials), repr(device.plane.status())]
            lines.lines += [repr(told) for told in device.listening.told]
            stored = json.loads(device.record.value or b"{}")
            for secret in (enrolment, "secret-device-token", stored["tls_key"][:40]):
                assert not [line for line in lines.lines if secret in line], secret
        return lines

    assert len(run_virtual(main()).lines) > 20


def test_methods_and_messages_of_the_fake_are_those_of_the_contract() -> None:
    assert {m.name for m in methods.METHODS} == {
        "RegisterDevice", "RefreshToken", "GetConfiguration", "WatchConfiguration",
    }  # fmt: skip
