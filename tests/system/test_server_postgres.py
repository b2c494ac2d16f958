"""Two server processes on one real PostgreSQL: one fleet, one truth."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from tests.support import postgres
from tests.support import server as support
from tests.support.postgres import Cluster
from tests.support.server import Caller, ServerProcess, error_of, eventually, key, operate
from wantastic.control import auth_pb2 as pb
from wantastic.server import main


class Pair:
    """Two servers, a caller for each, and their database."""

    def __init__(
        self, cluster: Cluster, database: str, servers: tuple[ServerProcess, ServerProcess]
    ) -> None:
        self.cluster = cluster
        self.database = database
        self.servers = servers
        self.state = servers[0].state
        self.channels = [grpc.insecure_channel(server.target) for server in servers]
        self.callers = [Caller(channel) for channel in self.channels]

    def operate(self, *arguments: str) -> list[dict[str, object]]:
        return operate(self.state, *arguments, database=self.database)

    def token(self, *options: str) -> str:
        return support.new_token(self.state, *options, database=self.database)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    state = tmp_path_factory.mktemp("pair") / "state"
    with postgres.running() as cluster:
        database = cluster.new_database()
        assert main.main(["database", "migrate", "--database", database]) == 0
        support.set_gateway(state, database)
        first = support.serving(state, "--insecure", database=database, name="first")
        second = support.serving(state, "--insecure", database=database, name="second")
        with first as one, second as two:
            pair = Pair(cluster, database, (one, two))
            yield pair
            for channel in pair.channels:
                channel.close()
        for server in (one, two):
            assert "Traceback" not in server.log.read_text()


def test_a_hundred_redemptions_over_both_processes_yield_exactly_one(pair: Pair) -> None:
    token = pair.token()

    def redeem(number: int) -> int:
        try:
            pair.callers[number % 2].register(token, f"one-{number}", key())
        except grpc.RpcError as error:
            return error_of(error).code
        return 0

    with ThreadPoolExecutor(50) as pool:
        outcomes = list(pool.map(redeem, range(100)))
    assert outcomes.count(0) == 1
    assert outcomes.count(pb.ERROR_TOKEN_USED) == 99


def test_parallel_registrations_get_addresses_of_their_own(pair: Pair) -> None:
    token = pair.token("--reusable")

    def register(number: int) -> str:
        caller = pair.callers[number % 2]
        registered = caller.register(token, f"many-{number}", key())
        return caller.configuration(registered.token).configuration.addresses.addresses[0]

    with ThreadPoolExecutor(20) as pool:
        addresses = list(pool.map(register, range(200)))
    assert len(set(addresses)) == 200


def test_what_one_process_registers_the_other_serves_and_changes_reach_both(pair: Pair) -> None:
    one, two = pair.callers
    registered = one.register(pair.token(), "shared", key())
    got = two.configuration(registered.token)
    assert one.configuration(registered.token, got.etag).not_modified
    with ThreadPoolExecutor(2) as pool:
        waiting = [
            pool.submit(c.configuration, registered.token, got.etag, wait_ms=15_000)
            for c in pair.callers
        ]
        time.sleep(0.5)
        began = time.monotonic()
        pair.operate("device", "rekey", "shared")
        changed = [future.result(5) for future in waiting]
        assert time.monotonic() - began < 5
    assert changed[0].etag == changed[1].etag != got.etag
    pair.operate("device", "remove", "shared")
    for caller in pair.callers:
        assert eventually(lambda caller=caller: is_removed(caller, registered.token), 3)


def is_removed(caller: Caller, token: str) -> bool:
    try:
        caller.configuration(token)
    except grpc.RpcError as error:
        return error_of(error).code == pb.ERROR_DEVICE_REMOVED
    return False


def test_a_cut_database_connection_costs_no_change(pair: Pair) -> None:
    registered = pair.callers[0].register(pair.token(), "cut", key())
    etags = [caller.configuration(registered.token).etag for caller in pair.callers]
    pair.cluster.cut_connections()
    pair.operate("device", "rekey", "cut")
    for caller, etag in zip(pair.callers, etags, strict=True):
        assert eventually(
            lambda caller=caller, etag=etag: has_changed(caller, registered.token, etag), 10
        )


def has_changed(caller: Caller, token: str, etag: str) -> bool:
    try:
        return not caller.configuration(token, etag).not_modified
    except grpc.RpcError as error:
        if error_of(error).code != pb.ERROR_UNAVAILABLE:
            raise
        return False


def test_one_process_restarts_and_the_fleet_goes_on(pair: Pair, tmp_path: Path) -> None:
    registered = pair.callers[0].register(pair.token(), "survivor", key())
    got = pair.callers[0].configuration(registered.token)
    with support.serving(pair.state, "--insecure", database=pair.database, name="third") as server:
        with grpc.insecure_channel(server.target) as channel:
            assert Caller(channel).configuration(registered.token, got.etag).not_modified
        assert server.stop() == 0
    assert pair.callers[1].configuration(registered.token, got.etag).not_modified
