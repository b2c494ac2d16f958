"""The service's rules in virtual time: tokens, waiting, streams, what a poll costs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.server import key
from wantastic.control import auth_pb2 as pb
from wantastic.server import configuration, devices, enrolment, tenants
from wantastic.server.authority import Authority
from wantastic.server.database import Database
from wantastic.server.directory import Directory, Worker
from wantastic.server.keyring import Keyring, KeyringError
from wantastic.server.limits import Limiter, host_of
from wantastic.server.logs import Formatter
from wantastic.server.records import GatewayRecord, RefusalCode, Refused
from wantastic.server.service import Caller, Service
from wantastic.server.settings import SettingsError, Terms, parse_address
from wantastic.server.tokens import Claims, TokenSigner

DAY_S = 86_400


class World:
    """A service over a database, with a clock that a test moves."""

    def __init__(self, folder: Path) -> None:
        self.now_s = 1_800_000_000.0
        self.database = Database.open(str(folder / "server.db"), lambda: self.now_s)
        self.database.migrate()
        self.keyring = Keyring(bytes(range(32)))
        self.worker = Worker(2)
        self.directory = Directory(self.database, self.worker)
        with self.database.write() as tx:
            authority = Authority.open(tx, self.keyring)
            self.tenant = tenants.create(tx, "acme")
            configuration.set_gateway(tx, GatewayRecord("default", key(), "gw:51820"))
        self.service = Service(
            self.database,
            self.directory,
            self.worker,
            self.keyring,
            authority,
            Terms(),
            "test",
            lambda: self.now_s,
        )

    def token(self, max_uses: int | None = None) -> str:
        with self.database.write() as tx:
            plain, _ = enrolment.create_token(
                tx, self.tenant, max_uses=max_uses, lifetime_s=100 * DAY_S
            )
        return plain.text

    async def register(self, device_id: str = "router") -> str:
        request = pb.RegisterDeviceRequest(device_id=device_id, public_key=key())
        return (await self.service.register(request, Caller(self.token()))).token

    async def get(self, token: str, etag: str = "", **more: int) -> pb.GetConfigurationResponse:
        request = pb.GetConfigurationRequest(known_etag=etag, **more)
        data = await self.service.get_configuration(request, Caller(token))
        return pb.GetConfigurationResponse.FromString(data)

    async def refresh(self, token: str) -> str:
        reply = await self.service.refresh(pb.RefreshTokenRequest(), Caller(token))
        return reply.token

    def remove(self, device_id: str) -> None:
        with self.database.write() as tx:
            devices.remove(tx, devices.find(tx, device_id))

    async def heard(self) -> None:
        """Wait until what was written has been heard of."""
        await asyncio.sleep(0.35)


@asynccontextmanager
async def living(folder: Path) -> AsyncIterator[World]:
    world = World(folder)
    await world.directory.start()
    try:
        yield world
    finally:
        await world.directory.stop()
        world.worker.close()
        world.database.close()


def play(folder: Path, work: Callable[[World], Awaitable[None]]) -> None:
    async def run() -> None:
        async with living(folder) as world, asyncio.timeout(20):
            await work(world)

    asyncio.run(run())


async def refusal(work: Awaitable[object]) -> RefusalCode:
    with pytest.raises(Refused) as caught:
        await work
    return caught.value.code


def test_a_token_revoked_a_moment_ago_brings_in_no_new_key(tmp_path: Path) -> None:
    """The directory hears of it later; what a registration decides, the database decides."""

    async def work(world: World) -> None:
        old = key()
        request = pb.RegisterDeviceRequest(device_id="router", public_key=old)
        token = (await world.service.register(request, Caller(world.token()))).token
        await world.get(token)
        with world.database.write() as tx:
            devices.revoke_tokens(tx, devices.find(tx, "router"))
        request.public_key, request.replaces_public_key = key(), old
        code = await refusal(world.service.register(request, Caller(token)))
        assert code is RefusalCode.TOKEN_REVOKED
        with world.database.read() as tx:
            assert devices.find(tx, "router").next_public_key is None

    play(tmp_path, work)


def test_guesses_at_once_get_no_further_than_one_after_the_other(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        request = pb.RegisterDeviceRequest(device_id="router", public_key=key())
        wrong = world.token()[:-4] + "AAAA"
        guesses = (
            refusal(world.service.register(request, Caller(wrong, "192.0.2.1"))) for _ in range(100)
        )
        codes = await asyncio.gather(*guesses)
        assert codes.count(RefusalCode.TOKEN_INVALID) == 20
        assert codes.count(RefusalCode.RATE_LIMITED) == 80
        # Somebody else is not held up.
        await world.register("other")

    play(tmp_path, work)


def test_tokens_expire_and_are_refreshed_within_the_grace(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        token = await world.register()
        world.now_s += DAY_S - 1
        await world.get(token)
        world.now_s += 1
        assert await refusal(world.get(token)) is RefusalCode.TOKEN_EXPIRED
        world.now_s += 29 * DAY_S
        fresh = await world.refresh(token)
        await world.get(fresh)
        world.now_s += 31 * DAY_S
        assert await refusal(world.refresh(fresh)) is RefusalCode.TOKEN_EXPIRED

    play(tmp_path, work)


def test_removed_unknown_and_revoked_devices_are_told_apart(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        signer = TokenSigner(world.keyring)
        token, other = await world.register("a"), await world.register("b")
        world.remove("a")
        with world.database.write() as tx:
            devices.revoke_tokens(tx, devices.find(tx, "b"))
        await world.heard()
        assert await refusal(world.get(token)) is RefusalCode.DEVICE_REMOVED
        assert await refusal(world.get(other)) is RefusalCode.TOKEN_REVOKED
        # A number that was never given: this database is older than the token.
        ghost = signer.issue(99, 1, int(world.now_s), DAY_S)
        assert await refusal(world.get(ghost)) is RefusalCode.DEVICE_UNKNOWN

    play(tmp_path, work)


def test_a_steady_poll_reads_nothing_and_a_change_is_read_once(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        token = await world.register()
        got = await world.get(token)
        await world.heard()
        before = world.directory.reads
        for _ in range(100):
            assert (await world.get(token, got.etag)).not_modified
        assert world.directory.reads == before
        with world.database.write() as tx:
            devices.order_rekey(tx, devices.find(tx, "router"), 5)
        await world.heard()
        changed = await world.get(token, got.etag)
        assert changed.version > got.version
        assert world.directory.reads == before + 1
        # What all devices have in common is read by the follower, not for each device.
        with world.database.write() as tx:
            tenants.touch_all(tx)
        await world.heard()
        again = await world.get(token, changed.etag)
        assert again.version > changed.version
        assert again.configuration == changed.configuration
        assert world.directory.reads == before + 1

    play(tmp_path, work)


def test_an_operator_sees_to_the_hour_when_a_device_was_there(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        def last_seen() -> float:
            with world.database.read() as tx:
                return devices.find(tx, "router").last_seen_at

        token = await world.register()
        etag = (await world.get(token)).etag
        await world.service.flush()
        first_s = last_seen()
        for minutes in range(5, 180, 5):
            world.now_s = first_s + minutes * 60
            assert (await world.get(token, etag)).not_modified
            await world.service.flush()
            assert last_seen() == first_s + minutes // 60 * 3600
        # A stream is a sign of life as well: it asks whether its device is still welcome.
        world.now_s = first_s + 4 * 3600
        request = pb.GetConfigurationRequest(known_etag=etag)
        stream = world.service.watch(request, Caller(token))
        await anext(stream)
        world.now_s += 3600
        world.directory.release_waiters()
        with contextlib.suppress(StopAsyncIteration):
            await asyncio.wait_for(anext(stream), 5)
        await world.service.flush()
        assert last_seen() == first_s + 5 * 3600

    play(tmp_path, work)


def test_every_change_reaches_a_device_that_polls_in_any_order(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        token = await world.register()
        got = await world.get(token)
        stop = False

        def change() -> int:
            for number in range(40):
                with world.database.write() as tx:
                    if number % 3:
                        devices.order_rekey(tx, devices.find(tx, "router"), number + 1)
                    else:
                        tenants.touch_all(tx)
            return 40

        changing = asyncio.create_task(asyncio.to_thread(change))
        versions = [got.version]
        while not stop:
            stop = changing.done()
            got_now = await world.get(token, got.etag)
            if not got_now.not_modified:
                got = got_now
                versions.append(got.version)
            await asyncio.sleep(0.01)
        await world.heard()
        last = await world.get(token, got.etag)
        got = got if last.not_modified else last
        assert versions == sorted(versions)
        with world.database.read() as tx:
            device = devices.find(tx, "router")
            tenant = tenants.find(tx, "acme")
        assert got.version == configuration.version_of(device.revision, tenant.revision)
        assert got.configuration.rekey_before.before_unix_s == device.rekey_before_s

    play(tmp_path, work)


def test_a_stream_ends_well_with_its_token_and_a_drain_lets_go(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        token = await world.register()
        stream = world.service.watch(pb.GetConfigurationRequest(), Caller(token))
        first = pb.GetConfigurationResponse.FromString(await anext(stream))
        assert first.configuration.peers.peers
        world.now_s += DAY_S
        with world.database.write() as tx:
            tenants.touch_all(tx)
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        fresh = await world.refresh(token)
        stream = world.service.watch(pb.GetConfigurationRequest(), Caller(fresh))
        got = pb.GetConfigurationResponse.FromString(await anext(stream))
        polling = asyncio.create_task(world.get(fresh, got.etag, wait_ms=50_000))
        watching = asyncio.ensure_future(anext(stream))
        await world.heard()
        assert world.directory.waiters == 2
        world.service.drain()
        assert (await polling).not_modified
        assert await refusal(watching) is RefusalCode.UNAVAILABLE

    play(tmp_path, work)


def test_a_thousand_waiters_are_woken_spread_over_time(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        token = await world.register()
        got = await world.get(token)
        await world.heard()
        loop = asyncio.get_running_loop()
        woken: list[float] = []

        async def wait() -> None:
            await world.get(token, got.etag, wait_ms=50_000)
            woken.append(loop.time())

        waiting = [asyncio.create_task(wait()) for _ in range(1000)]
        await world.heard()
        assert world.directory.waiters == 1000
        with world.database.write() as tx:
            tenants.touch_all(tx)
        await asyncio.gather(*waiting)
        # 500 a second: two seconds for all, and no tenth of a second takes more than a third.
        assert 1.5 < max(woken) - min(woken) < 10
        busiest = max(sum(0 <= other - at < 0.1 for other in woken) for at in woken)
        assert busiest < 334

    play(tmp_path, work)


def test_a_thousand_streams_are_let_go_and_asked_back_spread_over_time(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        token = await world.register()
        refusals: list[Refused] = []

        async def watch() -> None:
            try:
                async for _ in world.service.watch(pb.GetConfigurationRequest(), Caller(token)):
                    pass
            except Refused as refused:
                refusals.append(refused)

        watching = [asyncio.create_task(watch()) for _ in range(1000)]
        while world.directory.waiters < 1000:
            await asyncio.sleep(0.05)
        world.service.drain()
        await asyncio.gather(*watching)
        back_s = sorted(refused.retry_after_s for refused in refusals)
        assert len(back_s) == 1000
        assert back_s[0] >= 0.5
        assert back_s[-1] <= 10
        # About a hundred a second, never a rush.
        rush = max(sum(at <= other < at + 1 for other in back_s) for at in back_s[::20])
        assert rush < 170

    play(tmp_path, work)


def test_guessing_enrolment_tokens_is_slowed_down(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        codes = []
        for _ in range(25):
            request = pb.RegisterDeviceRequest(device_id="x", public_key=key())
            wrong = Caller("wte_" + "a" * 12 + "_wrong", "192.0.2.9")
            codes.append(await refusal(world.service.register(request, wrong)))
        assert codes == [RefusalCode.TOKEN_INVALID] * 20 + [RefusalCode.RATE_LIMITED] * 5
        await world.register()

    play(tmp_path, work)


def test_no_secret_reaches_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    seen: list[str] = []

    async def work(world: World) -> None:
        enrolment_token = world.token(1)
        seen.append(enrolment_token.rpartition("_")[2])
        request = pb.RegisterDeviceRequest(device_id="router", public_key=key())
        reply = await world.service.register(request, Caller(enrolment_token))
        seen.append(reply.token)
        got = await world.get(reply.token)
        seen.append(got.configuration.peers.peers[0].preshared_key)
        with pytest.raises(Refused):
            await world.service.register(request, Caller(enrolment_token + "x"))
        seen.append(repr(Caller(reply.token)))
        assert reply.token not in seen.pop()

    play(tmp_path, work)
    for as_json in (True, False):
        formatter = Formatter(as_json=as_json)
        text = "\n".join(formatter.format(record) for record in caplog.records)
        assert "router" in text
        for secret in seen:
            assert secret not in text


def test_a_log_line_is_one_line_whatever_stands_in_it() -> None:
    record = logging.makeLogRecord({"name": "x", "msg": "x", "device": 'a\nb="c"', "args": ()})
    for as_json in (True, False):
        assert "\n" not in Formatter(as_json=as_json).format(record)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**63), st.integers(0, 2**32 - 1), st.integers(0, 2**40), st.integers(0, 84))
def test_access_tokens_survive_only_unchanged(pk: int, generation: int, now: int, at: int) -> None:
    signer = TokenSigner(Keyring(bytes(32)))
    token = signer.issue(pk, generation, now, 10)
    assert signer.verify(token, now) == Claims(pk, generation, now, now + 10)
    at %= len(token)
    other = "A" if token[at] != "A" else "B"
    with pytest.raises(Refused):
        signer.verify(token[:at] + other + token[at + 1 :], now)
    with pytest.raises(Refused):
        TokenSigner(Keyring(bytes([1]) * 32)).verify(token, now)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=130))
def test_nonsense_is_no_access_token(text: str) -> None:
    signer = TokenSigner(Keyring(bytes(32)))
    for nonsense in (text, "wta1." + text, ("wta1." + text + "." * 99)[:85]):
        with pytest.raises(Refused):
            signer.verify(nonsense, 0)


def test_the_key_file_is_private_and_needed(tmp_path: Path) -> None:
    path = tmp_path / "root.key"
    first = Keyring.open(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert Keyring.open(path).derive("x") == first.derive("x") != first.derive("y")
    sealed = first.seal("name", b"secret")
    assert b"secret" not in sealed
    assert first.unseal("name", sealed) == b"secret"
    with pytest.raises(KeyringError, match="another key file"):
        first.unseal("other name", sealed)
    with pytest.raises(KeyringError, match="another key file"):
        Keyring(secrets.token_bytes(32)).unseal("name", sealed)
    path.chmod(0o640)
    with pytest.raises(KeyringError, match="chmod 600"):
        Keyring.open(path)
    path.chmod(0o600)
    path.write_bytes(b"short")
    with pytest.raises(KeyringError, match="backup"):
        Keyring.open(path)


PEERS = [
    ("ipv4:192.0.2.1:50000", "192.0.2.1"),
    ("ipv6:%5B2001:db8::1%5D:50000", "2001:db8::1"),
    ("ipv6:[2001:db8::1]:50000", "2001:db8::1"),
    ("unix:", ""),
]


@pytest.mark.parametrize(("peer", "host"), PEERS)
def test_peer_names(peer: str, host: str) -> None:
    assert host_of(peer) == host


def test_a_limiter_counts_networks_and_refills() -> None:
    limiter = Limiter(burst=2, per_s=0.5)
    for host in ("2001:db8::1", "2001:db8::2"):
        limiter.check(host, 0)
        limiter.take(host, 0)
    with pytest.raises(Refused) as caught:
        limiter.check("2001:db8::3", 0)
    assert caught.value.retry_after_s == pytest.approx(2)
    limiter.check("2001:db8:0:1::1", 0)
    limiter.check("2001:db8::3", 2)
    for number in range(20_000):
        limiter.take(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 0)
    limiter.check("2001:db8::3", 0)


ADDRESSES = [
    ("0.0.0.0:1", "0.0.0.0:1", False),
    ("[::1]:8443", "[::1]:8443", True),
    ("localhost:0", "localhost:0", True),
    ("127.9.9.9:65535", "127.9.9.9:65535", True),
]


@pytest.mark.parametrize(("text", "shown", "loopback"), ADDRESSES)
def test_listen_addresses(text: str, shown: str, loopback: bool) -> None:
    address = parse_address(text, "--listen")
    assert (address.text, address.is_loopback) == (shown, loopback)


@pytest.mark.parametrize("text", ["", "x", ":1", "a:b", "a:65536", "a:-1"])
def test_listen_addresses_that_cannot_be(text: str) -> None:
    with pytest.raises(SettingsError, match="--listen"):
        parse_address(text, "--listen")


def test_processes_that_start_together_make_one_key(tmp_path: Path) -> None:
    """Each sees a whole key file or none, and all have the same."""
    path, start = tmp_path / "root.key", threading.Barrier(8)

    def open_it(_number: int) -> bytes:
        start.wait()
        return Keyring.open(path).derive("test")

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(open_it, range(8)))) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["root.key"]
    assert path.stat().st_mode & 0o777 == 0o600
