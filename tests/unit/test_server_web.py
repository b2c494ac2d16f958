"""The device flow and the approval page, request by request, in virtual time."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Coroutine
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.server import key
from wantastic.server import enrolment, grants, tenants
from wantastic.server.database import Database
from wantastic.server.directory import Worker
from wantastic.server.enrolment import Registration
from wantastic.server.keyring import Keyring
from wantastic.server.metrics import Metrics
from wantastic.server.records import (
    Grant,
    GrantStatus,
    RefusalCode,
    Refused,
    Tenant,
    TenantSettings,
)
from wantastic.server.tokens import parse_enrolment_token
from wantastic.server.web import pages
from wantastic.server.web.device_flow import GRANT_TYPE, DeviceFlow
from wantastic.server.web.http import BadRequest, HttpServer, Request, Response

Result = TypeVar("Result")
ORIGIN = "https://control.example:8444"


class World:
    """A database, a device flow, and a clock that a test moves."""

    def __init__(self, folder: Path) -> None:
        self.now_s = 1_700_000_000.0
        self.database = Database.open(str(folder / "server.db"), self.clock)
        self.database.migrate()
        with self.database.write() as tx:
            self.tenant = tenants.create(tx, "acme")
            self.other = tenants.create(tx, "other")
            self.code = grants.create_operator(tx, "olivia", self.tenant.id)
        self.flow = DeviceFlow(
            self.database,
            Worker(1),
            Keyring(bytes(range(32))),
            Metrics(),
            ORIGIN,
            self.clock,
        )

    def clock(self) -> float:
        return self.now_s

    def post(self, path: str, headers: dict[str, str] | None = None, **form: str) -> Response:
        return self.request("POST", path, headers or {}, form)

    def get(self, target: str, headers: dict[str, str] | None = None) -> Response:
        return self.request("GET", target, headers or {}, {})

    def request(
        self, method: str, target: str, headers: dict[str, str], form: dict[str, str]
    ) -> Response:
        parts = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        request = Request(method, parts.path, query, headers, form, "192.0.2.7")
        return run(self.flow.handle(request))


class Browser:
    """Keeps the cookie and the form token, as a browser does."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.cookie = ""
        self.form_token = ""

    def get(self, target: str) -> Response:
        return self._keep(self.world.get(target, {"cookie": self.cookie}))

    def post(self, path: str, **form: str) -> Response:
        headers = {"cookie": self.cookie, "origin": ORIGIN, "sec-fetch-site": "same-origin"}
        return self._keep(self.world.post(path, headers, **{"form_token": self.form_token, **form}))

    def sign_in(self) -> None:
        self.get("/auth/device")
        assert self.post("/auth/device/sign-in", code=self.world.code).status == 303
        self.get("/auth/device")

    def _keep(self, response: Response) -> Response:
        for name, value in response.headers:
            if name == "set-cookie":
                self.cookie = value.partition(";")[0]
        found = re.search(rb'name="form_token" value="([^"]+)"', response.body)
        if found:
            self.form_token = found[1].decode()
        return response


def run(work: Coroutine[Any, Any, Result]) -> Result:
    return asyncio.run(work)


def data(response: Response) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(response.body)
    return parsed


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def begin(world: World, **more: str) -> dict[str, Any]:
    return data(world.post("/auth/device", client_id="wantasticd", **more))


def poll(world: World, device_code: str) -> dict[str, Any]:
    return data(world.post("/auth/token", grant_type=GRANT_TYPE, device_code=device_code))


def test_a_device_is_approved_and_registers_with_what_it_gets(world: World) -> None:
    started = begin(world, device_id="router-1", model="Malta <b>")
    assert re.fullmatch(r"[B-Z]{4}-[B-Z]{4}", started["user_code"])
    assert started["verification_uri_complete"].startswith(ORIGIN)
    assert poll(world, started["device_code"])["error"] == "authorization_pending"
    browser = Browser(world)
    browser.sign_in()
    page = browser.post("/auth/device/review", user_code=started["user_code"].lower())
    assert b"router-1" in page.body
    assert b"Malta &lt;b&gt;" in page.body
    done = browser.post(
        "/auth/device/decide",
        user_code=started["user_code"],
        tenant=world.tenant.id,
        decision="approve",
    )
    assert b"Device approved" in done.body
    world.now_s += 5
    first = poll(world, started["device_code"])["access_token"]
    world.now_s += 5
    second = poll(world, started["device_code"])["access_token"]
    plain = [parse_enrolment_token(text) for text in (first, second)]
    assert plain[0] is not None
    assert plain[1] is not None
    wanted = Registration("router-1", key())
    # An answer that was lost is given anew, and only the newest is good.
    with world.database.write() as tx, pytest.raises(Refused) as caught:
        enrolment.register_with_token(tx, plain[0], wanted)
    assert caught.value.code is RefusalCode.TOKEN_REVOKED
    with world.database.write() as tx:
        assert enrolment.register_with_token(tx, plain[1], wanted).device_id == "router-1"
    world.now_s += 5
    assert poll(world, started["device_code"])["error"] == "invalid_grant"


def test_denial_expiry_slow_down_and_nonsense(world: World) -> None:
    denied, expired = begin(world), begin(world)
    browser = Browser(world)
    browser.sign_in()
    browser.post("/auth/device/decide", user_code=denied["user_code"], decision="deny")
    assert poll(world, denied["device_code"])["error"] == "access_denied"
    assert poll(world, expired["device_code"])["error"] == "authorization_pending"
    assert poll(world, expired["device_code"])["error"] == "slow_down"
    world.now_s += 5
    # slow_down adds five seconds to the interval.
    assert poll(world, expired["device_code"])["error"] == "slow_down"
    world.now_s += 15
    assert poll(world, expired["device_code"])["error"] == "authorization_pending"
    world.now_s += grants.LIFETIME_S
    assert poll(world, expired["device_code"])["error"] == "expired_token"
    assert poll(world, "nonsense")["error"] == "invalid_grant"
    assert data(world.post("/auth/token", grant_type="password"))["error"] == (
        "unsupported_grant_type"
    )
    assert data(world.post("/auth/device"))["error"] == "invalid_request"
    assert data(world.post("/auth/device", client_id="x", device_id="a b"))["error"] == (
        "invalid_request"
    )
    metadata = data(world.get("/.well-known/oauth-authorization-server"))
    assert metadata["device_authorization_endpoint"] == f"{ORIGIN}/auth/device"


FORGERIES: list[tuple[int, dict[str, str], bool, str | None]] = [
    # number, headers beside the cookie, whether the cookie is sent, form token
    (1, {"origin": "https://evil.example", "sec-fetch-site": "cross-site"}, True, None),
    (2, {"sec-fetch-site": "cross-site"}, True, None),
    (3, {"sec-fetch-site": "same-site"}, True, None),
    (4, {"origin": "null"}, True, None),
    (5, {"origin": ORIGIN}, False, None),
    (6, {"origin": ORIGIN}, True, ""),
    (7, {"origin": ORIGIN}, True, "é"),
    (8, {"origin": ORIGIN}, True, "A" * 44),
]


@pytest.mark.parametrize(("number", "headers", "cookie", "form_token"), FORGERIES)
def test_forged_forms_change_nothing(
    world: World, number: int, headers: dict[str, str], cookie: bool, form_token: str | None
) -> None:
    started = begin(world)
    browser = Browser(world)
    browser.sign_in()
    response = world.post(
        "/auth/device/decide",
        {**headers, **({"cookie": browser.cookie} if cookie else {})},
        form_token=browser.form_token if form_token is None else form_token,
        user_code=started["user_code"],
        tenant=world.tenant.id,
        decision="approve",
    )
    assert response.status == 400, number
    assert poll(world, started["device_code"])["error"] == "authorization_pending"


def test_sessions_end_and_belong_to_an_operator(world: World) -> None:
    started = begin(world)
    browser = Browser(world)
    assert b"Sign in" in browser.get(f"/auth/device?user_code={started['user_code']}").body
    before = browser.cookie
    assert browser.post("/auth/device/sign-in", code="wto_wrong").status == 403
    browser.sign_in()
    assert browser.cookie != before
    # The other tenant's devices are not hers to approve.
    answer = browser.post(
        "/auth/device/decide",
        user_code=started["user_code"],
        tenant=world.other.id,
        decision="approve",
    )
    assert answer.status == 400
    assert b"olivia" in browser.get("/auth/device").body
    tampered = Browser(world)
    tampered.cookie = browser.cookie[:-4] + "AAAA"
    assert b"Sign in" in tampered.get("/auth/device").body
    with world.database.write() as tx:
        grants.remove_operator(tx, "olivia")
    assert b"Sign in" in browser.get("/auth/device").body


def test_guessing_codes_is_slowed_down(world: World) -> None:
    browser = Browser(world)
    browser.get("/auth/device")
    statuses = [browser.post("/auth/device/sign-in", code=f"wto_{n}").status for n in range(12)]
    assert statuses == [403] * 10 + [429] * 2
    world.now_s += 60
    assert browser.post("/auth/device/sign-in", code=world.code).status == 303


def test_deciding_is_no_cheaper_way_to_guess(world: World) -> None:
    started = begin(world)
    browser = Browser(world)
    browser.sign_in()

    def decide(user_code: str) -> int:
        form = {"user_code": user_code, "tenant": world.tenant.id, "decision": "approve"}
        return browser.post("/auth/device/decide", **form).status

    assert [decide(f"BBBB-BBB{c}") for c in "BCDFGHJKLMNP"] == [400] * 10 + [429] * 2
    assert decide(started["user_code"]) == 429
    world.now_s += 60
    assert decide(started["user_code"]) == 200


def test_guesses_at_the_same_time_all_count(world: World) -> None:
    browser = Browser(world)
    browser.get("/auth/device")
    form = {"form_token": browser.form_token, "code": "wto_wrong"}
    headers = {"cookie": browser.cookie, "origin": ORIGIN}
    guess = Request("POST", "/auth/device/sign-in", {}, headers, form, "192.0.2.7")

    async def guesses() -> list[Response]:
        return await asyncio.gather(*(world.flow.handle(guess) for _ in range(40)))

    statuses = [response.status for response in run(guesses())]
    assert (statuses.count(403), statuses.count(429)) == (10, 30)


def test_pages_carry_a_policy_that_allows_no_script(world: World) -> None:
    response = world.get("/auth/device")
    headers = dict(response.headers)
    assert headers["content-security-policy"].startswith("default-src 'none'; style-src 'sha256-")
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["set-cookie"].startswith("__Host-wantastic=")
    for flag in ("Secure", "HttpOnly", "SameSite=Lax", "Path=/"):
        assert flag in headers["set-cookie"]
    assert b"<script" not in response.body


class Shape(HTMLParser):
    """The tags of a page with the names of their attributes; what people wrote is left out."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))


HOSTILE = st.text(st.sampled_from(list("<>&'\"/ =abscript\u202e\0\n")), min_size=1, max_size=40)


@given(HOSTILE, HOSTILE)
def test_nothing_that_others_write_becomes_markup(one: str, two: str) -> None:
    """Devices and operators choose names, and a link carries a code: all of it is text."""

    def shapes(a: str, b: str) -> list[list[tuple[str, tuple[str, ...]]]]:
        grant = Grant(1, a, GrantStatus.PENDING, None, b, a, b, 5, 0, 0, "")
        rows = [Tenant(b, a, "", "", 1, False, 0, TenantSettings(), 0)]
        made = [
            pages.sign_in(a, b, a),
            pages.ask_code(a, b, a, b),
            pages.review(a, grant, rows, b, replaces=True),
            pages.review(a, grant, 2 * rows, b, replaces=False),
            pages.problem(a),
        ]
        return [Shape(pages.page(200, text).body.decode()).tags for text in made]

    assert shapes(one, two) == shapes("a", "b")


def test_other_paths_and_methods(world: World) -> None:
    for method, path, status in (("GET", "/", 404), ("GET", "/auth/token", 405)):
        with pytest.raises(BadRequest) as caught:
            world.request(method, path, {}, {})
        assert caught.value.status == status


async def exchange(*pieces: bytes) -> bytes:
    """Send raw bytes to a server of its own; return everything that it answers."""

    async def echo(request: Request) -> Response:
        return Response(200, json.dumps(dict(request.form)).encode(), "application/json")

    server = HttpServer(echo)
    port = await server.listen("127.0.0.1", 0, None)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        writer.write_eof()
        async with asyncio.timeout(5):
            return await reader.read()
    finally:
        writer.close()
        await server.stop()


FORM = b"content-type: application/x-www-form-urlencoded\r\n"
RAW: list[tuple[int, bytes, bytes]] = [
    # number, request, start of the answer
    (1, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", b"HTTP/1.1 200"),
    (2, b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 400"),
    (3, b"nonsense\r\n\r\n", b"HTTP/1.1 400"),
    (4, b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"y" * 40_000 + b"\r\n\r\n", b"HTTP/1.1 431"),
    (
        5,
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9000\r\n" + FORM + b"\r\n" + b"a" * 9000,
        b"HTTP/1.1 413",
    ),
    (6, b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}", b"HTTP/1.1 415"),
    (
        7,
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n"
        b"transfer-encoding: chunked\r\n" + FORM + b"\r\n0\r\n\r\n",
        b"HTTP/1.1 ",
    ),
    (8, b"", b""),
    (9, b"GET //[ HTTP/1.1\r\nhost: a\r\n\r\n", b"HTTP/1.1 400"),
]


@pytest.mark.parametrize(("number", "sent", "answer"), RAW)
def test_raw_requests(number: int, sent: bytes, answer: bytes) -> None:
    assert run(exchange(sent)).startswith(answer), number


def test_two_requests_on_one_connection_and_a_body_in_pieces() -> None:
    body = urlencode({"a": "1", "b": "ü"}).encode()
    head = b"POST / HTTP/1.1\r\nhost: a\r\n" + FORM + b"content-length: %d\r\n\r\n" % len(body)
    answers = run(exchange(head, body[:3], body[3:], head + body))
    assert answers.count(b"HTTP/1.1 200") == 2
    assert answers.count(rb'{"a": "1", "b": "\u00fc"}') == 2


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_break_the_parser(sent: bytes) -> None:
    answer = run(exchange(sent))
    assert answer == b"" or answer.startswith(b"HTTP/1.1 ")
    assert b" 500 " not in answer.partition(b"\r\n")[0]
