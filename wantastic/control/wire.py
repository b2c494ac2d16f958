"""Between protobuf messages and the values that the rest of the agent uses."""

from __future__ import annotations

from typing import Any, Final

from google.protobuf.message import DecodeError, Message

from wantastic.control import auth_pb2 as pb
from wantastic.control.configuration import Statement, clean
from wantastic.control.errors import ControlError, RemoteError, TransportError
from wantastic.control.transport import StatusError

SEVERITIES: Final = {pb.SEVERITY_ERROR: "error", pb.SEVERITY_WARNING: "warning"}
MAX_RETRY_AFTER_S: Final = 24 * 3600.0


def statement_of(message: pb.Configuration) -> Statement:
    """Return the parts that a message states, as JSON values."""
    stated: Statement = {}
    if message.HasField("addresses"):
        stated["addresses"] = list(message.addresses.addresses)
    if message.mtu:
        stated["mtu"] = message.mtu
    if message.HasField("peers"):
        stated["peers"] = [_fields(peer) for peer in message.peers.peers]
    if message.HasField("routes"):
        stated["routes"] = list(message.routes.ranges)
    if message.HasField("dns"):
        stated["dns"] = _fields(message.dns)
    if message.HasField("exit_node"):
        stated["exit_node"] = _fields(message.exit_node)
    if message.HasField("health"):
        stated["health"] = [
            {**_fields(m), "severity": SEVERITIES.get(m.severity, "info")}
            for m in message.health.messages
        ]
    if message.HasField("rekey_before"):
        stated["rekey_before"] = _fields(message.rekey_before)
    return stated


def _fields(message: Message) -> dict[str, Any]:
    """Return the fields that are set, nested ones as tables."""
    result: dict[str, Any] = {}
    for descriptor, value in message.ListFields():
        if descriptor.is_repeated:
            nested = descriptor.message_type is not None
            result[descriptor.name] = [_fields(v) for v in value] if nested else list(value)
        else:
            result[descriptor.name] = value
    return result


# ---- Errors -------------------------------------------------------------------------

CODES: Final = {
    number: name.removeprefix("ERROR_").lower() for name, number in pb.ErrorCode.items() if number
}

STATUS_CODES: Final = {
    "UNAUTHENTICATED": "token_invalid",
    "PERMISSION_DENIED": "token_revoked",
    "NOT_FOUND": "device_unknown",
    "ALREADY_EXISTS": "device_id_in_use",
    "INVALID_ARGUMENT": "invalid_request",
    "FAILED_PRECONDITION": "device_pending",
    "RESOURCE_EXHAUSTED": "rate_limited",
    "UNIMPLEMENTED": "unimplemented",
}
"""What a status means that comes without an Error, as from a backend of the bare document."""

TRANSPORT_CODES: Final = {
    "UNAVAILABLE": "lost",
    "DEADLINE_EXCEEDED": "timeout",
    "CANCELLED": "lost",
}


def error_of(message: pb.Error, fallback: str = "server_failed") -> RemoteError:
    """Return a server's Error; its words are shown as they may be shown."""
    code = CODES.get(message.code, fallback)
    reason = clean(message.reason, 200) or "The server refused without saying why"
    if message.field:
        reason += f" [{clean(message.field, 40)}]"
    return RemoteError(
        "server_failed" if code == "internal" else code,
        reason,
        clean(message.remedy, 200),
        retry_after_s=min(message.retry_after_ms / 1000, MAX_RETRY_AFTER_S),
    )


def error_of_status(error: StatusError) -> ControlError:
    """Return what a failed call means."""
    if error.error:
        try:
            return error_of(pb.Error.FromString(error.error))
        except DecodeError:
            pass
    text = clean(error.message, 200)
    lower = text.lower()
    if "text/html" in lower:
        return TransportError("captive_portal", "A web page answers in the server's place")
    if "content-type" in lower or "http2 header with status" in lower:
        return TransportError("not_grpc", f"No gRPC server answers there: {text}")
    if error.status == "RESOURCE_EXHAUSTED" and "larger than" in lower:
        return TransportError("too_large", "The server's answer is larger than allowed")
    if error.status in TRANSPORT_CODES:
        return TransportError(TRANSPORT_CODES[error.status], text or "The connection was lost")
    code = STATUS_CODES.get(error.status, "server_failed")
    return RemoteError(code, text or f"The server answered {error.status}")
