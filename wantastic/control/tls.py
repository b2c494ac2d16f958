"""TLS as the agent uses it: the roots to trust, the context of a client, the kind of failure.

Verification is never switched off, whatever the clock says. The roots are the operator's CA
file alone when there is one (pinning), otherwise the system's.
"""

from __future__ import annotations

import os
import re
import ssl
from pathlib import Path
from typing import Final

from wantastic.control.errors import LocalError, TransportError
from wantastic.control.transport import Tls

SYSTEM_ROOTS: Final = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/ssl/cert.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
)
MAX_ROOTS_BYTES: Final = 4 << 20
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.S)

# X509_V_ERR_* of OpenSSL.
_NOT_YET_VALID: Final = 9
_EXPIRED: Final = 10
_WRONG_NAME: Final = frozenset({62, 64})


def read_roots(ca_file: str, system: tuple[str, ...] = SYSTEM_ROOTS) -> bytes:
    """Return the PEM certificates to trust; LocalError when there are none."""
    if ca_file:
        try:
            return check_roots(_read(ca_file))
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise LocalError("ca_file", f"The CA file {ca_file} is not usable: {why}") from None
    wanted = (os.environ.get("SSL_CERT_FILE", ""), *system)
    for path in filter(None, wanted):
        try:
            return check_roots(_read(path))
        except (OSError, ValueError):
            continue
    raise LocalError("no_roots", "No CA certificates were found on this device")


def _read(path: str) -> bytes:
    with Path(path).open("rb") as file:
        return file.read(MAX_ROOTS_BYTES + 1)


def check_roots(pem: bytes) -> bytes:
    """Return the certificates in `pem` alone; ValueError when one is broken or none is there."""
    if len(pem) > MAX_ROOTS_BYTES:
        raise ValueError("it is larger than 4 MiB")
    found = _CERTIFICATE.findall(pem)
    if not found:
        raise ValueError("it holds no PEM certificate")
    result = b"\n".join(found) + b"\n"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=result.decode("ascii"))
    except (ssl.SSLError, UnicodeDecodeError):
        raise ValueError("a certificate in it cannot be read") from None
    return result


def client_context(tls: Tls, alpn: str = "h2") -> ssl.SSLContext:
    """Return a verifying context; LocalError when the client's pair does not fit together."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cadata=tls.roots_pem.decode("ascii"))
    context.set_alpn_protocols([alpn])
    if tls.chain_pem:
        _load_pair(context, tls)
    return context


def _load_pair(context: ssl.SSLContext, tls: Tls) -> None:
    """Give OpenSSL the client's chain and key, which it takes from a file only.

    The file has no name: memfd is RAM, not flash, and nobody else can open it.
    """
    descriptor = -1
    try:
        descriptor = _file_in_memory()
        os.write(descriptor, tls.chain_pem + b"\n" + tls.key_pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    except (OSError, ssl.SSLError):
        raise LocalError(
            "client_certificate", "The client certificate and its key do not fit together"
        ) from None
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _file_in_memory() -> int:
    try:
        return os.memfd_create("client", os.MFD_CLOEXEC)
    except OSError:  # kernels before 3.17
        return os.open("/dev/shm", os.O_TMPFILE | os.O_RDWR, 0o600)


def explain(error: ssl.SSLError, server: str, *, clock_is_wrong: bool) -> TransportError:
    """Return what a failed handshake means."""
    if isinstance(error, ssl.SSLCertVerificationError):
        code = error.verify_code
        if code in (_NOT_YET_VALID, _EXPIRED):
            name = "tls_not_yet_valid" if code == _NOT_YET_VALID else "tls_expired"
            state = "is not yet valid" if code == _NOT_YET_VALID else "has expired"
            if clock_is_wrong:
                return TransportError(
                    "clock_wrong",
                    f"The certificate of {server} {state} by this device's clock, which is wrong",
                )
            return TransportError(name, f"The certificate of {server} {state}")
        if code in _WRONG_NAME:
            return TransportError("tls_wrong_name", f"The certificate is not for {server}")
        why = error.verify_message.rstrip(".")
        return TransportError("tls_untrusted", f"The certificate of {server} is not trusted: {why}")
    reason = getattr(error, "reason", None) or "the handshake failed"
    if reason in ("HTTP_REQUEST", "WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):
        return TransportError("tls", f"{server} does not speak TLS on this port")
    if "ALERT" in reason and ("CERTIFICATE" in reason or "UNKNOWN_CA" in reason):
        return TransportError("tls_client_refused", f"{server} refused our certificate ({reason})")
    return TransportError("tls", f"TLS with {server} failed ({reason})")
