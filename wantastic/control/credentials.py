"""What the agent keeps from one run to the next about a control server.

One record on flash, 0600, written only when it changes. A token belongs to the server that
issued it: one that is asked for by another server is not sent.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Protocol

from wantastic.control.certificate import Certificate, check_chain
from wantastic.control.configuration import NOT_REGISTERED, Registration
from wantastic.control.token import NO_TERMS, Terms


class Record(Protocol):
    """One value on flash; wantastic.store has them."""

    def read(self) -> bytes | None: ...
    def write(self, payload: bytes) -> bool: ...
    def remove(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Credentials:
    """The outcome of an enrolment."""

    server: str = ""
    """The control server as configured, host:port."""
    device_id: str = ""
    tenant_id: str = ""
    token: str = field(default="", repr=False)
    terms: Terms = NO_TERMS
    saved_unix_s: float = 0.0
    enrolled_with: str = ""
    """fingerprint() of the enrolment token, to notice that the operator gave another."""
    registration: Registration = NOT_REGISTERED
    capabilities: tuple[str, ...] = ()
    certificate: Certificate | None = None

    def render(self) -> bytes:
        value: dict[str, Any] = {
            "server": self.server,
            "device_id": self.device_id,
            "tenant_id": self.tenant_id,
            "token": self.token,
            "lifetime_s": self.terms.lifetime_s,
            "refresh_after_s": self.terms.refresh_after_s,
            "saved_unix_s": self.saved_unix_s,
            "enrolled_with": self.enrolled_with,
            "server_key": self.registration.server_key,
            "endpoint": self.registration.endpoint,
            "capabilities": list(self.capabilities),
        }
        if self.certificate:
            value["tls_key"] = _text(self.certificate.key_der)
            value["tls_chain"] = [_text(der) for der in self.certificate.chain]
        return json.dumps(value).encode()

    @classmethod
    def parse(cls, data: bytes) -> Credentials | None:
        """Return what render() wrote; None for anything else."""
        try:
            value = json.loads(data)
            return cls(
                server=_string(value, "server"),
                device_id=_string(value, "device_id"),
                tenant_id=_string(value, "tenant_id"),
                token=_string(value, "token"),
                terms=Terms(int(value["lifetime_s"]), int(value["refresh_after_s"])),
                saved_unix_s=float(value["saved_unix_s"]),
                enrolled_with=_string(value, "enrolled_with"),
                registration=Registration(_string(value, "server_key"), _string(value, "endpoint")),
                capabilities=tuple(str(c) for c in value["capabilities"]),
                certificate=_certificate(value),
            )
        except (ValueError, KeyError, TypeError, OverflowError):
            return None


def _string(value: dict[str, Any], name: str) -> str:
    found = value[name]
    if not isinstance(found, str):
        raise TypeError(name)
    return found


def _certificate(value: dict[str, Any]) -> Certificate | None:
    if "tls_key" not in value:
        return None
    chain = tuple(base64.b64decode(der, validate=True) for der in value["tls_chain"])
    if chain:
        check_chain(chain)
    return Certificate(base64.b64decode(value["tls_key"], validate=True), chain)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def fingerprint(token: str) -> str:
    """Return what tells enrolment tokens apart without being one."""
    return hashlib.sha256(b"enrolment token " + token.encode()).hexdigest()[:16] if token else ""
