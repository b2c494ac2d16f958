"""Signing in without a keyboard: OAuth 2.0 device authorization (RFC 8628).

DeviceFlow is the state machine without I/O; sign_in() drives it over HTTPS.

    START --authorized--> POLLING --token--> DONE
                             |---denied, expired--> FAILED (ControlError)
                             +---pending, slow_down, no answer--> POLLING

-auth-url is the device authorization endpoint (3.1). The token endpoint is named by the
answer (`token_endpoint`), else by the server's metadata (RFC 8414), else it is `token` beside
the device authorization endpoint.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, Protocol
from urllib.parse import urljoin, urlsplit

from wantastic.control.configuration import clean
from wantastic.control.enrol import MAX_TOKEN_BYTES
from wantastic.control.errors import ControlError, LocalError, RemoteError, TransportError
from wantastic.control.https import Answer, Url

CLIENT_ID: Final = "wantasticd"
GRANT_TYPE: Final = "urn:ietf:params:oauth:grant-type:device_code"
METADATA: Final = "/.well-known/oauth-authorization-server"
DEFAULT_INTERVAL_S: Final = 5.0
MAX_INTERVAL_S: Final = 300.0
SLOW_DOWN_S: Final = 5.0
MAX_EXPIRY_S: Final = 3600.0
MAX_CODE: Final = 4096


class FlowState(Enum):
    START = "start"
    POLLING = "polling"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Prompt:
    """What to show to the person who approves the device."""

    link: str
    user_code: str
    link_with_code: str
    """Empty when the server gave none; for the QR code."""
    expires_in_s: float


@dataclass(frozen=True, slots=True)
class Form:
    """A POST to be made."""

    url: str
    fields: dict[str, str] = field(repr=False)


class DeviceFlow:
    """One attempt to sign in. Times are of any monotonic clock."""

    def __init__(self, auth_url: str, *, device_id: str = "", model: str = "") -> None:
        self.auth_url = auth_url
        self.state = FlowState.START
        self.token_url = urljoin(auth_url, "token")
        self.names_token_url = False
        self.interval_s = DEFAULT_INTERVAL_S
        self._about = {"device_id": device_id, "model": model}
        self._device_code = ""
        self._expires_at_s = 0.0
        self._next_s = 0.0

    def begin(self) -> Form:
        """Return the device authorization request (3.1)."""
        about = {name: value for name, value in self._about.items() if value}
        return Form(self.auth_url, {"client_id": CLIENT_ID, **about})

    def authorized(self, answer: Answer, now_s: float) -> Prompt:
        """Take the device authorization response (3.2). ControlError."""
        values = answer.values
        if answer.status != 200:
            raise self._failed(_refusal(answer))
        device_code, user_code = values.get("device_code"), values.get("user_code")
        # Some servers still say verification_url, as a draft did.
        link = values.get("verification_uri") or values.get("verification_url")
        if not (isinstance(device_code, str) and 0 < len(device_code) <= MAX_CODE):
            raise self._failed(_broken("device_code"))
        if not (isinstance(user_code, str) and 0 < len(user_code) <= 64):
            raise self._failed(_broken("user_code"))
        if not _is_link(link):
            raise self._failed(_broken("verification_uri"))
        complete = values.get("verification_uri_complete", "")
        expires = _seconds(values.get("expires_in"), 600.0, MAX_EXPIRY_S)
        self.interval_s = _seconds(values.get("interval"), DEFAULT_INTERVAL_S, MAX_INTERVAL_S)
        token_url = values.get("token_endpoint")
        if isinstance(token_url, str) and token_url:
            self.token_url, self.names_token_url = token_url, True
        self._device_code = device_code
        self._expires_at_s = now_s + expires
        self._next_s = now_s + self.interval_s
        self.state = FlowState.POLLING
        return Prompt(
            link=str(link),
            user_code=clean(user_code, 64),
            link_with_code=complete if _is_link(complete) else "",
            expires_in_s=expires,
        )

    def poll_at(self) -> float:
        """Return when the next poll is due."""
        return min(self._next_s, self._expires_at_s)

    def poll(self, now_s: float) -> Form:
        """Return the token request (3.4). ControlError when the code has expired."""
        if now_s >= self._expires_at_s:
            raise self._failed(
                RemoteError("code_expired", "Nobody confirmed the code before it expired")
            )
        return Form(
            self.token_url,
            {
                "grant_type": GRANT_TYPE,
                "device_code": self._device_code,
                "client_id": CLIENT_ID,
            },
        )

    def polled(self, answer: Answer, now_s: float) -> str | None:
        """Take the token response (3.5): the token, None for "not yet". ControlError."""
        if answer.status == 200:
            token = answer.values.get("access_token")
            fits = isinstance(token, str) and 0 < len(token) <= MAX_TOKEN_BYTES
            if not fits or any(not 0x21 <= ord(c) <= 0x7E for c in str(token)):
                raise self._failed(_broken("access_token"))
            self.state = FlowState.DONE
            return str(token)
        error = answer.values.get("error")
        if error == "slow_down":
            self.interval_s = min(self.interval_s + SLOW_DOWN_S, MAX_INTERVAL_S)
        elif error != "authorization_pending":
            if answer.status >= 500 or answer.status == 429:
                self.unanswered(now_s)
                return None
            raise self._failed(_refusal(answer))
        self._next_s = now_s + self.interval_s
        return None

    def unanswered(self, now_s: float) -> None:
        """No answer came: poll half as often (3.5)."""
        self.interval_s = min(self.interval_s * 2, MAX_INTERVAL_S)
        self._next_s = now_s + self.interval_s

    def _failed(self, error: ControlError) -> ControlError:
        self.state = FlowState.FAILED
        return error


def _broken(name: str) -> RemoteError:
    return RemoteError("bad_message", f"The sign-in server's answer has no usable {name}")


_REFUSALS: Final = {"access_denied": "access_denied", "expired_token": "code_expired"}


def _refusal(answer: Answer) -> ControlError:
    error = clean(answer.values.get("error", ""), 60)
    if error in _REFUSALS:
        text = "The sign-in was refused" if error == "access_denied" else "The code has expired"
        return RemoteError(_REFUSALS[error], text)
    if answer.status >= 500:
        return TransportError("server_failed", f"The sign-in server answered {answer.status}")
    described = clean(answer.values.get("error_description", ""), 120)
    why = error + (f" ({described})" if described else "")
    text = f"The sign-in server answered {answer.status}" + (f": {why}" if why else "")
    return RemoteError("server_failed", text)


def _is_link(value: object) -> bool:
    """Return whether a text may be shown as a link: it must not steer a terminal."""
    if not isinstance(value, str) or len(value) > 500:
        return False
    if not (value.isascii() and value.isprintable()) or " " in value:
        return False
    try:
        return urlsplit(value).scheme in ("https", "http") and bool(urlsplit(value).netloc)
    except ValueError:
        return False


def _seconds(value: object, default: float, most: float) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 1e9:
        return min(max(float(value), 1.0), most)
    return default


# ---- The driver ---------------------------------------------------------------------


class Http(Protocol):
    """What sign_in needs of an HTTPS client."""

    async def post(self, url: Url, form: dict[str, str]) -> Answer: ...
    async def get(self, url: Url) -> Answer: ...


async def sign_in(
    flow: DeviceFlow, http: Http, show: Callable[[Prompt], None], *, insecure: bool = False
) -> str:
    """Run a flow to its end and return the token. ControlError."""
    loop = asyncio.get_running_loop()

    def at(text: str) -> Url:
        return Url.parse(text, insecure=insecure)

    form = flow.begin()
    prompt = flow.authorized(await http.post(at(form.url), form.fields), loop.time())
    if not flow.names_token_url:
        flow.token_url = await _look_up_token_url(flow, http, at)
    try:
        at(flow.token_url)
    except LocalError:
        raise RemoteError("bad_message", "The sign-in server's token_endpoint is none") from None
    show(prompt)
    while True:
        await asyncio.sleep(max(0.0, flow.poll_at() - loop.time()))
        form = flow.poll(loop.time())
        try:
            answer = await http.post(at(form.url), form.fields)
        except TransportError:
            flow.unanswered(loop.time())
            continue
        token = flow.polled(answer, loop.time())
        if token is not None:
            return token


async def _look_up_token_url(flow: DeviceFlow, http: Http, at: Callable[[str], Url]) -> str:
    """Return the token endpoint by the server's metadata, else the one beside -auth-url."""
    try:
        answer = await http.get(at(urljoin(flow.auth_url, METADATA)))
    except ControlError:
        return flow.token_url
    found: Any = answer.values.get("token_endpoint")
    return found if answer.status == 200 and isinstance(found, str) else flow.token_url
