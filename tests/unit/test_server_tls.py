"""The server's certificate: read again when it changes, given to gRPC once, under handshakes."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.server import eventually
from wantastic.server import authority, tls
from wantastic.server.authority import ServerCertificate
from wantastic.server.tls import CertificateSource

# Listens, prints its port, and looks at its files again with each line that it reads.
LISTENER = """
import asyncio, sys
from pathlib import Path
import grpc
from wantastic.server.tls import CertificateSource

async def main():
    source = CertificateSource.from_files(*map(Path, sys.argv[1:]))
    server = grpc.aio.server()
    port = server.add_secure_port("127.0.0.1:0", source.credentials(None))
    await server.start()
    print(port, flush=True)
    while await asyncio.to_thread(sys.stdin.readline):
        print(source.refresh(), flush=True)
    await server.stop(None)

asyncio.run(main())
"""


class Files:
    """A certificate and a key, which somebody renews."""

    def __init__(self, folder: Path) -> None:
        self.paths = folder / "chain.pem", folder / "key.pem"
        self._writes = 0
        key = ec.generate_private_key(ec.SECP256R1())
        self._authority = authority.Authority(key, authority._self_signed(key, int(time.time())))
        self.current = self.renew()

    def write(self, chain: bytes, private_key: bytes) -> None:
        self._writes += 1
        for path, content in zip(self.paths, (chain, private_key), strict=True):
            path.write_bytes(content)
            os.utime(path, (self._writes, self._writes))

    def renew(self) -> ServerCertificate:
        self.current = self._authority.sign_server(("localhost",), int(time.time()))
        self.write(self.current.chain, self.current.private_key)
        return self.current


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_files_are_followed_and_bad_ones_are_not(files: Files) -> None:
    source = CertificateSource.from_files(*files.paths)
    first = files.current
    assert source.current == first
    assert not source.refresh()
    second = files.renew()
    assert source.refresh()
    assert source.current == second
    # A key that is not there yet: what was stays, and the next look sees the whole.
    files.write(first.chain, second.private_key)
    assert not source.refresh()
    assert not source.refresh()
    assert source.current == second
    files.write(first.chain, first.private_key)
    assert source.refresh()
    assert source.current == first
    files.paths[0].unlink()
    assert not source.refresh()
    assert source.current == first


def test_each_listener_is_given_a_certificate_once(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetchers: list[Any] = []

    def dynamic(first: Any, fetch: Any, **_: object) -> None:
        assert isinstance(first, grpc.ServerCertificateConfiguration)
        fetchers.append(fetch)

    waited: list[float] = []
    monkeypatch.setattr(grpc, "dynamic_ssl_server_credentials", dynamic)
    monkeypatch.setattr(tls.time, "sleep", waited.append)
    source = CertificateSource.from_files(*files.paths)
    source.credentials(None)
    source.credentials(files.current.chain)
    for fetch in fetchers:
        assert fetch() is None
    files.renew()
    assert source.refresh()
    for fetch in fetchers:
        assert isinstance(fetch(), grpc.ServerCertificateConfiguration)
        assert fetch() is None
    # Before gRPC lets go of what it had, whoever has just asked takes it.
    assert waited == [tls.SETTLE_S] * 2


def test_handshakes_beside_renewals_end_nothing(files: Files) -> None:
    # With a certificate given at each handshake, gRPC's core ends this process in most runs.
    process = subprocess.Popen(
        [sys.executable, "-c", LISTENER, *map(str, files.paths)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    over = threading.Event()
    made = [0] * 4
    with process:
        port = int(process.stdout.readline())

        def shake(number: int) -> None:
            while not over.is_set():
                if presented(port):
                    made[number] += 1

        threads = [threading.Thread(target=shake, args=(n,)) for n in range(len(made))]
        for thread in threads:
            thread.start()
        try:
            for _ in range(5):
                before = sum(made)
                chain = files.renew().chain
                process.stdin.write("look\n")
                process.stdin.flush()
                assert process.stdout.readline() == "True\n"
                assert eventually(lambda: presented(port) == der(chain))  # noqa: B023
                assert eventually(lambda: sum(made) > before + 300, 60)  # noqa: B023
                assert process.poll() is None
        finally:
            over.set()
            for thread in threads:
                thread.join()
            process.stdin.close()
        assert process.wait(20) == 0


def der(pem: bytes) -> bytes:
    """Return a certificate's other form."""
    return x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)


def presented(port: int) -> bytes | None:
    """Return the certificate of a handshake (DER), None when there is no answer."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        with (
            socket.create_connection(("127.0.0.1", port), 10) as plain,
            context.wrap_socket(plain) as secure,
        ):
            return secure.getpeercert(binary_form=True)
    except OSError:
        return None
