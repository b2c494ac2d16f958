"""Fuzz targets for what a control or sign-in server can send: used or refused, nothing else."""

from __future__ import annotations

import json
from typing import Any

from google.protobuf.message import DecodeError

from wantastic.config.model import Config
from wantastic.control import auth_pb2 as pb
from wantastic.control import wire
from wantastic.control.certificate import check_chain
from wantastic.control.configuration import (
    NOT_REGISTERED,
    Received,
    StatementError,
    merge,
    overlay,
)
from wantastic.control.credentials import Credentials
from wantastic.control.device_flow import DeviceFlow
from wantastic.control.errors import ControlError
from wantastic.control.https import Answer
from wantastic.control.rotation import Journal
from wantastic.control.transport import StatusError


def fuzz_configuration(data: bytes) -> None:
    """A GetConfigurationResponse from the wire to what would run, over the cache and back."""
    reply = pb.GetConfigurationResponse()
    try:
        reply.ParseFromString(data)
    except (DecodeError, UnicodeDecodeError):
        return
    statement = wire.statement_of(reply.configuration)
    cached = Received.parse(Received(reply.etag, reply.version, statement).render())
    assert cached is not None
    assert cached.statement == statement
    try:
        found = overlay(Config(), NOT_REGISTERED, merge({}, statement), 1e9)
    except StatementError as error:
        if not str(error).isprintable():
            raise AssertionError("an error that would steer a terminal") from error
        return
    assert not found.config.exit_node.enabled
    assert found.config.private_key is None


def fuzz_error(data: bytes) -> None:
    """The trailer of a failed call."""
    error = wire.error_of_status(StatusError("INTERNAL", data.decode("latin-1"), data))
    assert error.reason.isprintable()
    assert error.remedy.isprintable()
    assert 0 <= error.retry_after_s <= 86400


def fuzz_sign_in(data: bytes) -> None:
    """A status in the first byte, then a JSON answer, to both steps of the device flow."""
    try:
        values: Any = json.loads(data[1:])
    except (ValueError, RecursionError):
        return
    if not isinstance(values, dict):
        return
    answer = Answer((data[0] + 256) if data[0] else 200, values)
    good = {"device_code": "d", "user_code": "u", "verification_uri": "https://a.example/"}
    started = DeviceFlow("https://a.example/x/y")
    started.authorized(Answer(200, good), 0.0)
    for flow, take in ((DeviceFlow("https://a.example/x/y"), "authorized"), (started, "polled")):
        try:
            outcome = getattr(flow, take)(answer, 1.0)
        except ControlError:
            continue
        assert 1 <= flow.interval_s <= 300
        if take == "authorized":
            shown = (outcome.link, outcome.user_code, outcome.link_with_code)
            assert all(text.isprintable() for text in shown)


def fuzz_stored(data: bytes) -> None:
    """Records on flash, and a certificate: None or ValueError for what is none."""
    Received.parse(data)
    Credentials.parse(data)
    Journal.parse(data)
    try:
        check_chain((data,))
    except ValueError:
        return
