"""The reference server over real gRPC on SQLite: the contract's flows as a device sees them."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf import descriptor_pool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from tests.support import server as support
from tests.support.server import Caller, ServerProcess, error_of, eventually, key, operate
from wantastic.control import auth_pb2 as pb
from wantastic.control import methods


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    state = tmp_path_factory.mktemp("server") / "state"
    support.set_gateway(state)
    operate(state, "tenant", "create", "default", "--ipv4", "10.9.0.0/16")
    return state


@pytest.fixture(scope="module")
def server(state: Path) -> Iterator[ServerProcess]:
    options = ("--insecure", "--metrics-listen", "127.0.0.1:0")
    with support.serving(state, *options) as server:
        yield server


@pytest.fixture
def caller(server: ServerProcess) -> Iterator[Caller]:
    with grpc.insecure_channel(server.target) as channel:
        yield Caller(channel)


def failure(action: Callable[[], object]) -> pb.Error:
    """Return the contract's error; the gRPC status must be the one that goes with it."""
    with pytest.raises(grpc.RpcError) as caught:
        action()
    error = error_of(caught.value)
    status: grpc.StatusCode = caught.value.code()
    assert methods.GRPC_STATUS[error.code] == status.name, error
    assert error.reason
    return error


@pytest.mark.parametrize("prefix", methods.PREFIXES)
def test_enrol_configure_refresh_on_both_paths(
    server: ServerProcess, state: Path, prefix: str
) -> None:
    token = support.new_token(state)
    with grpc.insecure_channel(server.target) as channel:
        caller = Caller(channel, prefix)
        device_id = f"router-{prefix.count('grpc')}"
        registered = caller.register(
            token, device_id, key(), agent=pb.AgentInfo(version="1", os="linux", arch="mips")
        )
        assert registered.success
        assert registered.endpoint == "192.0.2.1:51820"
        assert registered.token_terms.lifetime_s == 86_400
        assert set(registered.server.capabilities) >= {"watch", "long_poll", "certificate"}
        got = caller.configuration(registered.token)
        assert got.configuration.peers.peers[0].public_key == registered.server_key
        assert got.configuration.addresses.addresses[0].startswith("10.9.")
        assert got.configuration.addresses.addresses[0].endswith("/32")
        again = caller.configuration(registered.token, got.etag)
        assert again.not_modified
        assert again.version == got.version
        assert not again.HasField("configuration")
        refreshed = caller.call(
            "RefreshToken", pb.RefreshTokenRequest(device_id=device_id), registered.token
        )
        for valid in (registered.token, refreshed.token):
            assert caller.configuration(valid, got.etag).not_modified
    rows = [r for r in operate(state, "device", "list") if r["device_id"] == device_id]
    assert rows[0]["agent"] == "1 linux mips"


def test_a_hundred_parallel_redemptions_yield_exactly_one(
    server: ServerProcess, state: Path
) -> None:
    token = support.new_token(state)
    with grpc.insecure_channel(server.target) as channel:
        caller = Caller(channel)

        def redeem(number: int) -> int:
            try:
                caller.register(token, f"parallel-{number}", key())
            except grpc.RpcError as error:
                return error_of(error).code
            return 0

        with ThreadPoolExecutor(50) as pool:
            outcomes = list(pool.map(redeem, range(100)))
    assert outcomes.count(0) == 1
    assert outcomes.count(pb.ERROR_TOKEN_USED) == 99


def test_a_repeated_registration_gives_the_same_answer(caller: Caller, state: Path) -> None:
    token, public_key = support.new_token(state), key()
    first = caller.register(token, "twice", public_key)
    second = caller.register(token, "twice", public_key)
    assert second.device_id == first.device_id
    one, two = (caller.configuration(reply.token) for reply in (first, second))
    assert one.configuration == two.configuration


def test_errors_are_coded_and_carry_a_remedy(caller: Caller, state: Path) -> None:
    token = support.new_token(state, "--reusable")
    first = caller.register(token, "errors", key())
    assert failure(lambda: caller.configuration("")).code == pb.ERROR_TOKEN_INVALID
    assert failure(lambda: caller.configuration("nonsense")).code == pb.ERROR_TOKEN_INVALID
    forged = first.token[:-1] + ("A" if first.token[-1] != "A" else "B")
    assert failure(lambda: caller.configuration(forged)).code == pb.ERROR_TOKEN_INVALID
    error = failure(lambda: caller.register(token, "errors", key()))
    assert (error.code, error.field) == (pb.ERROR_DEVICE_ID_IN_USE, "device_id")
    assert error.remedy
    error = failure(lambda: caller.register(token, "other", "AAAA"))
    assert (error.code, error.field) == (pb.ERROR_INVALID_REQUEST, "public_key")
    error = failure(lambda: caller.configuration(first.token, device_id="somebody"))
    assert (error.code, error.field) == (pb.ERROR_INVALID_REQUEST, "device_id")
    error = failure(lambda: caller.register(token, "errors3", key(), tenant_id="nobody"))
    assert error.code == pb.ERROR_TENANT_UNKNOWN


def test_a_long_poll_ends_with_the_change_and_a_removed_device_is_told(
    caller: Caller, state: Path
) -> None:
    registered = caller.register(support.new_token(state), "poller", key())
    got = caller.configuration(registered.token)
    began = time.monotonic()
    idle = caller.configuration(registered.token, got.etag, wait_ms=600)
    assert idle.not_modified
    assert time.monotonic() - began >= 0.5
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(
            lambda: caller.configuration(registered.token, got.etag, wait_ms=15_000)
        )
        time.sleep(0.3)
        operate(state, "device", "rekey", "poller", "--within", "1h")
        changed = waiting.result(5)
        assert changed.version > got.version
        assert changed.configuration.rekey_before.before_unix_s > time.time()
        waiting_2 = pool.submit(
            lambda: failure(
                lambda: caller.configuration(registered.token, changed.etag, wait_ms=15_000)
            )
        )
        time.sleep(0.3)
        operate(state, "device", "remove", "poller")
        assert waiting_2.result(5).code == pb.ERROR_DEVICE_REMOVED


def test_a_stream_speaks_at_once_and_brings_each_change(caller: Caller, state: Path) -> None:
    registered = caller.register(support.new_token(state), "watcher", key())
    stream = caller.call("WatchConfiguration", pb.GetConfigurationRequest(), registered.token)
    first = next(stream)
    assert first.configuration.peers.peers
    settings = state.parent / "settings.json"
    settings.write_text(json.dumps({"mtu_bytes": 1300, "dns_servers": ["10.9.0.1"]}))
    operate(state, "tenant", "set", "default", "--settings", str(settings))
    second = next(stream)
    assert second.configuration.mtu == 1300
    assert list(second.configuration.dns.servers) == ["10.9.0.1"]
    operate(state, "device", "revoke", "watcher")
    with pytest.raises(grpc.RpcError) as caught:
        next(stream)
    assert error_of(caught.value).code == pb.ERROR_TOKEN_REVOKED


def test_reports_reach_the_operator_and_cost_no_version(caller: Caller, state: Path) -> None:
    registered = caller.register(support.new_token(state), "reporter", key())
    got = caller.configuration(registered.token)
    caller.configuration(
        registered.token,
        got.etag,
        applied_version=got.version,
        apply_error=pb.ApplyError(
            version=got.version, code=pb.APPLY_ERROR_NO_HANDSHAKE, reason="no answer"
        ),
    )

    def reported() -> bool:
        row = next(r for r in operate(state, "device", "list") if r["device_id"] == "reporter")
        return row["applied_version"] == got.version and "NO_HANDSHAKE" in row["apply_error"]

    assert eventually(reported)
    assert caller.configuration(registered.token, got.etag).not_modified


def test_a_static_key_rotates_or_rolls_back(caller: Caller, state: Path) -> None:
    old, new, newer = key(), key(), key()
    registered = caller.register(support.new_token(state), "rotating", old)
    caller.register(registered.token, "rotating", new, replaces_public_key=old)

    def public_key() -> str:
        row = next(r for r in operate(state, "device", "list") if r["device_id"] == "rotating")
        return str(row["public_key"])

    assert public_key() == old
    caller.configuration(registered.token, public_key=new)
    assert public_key() == new
    caller.register(registered.token, "rotating", newer, replaces_public_key=new)
    caller.configuration(
        registered.token,
        public_key=new,
        apply_error=pb.ApplyError(code=pb.APPLY_ERROR_NO_HANDSHAKE),
    )
    caller.configuration(registered.token, public_key=newer)
    assert public_key() == new


def test_not_modified_reads_no_database(server: ServerProcess, caller: Caller, state: Path) -> None:
    registered = caller.register(support.new_token(state), "cheap", key())
    got = caller.configuration(registered.token)
    caller.configuration(registered.token, got.etag)
    before = metric(server, "wantastic_server_directory_reads")
    for _ in range(50):
        assert caller.configuration(registered.token, got.etag).not_modified
    assert metric(server, "wantastic_server_directory_reads") == before


def metric(server: ServerProcess, name: str) -> float:
    url = f"http://127.0.0.1:{server.ports['metrics']}/metrics"
    with urllib.request.urlopen(url, timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return float(next(line for line in lines if line.startswith(name + " ")).split()[1])


def test_health_reflection_and_metrics(server: ServerProcess, state: Path) -> None:
    with grpc.insecure_channel(server.target) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for name in ("", "AuthService", "grpc.AuthService"):
            answer = stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        database = ProtoReflectionDescriptorDatabase(channel)
        assert set(database.get_services()) >= {"AuthService", "grpc.AuthService"}
        pool = descriptor_pool.DescriptorPool(database)
        for name in ("AuthService", "grpc.AuthService"):
            service = pool.FindServiceByName(name)
            assert {m.name for m in service.methods} == {m.name for m in methods.METHODS}
    assert metric(server, "wantastic_server_hears_changes") == 1
    url = f"http://127.0.0.1:{server.ports['metrics']}/healthz"
    with urllib.request.urlopen(url, timeout=5) as answer:
        assert answer.read() == b"ok\n"


def test_tls_client_certificates_and_the_second_listener(tmp_path: Path) -> None:
    state = tmp_path / "state"
    support.set_gateway(state)
    token, other = support.new_token(state), support.new_token(state)
    options = ("--host", "localhost", "--host", "127.0.0.1", "--mtls-listen", "127.0.0.1:0")
    with support.serving(state, *options) as server:
        root = (state / "ca.pem").read_bytes()
        private, request = certificate_request()
        credentials = grpc.ssl_channel_credentials(root)
        with grpc.secure_channel(f"localhost:{server.ports['grpc']}", credentials) as channel:
            caller = Caller(channel)
            registered = caller.register(token, "tls", key(), certificate_request=request)
            stranger = caller.register(other, "stranger", key())
            error = failure(lambda: caller.register(token, "tls", key(), certificate_request=b"no"))
            assert error.code in (pb.ERROR_DEVICE_ID_IN_USE, pb.ERROR_CERTIFICATE_REQUEST)
        leaf = x509.load_der_x509_certificate(registered.certificate_chain.certificates[0])
        leaf.verify_directly_issued_by(x509.load_pem_x509_certificate(root))
        mutual = grpc.ssl_channel_credentials(
            root, private, leaf.public_bytes(serialization.Encoding.PEM)
        )
        with grpc.secure_channel(f"localhost:{server.ports['mtls']}", mutual) as channel:
            caller = Caller(channel)
            assert caller.configuration(registered.token).etag
            error = failure(lambda: caller.configuration(stranger.token))
            assert error.code == pb.ERROR_CERTIFICATE_REQUIRED
        with (
            grpc.secure_channel(f"localhost:{server.ports['mtls']}", credentials) as channel,
            pytest.raises(grpc.RpcError),
        ):
            Caller(channel).configuration(registered.token)
        context = ssl.create_default_context(cadata=root.decode())
        assert context.verify_mode is ssl.CERT_REQUIRED
    for secret in (token, other, registered.token):
        assert secret not in server.log.read_text()
    assert (state / "root.key").stat().st_mode & 0o077 == 0
    assert (state / "server.db").stat().st_mode & 0o077 == 0


def certificate_request() -> tuple[bytes, bytes]:
    private = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return (
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
        request.sign(private, hashes.SHA256()).public_bytes(serialization.Encoding.DER),
    )


def test_draining_lets_everybody_go_and_loses_nothing(tmp_path: Path) -> None:
    state = tmp_path / "state"
    support.set_gateway(state)
    token = support.new_token(state, "--reusable")
    with support.serving(state, "--insecure") as server:
        with grpc.insecure_channel(server.target) as channel:
            caller = Caller(channel)
            tokens = [caller.register(token, f"d{n}", key()).token for n in range(5)]
            etags = [caller.configuration(t).etag for t in tokens]
            ended: list[pb.Error] = []

            def watch(number: int) -> None:
                request = pb.GetConfigurationRequest(known_etag=etags[number])
                try:
                    for _ in caller.call("WatchConfiguration", request, tokens[number], 30):
                        pass
                except grpc.RpcError as error:
                    ended.append(error_of(error))

            threads = [threading.Thread(target=watch, args=(n,)) for n in range(5)]
            for thread in threads:
                thread.start()
            caller.configuration(tokens[0], etags[0], applied_version=7)
            time.sleep(0.3)
            began = time.monotonic()
            assert server.stop() == 0
            assert time.monotonic() - began < 10
            for thread in threads:
                thread.join(5)
        assert [error.code for error in ended] == [pb.ERROR_UNAVAILABLE] * 5
        assert all(error.retry_after_ms for error in ended)
    rows = operate(state, "device", "list")
    assert next(r for r in rows if r["device_id"] == "d0")["applied_version"] == 7


def test_a_connection_that_never_goes_does_not_hold_up_the_drain(tmp_path: Path) -> None:
    state = tmp_path / "state"
    support.set_gateway(state)
    with (
        support.serving(state, "--insecure", "--drain", "30") as server,
        socket.create_connection(("127.0.0.1", server.ports["grpc"])) as vanished,
    ):
        # HTTP/2 as it begins, SETTINGS without any; then nothing more, whatever is said.
        vanished.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)))
        vanished.settimeout(5)
        assert vanished.recv(9)[3] == 4
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 10


def test_what_was_acknowledged_survives_being_killed(tmp_path: Path) -> None:
    state = tmp_path / "state"
    support.set_gateway(state)
    token = support.new_token(state, "--reusable")
    acknowledged: dict[str, str] = {}
    for round_number in range(6):
        with (
            support.serving(state, "--insecure", name=f"round-{round_number}") as server,
            grpc.insecure_channel(server.target) as channel,
        ):
            caller = Caller(channel)

            def register(number: int, caller: Caller = caller, r: int = round_number) -> None:
                name = f"d{r}-{number}"
                try:
                    registered = caller.register(token, name, key())
                except grpc.RpcError:
                    return
                acknowledged[name] = registered.token

            with ThreadPoolExecutor(8) as pool:
                jobs = [pool.submit(register, number) for number in range(400)]
                wanted = len(acknowledged) + 15
                while len(acknowledged) < wanted:
                    time.sleep(0.01)
                server.process.kill()
                server.process.wait()
                for job in jobs:
                    job.cancel()
    with support.serving(state, "--insecure", name="last") as server:
        with grpc.insecure_channel(server.target) as channel:
            caller = Caller(channel)
            addresses = {
                caller.configuration(t).configuration.addresses.addresses[0]
                for t in acknowledged.values()
            }
        assert len(addresses) == len(acknowledged) >= 90
    stored = {row["device_id"] for row in operate(state, "device", "list")}
    assert set(acknowledged) <= stored


def test_insecure_is_for_loopback_only(tmp_path: Path) -> None:
    public = ("--insecure", "--listen", "0.0.0.0:0")
    with (
        pytest.raises(RuntimeError, match="not loopback"),
        support.serving(tmp_path / "s", *public),
    ):
        pass
