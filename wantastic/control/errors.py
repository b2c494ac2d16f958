"""Why something did not work, as a code, a sentence and a remedy.

Three kinds, by whose fault it is: LocalError (this device: no token, wrong clock, no
space), TransportError (nothing intelligible came back), RemoteError (the server answered
and refused, or answered nonsense). A code is stable and made of a-z and "_": status
output, logs and metrics carry it. No message ever carries a token or a key.
"""

from __future__ import annotations

import os
from typing import Final


class ControlError(Exception):
    """Base: `code` is stable, `reason` says what is, `remedy` what to do about it."""

    def __init__(
        self, code: str, reason: str, remedy: str = "", *, retry_after_s: float = 0.0
    ) -> None:
        super().__init__(f"{reason} ({code})")
        self.code = code
        self.reason = reason
        self.remedy = remedy or REMEDIES.get(code, "")
        self.retry_after_s = retry_after_s


class LocalError(ControlError):
    """This device cannot do it; asking the server again does not help by itself."""


class TransportError(ControlError):
    """No usable answer came from the control server."""


class RemoteError(ControlError):
    """The control server answered, and refused or made no sense."""


def unreachable(address: object, error: OSError) -> TransportError:
    """Return what to say of an address that no connection can be made to.

    The reason comes from the number: asyncio writes "Connect call failed" for every one.
    """
    # Numbers of failed name lookups are negative and have texts of their own.
    number = error.errno or 0
    why = os.strerror(number) if number > 0 else error.strerror or error
    return TransportError("unreachable", f"{address} cannot be reached: {why}")


REMEDIES: Final[dict[str, str]] = {
    # This device.
    "no_token": "Pass an enrolment token with -token-file, or enrol with -auth-url.",
    "token_file": "Check the path and its permissions; the file holds one line, the token.",
    "bad_url": "Write it as https://HOST/PATH.",
    "plaintext": 'Use TLS. Without it only a loopback address with "insecure": true is possible.',
    "ca_file": "Point auth.ca_file at a PEM file with the certificate authority's certificate.",
    "no_roots": "Install CA certificates (ca-certificates) or set auth.ca_file.",
    "client_certificate": "Check auth.client_cert_file and auth.client_key_file: PEM, a pair.",
    "no_transport": "Install grpcio, or grpclib and set auth.transport to grpclib.",
    "clock_wrong": "Set the clock (NTP). The tunnel runs from the stored configuration meanwhile.",
    # The way there.
    "name_not_found": "Check auth.server_url and this device's DNS.",
    "name_lookup": "Check this device's DNS and its way to the internet.",
    "refused": "Check the port in auth.server_url and whether the server runs.",
    "unreachable": "Check this device's way to the internet and its firewall.",
    "connect_timeout": "Check this device's way to the internet and its firewall.",
    "timeout": "The server is slow or the way to it loses packets; the agent tries again.",
    "lost": "The agent connects again by itself.",
    "tls_untrusted": "Set auth.ca_file when the server has a private CA; otherwise someone "
    "intercepts this connection.",
    "tls_wrong_name": "The certificate is for another name: check auth.server_url, or set "
    "auth.server_name.",
    "tls_expired": "Check this device's clock; when it is right, renew the server's certificate.",
    "tls_not_yet_valid": "Check this device's clock; NTP may not have set it yet.",
    "tls": "Check that the server speaks TLS 1.2 or newer on this port.",
    "tls_client_refused": "The server refused the client certificate; enrol the device again.",
    "not_grpc": "Something that is no gRPC server answers there: check host and port, and for "
    "an HTTP/1 proxy in between.",
    "captive_portal": "A web page answers in the server's place: log in at the captive portal "
    "of this network.",
    "too_large": "The server sent more than the agent takes; report it to the server's operator.",
    # The server's answer.
    "bad_message": "The server's answer cannot be read: check it with `wantasticd conformance`.",
    "unimplemented": "The server does not know the AuthService: check host and port.",
    "server_failed": "Look into the server's log; the agent tries again.",
    "invalid_request": "Upgrade the agent or the server: they do not understand each other.",
    "token_invalid": "Get a new enrolment token from the operator.",
    "token_expired": "Get a new enrolment token from the operator.",
    "token_used": "The one-off token belongs to another device: get a new one.",
    "token_revoked": "Get a new enrolment token from the operator.",
    "tenant_unknown": "Check tenant_id.",
    "device_unknown": "The agent registers again; if that is refused, pass a new token.",
    "device_removed": "An operator removed this device; ask for a new enrolment token.",
    "device_pending": "Ask the operator to approve this device.",
    "device_limit": "Remove devices that are no longer used, or raise the tenant's limit.",
    "key_in_use": "Another device has this key (a cloned image?): remove the state folder.",
    "device_id_in_use": "Choose another device_id.",
    "no_address": "The tunnel's address range is used up: enlarge it on the server.",
    "certificate_request": "Upgrade the agent or the server: they do not understand each other.",
    "certificate_required": "Enrol the device again: its client certificate is not accepted.",
    "rate_limited": "The agent waits as long as the server asked for.",
    "unavailable": "The server is in maintenance; the agent tries again.",
    "protocol_too_old": "Upgrade the agent.",
    "access_denied": "The sign-in was refused: start it again with -auth-url.",
    "code_expired": "Nobody confirmed the code in time: start again with -auth-url.",
}

NEEDS_OPERATOR: Final = frozenset(
    {
        "no_token",
        "token_invalid",
        "token_expired",
        "token_used",
        "token_revoked",
        "tenant_unknown",
        "device_removed",
        "device_pending",
        "device_limit",
        "key_in_use",
        "device_id_in_use",
        "no_address",
        "certificate_required",
        "protocol_too_old",
        "access_denied",
        "code_expired",
    }
)
"""Codes that trying again alone does not cure; the agent still tries, seldom."""

FORGOTTEN: Final = frozenset({"token_invalid", "token_expired", "device_unknown"})
"""Answers to a known device's token that call for registering again."""
