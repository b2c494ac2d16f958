"""The server's own certificate: from files that somebody renews, or from our authority.

Files are read again when they change, the authority's certificate is made again a month
before it ends; both without a restart.
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import grpc

from wantastic.server.authority import SERVER_DAYS, Authority, ServerCertificate
from wantastic.server.settings import SettingsError

RENEW_BEFORE_S = 30 * 86_400
CHECK_S = 60.0
# Some thousand times what a handshake takes from asking to using.
SETTLE_S = 0.25


class CertificateSource:
    """Gives the certificate that is right now. Thread-safe: a reader sees one or the other."""

    def __init__(self, read: Callable[[], tuple[ServerCertificate, float]]) -> None:
        self._read = read
        self._current, self._mark = read()

    @classmethod
    def from_files(cls, certificate: Path, key: Path) -> CertificateSource:
        """Follow two PEM files."""

        def read() -> tuple[ServerCertificate, float]:
            try:
                mark = max(certificate.stat().st_mtime, key.stat().st_mtime)
                return ServerCertificate(certificate.read_bytes(), key.read_bytes()), mark
            except OSError as error:
                raise SettingsError(f"{error.filename}: {error.strerror}") from None

        source = cls(read)
        source.context()
        return source

    @classmethod
    def from_authority(cls, authority: Authority, hosts: tuple[str, ...]) -> CertificateSource:
        """Sign for ourselves; devices pin the root."""
        made: list[tuple[ServerCertificate, float]] = []
        valid_s = SERVER_DAYS * 86_400 - RENEW_BEFORE_S

        def read() -> tuple[ServerCertificate, float]:
            if not made or time.time() > made[0][1] + valid_s:
                made[:] = [(authority.sign_server(hosts, int(time.time())), time.time())]
            return made[0]

        return cls(read)

    @property
    def current(self) -> ServerCertificate:
        """Return the certificate and its key."""
        return self._current

    def refresh(self) -> bool:
        """Look again; True when there is another certificate. The old one stays on errors."""
        try:
            found, mark = self._read()
            if mark == self._mark:
                return False
            _load(found, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        except SettingsError:
            return False
        self._current, self._mark = found, mark
        return True

    def credentials(self, client_root: bytes | None) -> grpc.ServerCredentials:
        """Return what one gRPC listener needs; with a root it demands client certificates.

        gRPC asks before each handshake, one thread at a time, and takes None for "as before".
        """
        given = self._current

        def configuration() -> grpc.ServerCertificateConfiguration:
            pair = (given.private_key, given.chain)
            return grpc.ssl_server_certificate_configuration([pair], client_root)

        def renewed() -> grpc.ServerCertificateConfiguration | None:
            nonlocal given
            current = self._current
            if current is given:
                return None
            given = current
            # gRPC frees what it had while a handshake that has just asked may still be about
            # to use it (grpc issue 36693), which ends the process. Nobody else can ask now:
            # those who have are given time to take it.
            time.sleep(SETTLE_S)
            return configuration()

        return grpc.dynamic_ssl_server_credentials(
            configuration(),
            renewed,  # type: ignore[arg-type]  # (the stubs forget that it may give None)
            require_client_authentication=client_root is not None,
        )

    def context(self) -> ssl.SSLContext:
        """Return what an asyncio listener needs."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.load(context)
        return context

    def load(self, context: ssl.SSLContext) -> None:
        """Put the present certificate into a context; new connections use it."""
        _load(self._current, context)


def _load(certificate: ServerCertificate, context: ssl.SSLContext) -> None:
    # ssl reads files only; a memfd keeps the key out of every file system.
    descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, certificate.private_key + b"\n" + certificate.chain)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    except ssl.SSLError as error:
        raise SettingsError(f"--tls-cert, --tls-key: {error.reason}; do they match?") from None
    finally:
        os.close(descriptor)
