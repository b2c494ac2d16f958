"""The methods of AuthService: names, messages, paths. The generated service code is not used.

A server registers every method under each of PREFIXES; an agent starts with the first
and moves on when a server answers UNIMPLEMENTED.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from google.protobuf.message import Message

from wantastic.control import auth_pb2 as pb

Request = TypeVar("Request", bound=Message)
Reply = TypeVar("Reply", bound=Message)

PROTOCOL_VERSION: Final = 1
PREFIXES: Final = ("/AuthService/", "/grpc.AuthService/")

AUTHORIZATION: Final = "authorization"
"""Metadata key; the value is `Bearer TOKEN`."""
ERROR_TRAILER: Final = "wantastic-error-bin"
"""Trailing metadata of a failed call: a serialized Error."""

HEARTBEAT_S: Final = 60
"""A server writes to an open WatchConfiguration stream at least this often."""
WATCHDOG_S: Final = 120
"""An agent gives a stream up after this long a silence."""
MAX_MESSAGE_BYTES: Final = 4 << 20
"""Neither side takes a larger message."""

CAPABILITY_WATCH: Final = "watch"
CAPABILITY_LONG_POLL: Final = "long_poll"
CAPABILITY_CERTIFICATE: Final = "certificate"
CAPABILITY_REKEY: Final = "rekey"
CAPABILITY_EXIT_NODE: Final = "exit_node"
CAPABILITY_DNS: Final = "dns"
CAPABILITY_TUN: Final = "tun"
CAPABILITY_NETSTACK: Final = "netstack"


@dataclass(frozen=True, slots=True)
class Method(Generic[Request, Reply]):
    """One RPC; `streams` when the server answers with any number of replies."""

    name: str
    request: type[Request]
    reply: type[Reply]
    streams: bool = False


REGISTER_DEVICE: Final = Method(
    "RegisterDevice", pb.RegisterDeviceRequest, pb.RegisterDeviceResponse
)
REFRESH_TOKEN: Final = Method("RefreshToken", pb.RefreshTokenRequest, pb.RefreshTokenResponse)
GET_CONFIGURATION: Final = Method(
    "GetConfiguration", pb.GetConfigurationRequest, pb.GetConfigurationResponse
)
WATCH_CONFIGURATION: Final = Method(
    "WatchConfiguration", pb.GetConfigurationRequest, pb.GetConfigurationResponse, streams=True
)
METHODS: Final = (REGISTER_DEVICE, REFRESH_TOKEN, GET_CONFIGURATION, WATCH_CONFIGURATION)

GRPC_STATUS: Final[dict[int, str]] = {
    pb.ERROR_INVALID_REQUEST: "INVALID_ARGUMENT",
    pb.ERROR_TOKEN_INVALID: "UNAUTHENTICATED",
    pb.ERROR_TOKEN_EXPIRED: "UNAUTHENTICATED",
    pb.ERROR_TOKEN_USED: "PERMISSION_DENIED",
    pb.ERROR_TOKEN_REVOKED: "PERMISSION_DENIED",
    pb.ERROR_TENANT_UNKNOWN: "PERMISSION_DENIED",
    pb.ERROR_DEVICE_UNKNOWN: "NOT_FOUND",
    pb.ERROR_DEVICE_REMOVED: "PERMISSION_DENIED",
    pb.ERROR_DEVICE_PENDING: "FAILED_PRECONDITION",
    pb.ERROR_DEVICE_LIMIT: "RESOURCE_EXHAUSTED",
    pb.ERROR_KEY_IN_USE: "ALREADY_EXISTS",
    pb.ERROR_DEVICE_ID_IN_USE: "ALREADY_EXISTS",
    pb.ERROR_NO_ADDRESS: "RESOURCE_EXHAUSTED",
    pb.ERROR_CERTIFICATE_REQUEST: "INVALID_ARGUMENT",
    pb.ERROR_CERTIFICATE_REQUIRED: "UNAUTHENTICATED",
    pb.ERROR_RATE_LIMITED: "RESOURCE_EXHAUSTED",
    pb.ERROR_UNAVAILABLE: "UNAVAILABLE",
    pb.ERROR_PROTOCOL_TOO_OLD: "FAILED_PRECONDITION",
    pb.ERROR_INTERNAL: "INTERNAL",
}
"""ErrorCode -> name of the gRPC status that a server answers with it."""
