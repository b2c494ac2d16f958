"""Signing in with -auth-url: the flow's table, the driver in virtual time, HTTPS, the prompt."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.control_peers import authority, raw_server, server_context
from tests.support.fake_control import FakeServer, Harness, NoMemory
from tests.support.virtual_time import run_virtual
from wantastic.control.device_flow import DeviceFlow, FlowState, sign_in
from wantastic.control.errors import ControlError, LocalError, TransportError
from wantastic.control.https import Answer, HttpsClient, Url
from wantastic.control.prompt import render_prompt, render_qr
from wantastic.control.resolve import Resolver

URL = "https://wantastic.example/auth/device"
GOOD = {
    "device_code": "secret-device-code",
    "user_code": "WDJB-MJHT",
    "verification_uri": "https://wantastic.example/device",
    "verification_uri_complete": "https://wantastic.example/device?user_code=WDJB-MJHT",
    "expires_in": 900,
    "interval": 5,
}


def polling(**change: Any) -> DeviceFlow:
    flow = DeviceFlow(URL)
    flow.authorized(Answer(200, GOOD | change), 0.0)
    return flow


@pytest.mark.parametrize(
    ("row", "status", "values", "token", "interval_s", "code"),
    [
        (1, 200, {"access_token": "t"}, "t", 5, None),
        (2, 400, {"error": "authorization_pending"}, None, 5, None),
        (3, 400, {"error": "slow_down"}, None, 10, None),
        (4, 400, {"error": "access_denied"}, None, 5, "access_denied"),
        (5, 400, {"error": "expired_token"}, None, 5, "code_expired"),
        (6, 400, {"error": "invalid_grant"}, None, 5, "server_failed"),
        (7, 503, {}, None, 10, None),
        (8, 429, {}, None, 10, None),
        (9, 200, {"access_token": ""}, None, 5, "bad_message"),
        (10, 200, {"access_token": 7}, None, 5, "bad_message"),
        (11, 200, {"access_token": "two words"}, None, 5, "bad_message"),
        (12, 200, {}, None, 5, "bad_message"),
        (13, 404, {}, None, 5, "server_failed"),
    ],
)
def test_polling(
    row: int, status: int, values: Any, token: Any, interval_s: float, code: Any
) -> None:
    flow = polling()
    assert flow.poll_at() == 5
    assert flow.poll(5).fields["device_code"] == "secret-device-code"
    if code is None:
        assert flow.polled(Answer(status, values), 5.0) == token
        assert flow.interval_s == interval_s
        assert flow.state is (FlowState.DONE if token else FlowState.POLLING)
    else:
        with pytest.raises(ControlError) as caught:
            flow.polled(Answer(status, values), 5.0)
        assert caught.value.code == code
        assert caught.value.remedy
        assert flow.state is FlowState.FAILED


@pytest.mark.parametrize(
    ("row", "change"),
    [
        (1, {"device_code": ""}),
        (2, {"device_code": 5}),
        (3, {"user_code": None}),
        (4, {"user_code": "x" * 65}),
        (5, {"verification_uri": "javascript:alert(1)"}),
        (6, {"verification_uri": "https://x.example/\x1b[2J"}),
        (7, {"verification_uri": None}),
    ],
)
def test_answers_that_are_not_shown(row: int, change: Any) -> None:
    with pytest.raises(ControlError):
        polling(**change)


def test_code_that_expires() -> None:
    flow = polling(expires_in=12)
    assert flow.polled(Answer(400, {"error": "authorization_pending"}), 5.0) is None
    assert flow.poll_at() == 10
    flow.polled(Answer(400, {"error": "authorization_pending"}), 10.0)
    assert flow.poll_at() == 12
    with pytest.raises(ControlError) as caught:
        flow.poll(12)
    assert caught.value.code == "code_expired"


TEXT = st.text("ab/:\x1b\n\u202e", max_size=9) | st.just("https://a.example/b")
JSON = st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.lists(TEXT, max_size=2)


@given(st.dictionaries(st.sampled_from([*GOOD, "token_endpoint"]), JSON), st.integers(0, 999))
def test_any_answer_is_taken_or_refused(values: Any, status: int) -> None:
    for flow, take in ((DeviceFlow(URL), "authorized"), (polling(), "polled")):
        try:
            outcome = getattr(flow, take)(Answer(status, values), 1.0)
        except ControlError:
            assert flow.state is FlowState.FAILED
            continue
        assert 1 <= flow.interval_s <= 300
        if take == "authorized":
            shown = render_prompt(outcome, terminal=False)
            assert "\x1b" not in shown


class FakeHttp:
    """Answers by a list; a ControlError in it is raised."""

    def __init__(self, *answers: Answer | ControlError) -> None:
        self.answers = list(answers)
        self.sent: list[tuple[float, str, dict[str, str]]] = []

    async def post(self, url: Url, form: dict[str, str]) -> Answer:
        self.sent.append((asyncio.get_running_loop().time(), str(url), form))
        answer = self.answers.pop(0)
        if isinstance(answer, ControlError):
            raise answer
        return answer

    async def get(self, url: Url) -> Answer:
        return await self.post(url, {})


PENDING = Answer(400, {"error": "authorization_pending"})
SLOWER = Answer(400, {"error": "slow_down"})
TOKEN = Answer(200, {"access_token": "enrol-me"})


def test_sign_in_polls_at_the_servers_pace_and_survives_a_gap() -> None:
    async def main() -> None:
        gap = TransportError("timeout", "no")
        metadata = Answer(200, {"token_endpoint": "https://wantastic.example/oauth/token"})
        http = FakeHttp(Answer(200, GOOD), metadata, PENDING, SLOWER, gap, PENDING, TOKEN)
        shown: list[Any] = []
        flow = DeviceFlow(URL, device_id="d1", model="router")
        assert await sign_in(flow, http, shown.append) == "enrol-me"
        assert [round(at) for at, _, _ in http.sent] == [0, 0, 5, 10, 20, 40, 60]
        assert http.sent[0][2] == {"client_id": "wantasticd", "device_id": "d1", "model": "router"}
        assert http.sent[2][1] == "https://wantastic.example/oauth/token"
        assert shown[0].user_code == "WDJB-MJHT"

    run_virtual(main())


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([Answer(404, {})], "https://wantastic.example/auth/token"),
        ([TransportError("lost", "no")], "https://wantastic.example/auth/token"),
        ([], "https://elsewhere.example/t"),
    ],
)
def test_where_the_token_comes_from(answers: Any, expected: str) -> None:
    async def main() -> None:
        named = {} if answers else {"token_endpoint": expected}
        http = FakeHttp(Answer(200, GOOD | named), *answers, TOKEN)
        await sign_in(DeviceFlow(URL), http, lambda prompt: None)
        assert http.sent[-1][1] == expected

    run_virtual(main())


def test_a_token_endpoint_without_encryption_is_refused() -> None:
    async def main() -> None:
        http = FakeHttp(Answer(200, GOOD | {"token_endpoint": "http://wantastic.example/t"}))
        with pytest.raises(ControlError):
            await sign_in(DeviceFlow(URL), http, lambda prompt: None)
        assert len(http.sent) == 1

    run_virtual(main())


def test_signing_in_enrols_and_a_denial_is_asked_again_later() -> None:
    async def main() -> None:
        denied = Answer(400, {"error": "access_denied"})
        named = Answer(200, GOOD | {"token_endpoint": "https://wantastic.example/t"})
        http = FakeHttp(named, denied, named, PENDING, TOKEN)
        server = FakeServer(enrolment_tokens={"enrol-me": None})

        async def ask() -> str:
            return await sign_in(DeviceFlow(URL), http, lambda prompt: None)

        device = Harness.make(server, token="", sign_in=ask)
        await device.run_for(3600)
        assert device.listening.of("trouble") == ["access_denied"]
        assert device.plane.is_registered
        # The next start needs nobody.
        again = Harness.make(server, token="", record=device.record, sign_in=ask)
        await again.run_for(60)
        assert again.listening.names()[0] == "registered"

    run_virtual(main())


# ---- HTTPS --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "text", "insecure", "good"),
    [
        (1, "https://a.example/x?y=z", False, True),
        (2, "http://a.example/", False, False),
        (3, "http://a.example/", True, False),
        (4, "http://127.0.0.1:8080/a", False, False),
        (5, "http://127.0.0.1:8080/a", True, True),
        (6, "http://[::1]:8080/a", True, True),
        (7, "ftp://a.example/", False, False),
        (8, "a.example/x", False, False),
        (9, "https://", False, False),
        (10, "https://user:pw@a.example/", False, False),
        (11, "https://a.example/\r\nX: y", False, False),
        (12, "https://a.example:99999/", False, False),
        (13, "https://ä.example/", False, False),
    ],
)
def test_urls(row: int, text: str, insecure: bool, good: bool) -> None:
    if good:
        assert str(Url.parse(text, insecure=insecure)) == text
    else:
        with pytest.raises(LocalError):
            Url.parse(text, insecure=insecure)


def http(status: str, *headers: str, body: bytes = b"") -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode() + body


CHUNKED = b'4\r\n{"a"\r\n4\r\n: 1}\r\n0\r\n\r\n'


@pytest.mark.parametrize(
    ("row", "raw", "outcome"),
    [
        (1, http("200 OK", "Content-Length: 8", body=b'{"a": 1}'), Answer(200, {"a": 1})),
        (2, http("400 Bad", body=b'{"a": 1}'), Answer(400, {"a": 1})),
        (3, http("200 OK", "Transfer-Encoding: chunked", body=CHUNKED), Answer(200, {"a": 1})),
        (4, http("200 OK", "Content-Length: 3", body=b"[1]"), Answer(200, {})),
        (5, http("204 No"), Answer(204, {})),
        (6, http("200 OK", "Content-Type: text/html", body=b"<html>"), "captive_portal"),
        (7, http("200 OK", "Content-Length: 999999"), "too_large"),
        (8, http("200 OK", body=b"x" * 70_000), "too_large"),
        (9, http("200 OK", "Transfer-Encoding: chunked", body=b"fffff\r\n"), "too_large"),
        (10, http("200 OK", "Transfer-Encoding: chunked", body=b"-5\r\n"), Answer(200, {})),
        (11, http("200 OK", "Transfer-Encoding: chunked", body=b"zz\r\n"), "lost"),
        (12, http("200 OK", "Content-Length: 100", body=b"{"), "lost"),
        (13, b"SSH-2.0-dropbear\r\n\r\n", "bad_message"),
        (14, b"", "lost"),
        (15, http("200 OK", "X: " + "y" * 70_000), "bad_message"),
        (16, None, "timeout"),
    ],
)
def test_https_answers(row: int, raw: bytes | None, outcome: Any) -> None:
    async def main() -> None:
        seen = b""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal seen
            seen = await reader.read(4096)
            if raw is None:
                await asyncio.sleep(60)
            writer.write(raw or b"")
            await writer.drain()

        context = server_context(authority().issue("127.0.0.1"), alpn="http/1.1")
        async with raw_server(serve, context) as port:
            client = HttpsClient(authority().pem, Resolver(NoMemory()), timeout_s=1.0)
            url = Url.parse(f"https://127.0.0.1:{port}/auth/device")
            if isinstance(outcome, Answer):
                assert await client.post(url, {"client_id": "a b"}) == outcome
                assert seen.startswith(b"POST /auth/device HTTP/1.1\r\n")
                assert seen.endswith(b"\r\n\r\nclient_id=a+b")
            else:
                with pytest.raises(ControlError) as caught:
                    await client.post(url, {"client_id": "a b"})
                assert caught.value.code == outcome

    asyncio.run(main())


def test_https_verifies_the_server() -> None:
    async def main() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            raise AssertionError("a request came")

        context = server_context(authority().issue("other.example"))
        async with raw_server(serve, context) as port:
            client = HttpsClient(authority().pem, Resolver(NoMemory()), timeout_s=5.0)
            with pytest.raises(TransportError) as caught:
                await client.get(Url.parse(f"https://127.0.0.1:{port}/"))
            assert caught.value.code == "tls_wrong_name"

    asyncio.run(main())


# ---- The prompt ---------------------------------------------------------------------


def test_prompt_fits_80_columns_and_the_qr_code_reads_back() -> None:
    flow = DeviceFlow(URL)
    prompt = flow.authorized(Answer(200, json.loads(json.dumps(GOOD))), 0)
    plain = render_prompt(prompt, terminal=False)
    assert "WDJB-MJHT" in plain
    assert prompt.link in plain
    assert "15 minutes" in plain
    assert max(map(len, plain.splitlines())) <= 80
    assert "█" in render_prompt(prompt, terminal=True)
    assert render_qr(prompt.link_with_code, 20) == ""

    import segno

    rendered = [
        line.removeprefix("\x1b[97;40m").removesuffix("\x1b[0m")
        for line in render_qr(prompt.link_with_code, 80).splitlines()
    ]
    dark = {"█": (0, 0), "▀": (0, 1), "▄": (1, 0), " ": (1, 1)}
    rows: list[list[int]] = []
    for line in rendered:
        rows.append([dark[c][0] for c in line])
        rows.append([dark[c][1] for c in line])
    want = [[m & 1 for m in row] for row in segno.make_qr(prompt.link_with_code, error="l").matrix]
    size = len(want)
    assert [row[2 : 2 + size] for row in rows[2 : 2 + size]] == want
    assert not any(any(row) for row in (*rows[:2], *rows[2 + size :]))


def test_random_links_render() -> None:
    rng = random.Random(3)
    for _ in range(20):
        link = "https://a.example/" + "".join(rng.choices("abcXYZ0189-", k=rng.randrange(1, 60)))
        assert render_qr(link, 80)
