"""The device flow over HTTPS (RFC 8628): the two endpoints for devices, the pages for people.

  POST /auth/device            device authorization request (3.1); the -auth-url of an agent
  POST /auth/token             device access token request (3.4)
  GET  /.well-known/oauth-authorization-server      where these are (RFC 8414)
  GET  /auth/device            the page for people, also as verification_uri_complete
  POST /auth/device/ sign-in, review, decide, sign-out      its forms

The token that a device gets is a one-off enrolment token: it registers with it like with
any other.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from wantastic.server import grants, schema, tenants
from wantastic.server.database import Database
from wantastic.server.directory import Worker
from wantastic.server.grants import GrantError
from wantastic.server.keyring import Keyring
from wantastic.server.limits import Limiter
from wantastic.server.metrics import Metrics
from wantastic.server.records import Grant, Operator, RefusalCode, Refused, Tenant
from wantastic.server.web import pages
from wantastic.server.web.http import BadRequest, Request, Response
from wantastic.server.web.sessions import Session, Sessions

log = logging.getLogger(__name__)

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:device_code"
DEVICE_PATH = "/auth/device"
TOKEN_PATH = "/auth/token"
METADATA_PATH = "/.well-known/oauth-authorization-server"
NO_STORE = (("cache-control", "no-store"), ("pragma", "no-cache"))

Page = Callable[["Visit"], Awaitable[Response]]


class Visit:
    """A request to a page, with its session and operator."""

    def __init__(self, request: Request, session: Session, operator: Operator | None) -> None:
        self.request = request
        self.session = session
        self.operator = operator


class DeviceFlow:
    """Answers requests; the handler of an HttpServer."""

    def __init__(
        self,
        database: Database,
        worker: Worker,
        keyring: Keyring,
        metrics: Metrics,
        public_url: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._worker = worker
        self._metrics = metrics
        self._clock = clock
        self._keyring = keyring
        self.set_public_url(public_url)
        self._starts = Limiter(burst=30, per_s=0.2)
        self._failures = Limiter(burst=10, per_s=0.1)
        self._endpoints: dict[tuple[str, str], Callable[[Request], Awaitable[Response]]] = {
            ("GET", METADATA_PATH): self._metadata,
            ("POST", DEVICE_PATH): self._authorize,
            ("POST", TOKEN_PATH): self._token,
        }
        self._forms: dict[tuple[str, str], Page] = {
            ("GET", DEVICE_PATH): self._start,
            ("POST", DEVICE_PATH + "/sign-in"): self._sign_in,
            ("POST", DEVICE_PATH + "/review"): self._review,
            ("POST", DEVICE_PATH + "/decide"): self._decide,
            ("POST", DEVICE_PATH + "/sign-out"): self._sign_out,
        }

    def set_public_url(self, public_url: str) -> None:
        """Say under which URL devices and people come here; links and cookies follow it."""
        self.public_url = public_url.rstrip("/")
        self._origin = _origin(self.public_url)
        self._sessions = Sessions(self._keyring, secure=self.public_url.startswith("https:"))

    async def handle(self, request: Request) -> Response:
        """Answer one request."""
        key = (request.method, request.path)
        known = key in self._endpoints or key in self._forms
        try:
            response = await self._dispatch(key, request)
        except BadRequest as error:
            self._metrics.http.labels(request.path if known else "other", error.status).inc()
            raise
        self._metrics.http.labels(request.path if known else "other", response.status).inc()
        return response

    async def _dispatch(self, key: tuple[str, str], request: Request) -> Response:
        endpoint = self._endpoints.get(key)
        if endpoint is not None:
            try:
                return await endpoint(request)
            except Refused as refused:
                return _refused(refused)
        form = self._forms.get(key)
        if form is None:
            paths = {path for _, path in (*self._endpoints, *self._forms)}
            raise BadRequest(405 if request.path in paths else 404, "no such page")
        try:
            return await form(await self._visit(request))
        except Refused as refused:
            status = 429 if refused.code is RefusalCode.RATE_LIMITED else 400
            return pages.page(status, pages.problem(str(refused)))

    # -- for devices --

    async def _metadata(self, _request: Request) -> Response:
        return _json(
            200,
            {
                "issuer": self.public_url,
                "device_authorization_endpoint": self.public_url + DEVICE_PATH,
                "token_endpoint": self.public_url + TOKEN_PATH,
                "grant_types_supported": [GRANT_TYPE],
                "response_types_supported": ["none"],
                "token_endpoint_auth_methods_supported": ["none"],
            },
        )

    async def _authorize(self, request: Request) -> Response:
        if not request.form.get("client_id"):
            return _error("invalid_request", "client_id is missing")
        now_s = self._clock()
        self._starts.reserve(request.remote, now_s)
        device_id, model = request.form.get("device_id", ""), request.form.get("model", "")

        def work() -> tuple[str, Grant]:
            with self._database.write() as transaction:
                return grants.begin(transaction, device_id, _printable(model), request.remote)

        device_code, grant = await self._worker.run(work)
        link = self.public_url + DEVICE_PATH
        return _json(
            200,
            {
                "device_code": device_code,
                "user_code": grant.user_code,
                "verification_uri": link,
                "verification_uri_complete": f"{link}?user_code={quote(grant.user_code)}",
                "expires_in": grants.LIFETIME_S,
                "interval": grant.interval_s,
                "token_endpoint": self.public_url + TOKEN_PATH,
            },
        )

    async def _token(self, request: Request) -> Response:
        if request.form.get("grant_type") != GRANT_TYPE:
            return _error("unsupported_grant_type", f"grant_type must be {GRANT_TYPE}")
        device_code = request.form.get("device_code", "")
        if not device_code:
            return _error("invalid_request", "device_code is missing")

        def work() -> str | GrantError:
            with self._database.write() as transaction:
                try:
                    return grants.poll(transaction, device_code)
                except GrantError as error:
                    # Returned, not raised: that it polled too fast has to be kept.
                    return error

        answer = await self._worker.run(work)
        if isinstance(answer, GrantError):
            return _error(answer.code)
        return _json(
            200,
            {
                "access_token": answer,
                "token_type": "Bearer",
                "expires_in": grants.TOKEN_LIFETIME_S,
            },
        )

    # -- for people --

    async def _visit(self, request: Request) -> Visit:
        now_s = int(self._clock())
        session = self._sessions.read(request.cookie(self._sessions.cookie_name), now_s)
        if request.method == "POST":
            self._refuse_forgery(request, session)
        if session is None:
            session = self._sessions.new(0, now_s)
        operator = None
        operator_id = session.operator_id
        if operator_id:

            def work() -> Operator | None:
                with self._database.read() as transaction:
                    return grants.operator_by_id(transaction, operator_id)

            operator = await self._worker.run(work)
        return Visit(request, session, operator)

    def _refuse_forgery(self, request: Request, session: Session | None) -> None:
        origin = request.headers.get("origin")
        foreign = origin is not None and origin != self._origin
        foreign = foreign or request.headers.get("sec-fetch-site") in ("cross-site", "same-site")
        token = request.form.get("form_token", "")
        if foreign or session is None or not self._sessions.form_token_matches(session, token):
            raise Refused(
                RefusalCode.INVALID_REQUEST,
                "the form was too old or did not come from this page",
                remedy="open the page again",
            )

    def _ask_sign_in(self, visit: Visit, user_code: str, error: str = "") -> Response:
        content = pages.sign_in(self._sessions.form_token(visit.session), user_code, error)
        return pages.page(403 if error else 200, content, (self._cookie(visit.session),))

    def _ask_code(self, visit: Visit, user_code: str, error: str = "") -> Response:
        assert visit.operator is not None
        content = pages.ask_code(
            self._sessions.form_token(visit.session), user_code, visit.operator.name, error
        )
        return pages.page(404 if error else 200, content, (self._cookie(visit.session),))

    def _cookie(self, session: Session) -> tuple[str, str]:
        return self._sessions.set_cookie(session)

    async def _start(self, visit: Visit) -> Response:
        user_code = visit.request.query.get("user_code", "")[:16]
        if visit.operator is None:
            return self._ask_sign_in(visit, user_code)
        return self._ask_code(visit, user_code)

    async def _sign_in(self, visit: Visit) -> Response:
        now_s = self._clock()
        self._failures.reserve(visit.request.remote, now_s)
        code = visit.request.form.get("code", "").strip()
        user_code = visit.request.form.get("user_code", "")[:16]

        def work() -> Operator | None:
            with self._database.read() as transaction:
                return grants.sign_in(transaction, code)

        operator = await self._worker.run(work)
        if operator is None:
            log.warning("sign-in failed", extra={"remote": visit.request.remote})
            return self._ask_sign_in(visit, user_code, "This sign-in code is not known.")
        self._failures.give_back(visit.request.remote, now_s)
        log.info(
            "operator signed in",
            extra={"operator": operator.name, "remote": visit.request.remote},
        )
        session = self._sessions.new(operator.id, int(now_s))
        # See Other: reloading the page does not send the code again.
        target = f"{DEVICE_PATH}?user_code={quote(user_code)}" if user_code else DEVICE_PATH
        return _see_other(target, (self._cookie(session),))

    async def _sign_out(self, visit: Visit) -> Response:
        session = self._sessions.new(0, int(self._clock()))
        return _see_other(DEVICE_PATH, (self._cookie(session),))

    async def _review(self, visit: Visit) -> Response:
        user_code = visit.request.form.get("user_code", "")[:16]
        operator = visit.operator
        if operator is None:
            return self._ask_sign_in(visit, user_code)
        now_s = self._clock()
        self._failures.reserve(visit.request.remote, now_s)

        def work() -> tuple[Grant | None, list[Tenant], bool]:
            with self._database.read() as transaction:
                grant = grants.find(transaction, user_code)
                allowed = [
                    t for t in tenants.list_all(transaction) if operator.tenant_id in (None, t.id)
                ]
                replaces = False
                if grant is not None and grant.device_id:
                    table = schema.device
                    replaces = (
                        transaction.connection.execute(
                            table.select().where(
                                table.c.device_id == grant.device_id,
                                table.c.tenant_id.in_([t.id for t in allowed]),
                            )
                        ).first()
                        is not None
                    )
                return grant, allowed, replaces

        grant, allowed, replaces = await self._worker.run(work)
        if grant is None:
            return self._ask_code(
                visit, user_code, "No device waits with this code. Is it still on its screen?"
            )
        self._failures.give_back(visit.request.remote, now_s)
        content = pages.review(
            self._sessions.form_token(visit.session),
            grant,
            allowed,
            operator.name,
            replaces=replaces,
        )
        return pages.page(200, content)

    async def _decide(self, visit: Visit) -> Response:
        form, operator = visit.request.form, visit.operator
        if operator is None:
            return self._ask_sign_in(visit, form.get("user_code", "")[:16])
        decision = form.get("decision", "")
        if decision not in ("approve", "deny"):
            raise Refused(RefusalCode.INVALID_REQUEST, "choose to approve or to deny")
        # A form need not have come from the review: guessing must not be cheaper here.
        now_s = self._clock()
        self._failures.reserve(visit.request.remote, now_s)

        def work() -> Grant:
            with self._database.write() as transaction:
                tenant_id = None
                if decision == "approve":
                    tenant_id = tenants.find(transaction, form.get("tenant", "")).id
                    if operator.tenant_id not in (None, tenant_id):
                        raise Refused(
                            RefusalCode.TENANT_UNKNOWN, "you may not approve for this tenant"
                        )
                return grants.decide(
                    transaction,
                    form.get("user_code", ""),
                    tenant_id=tenant_id,
                    decided_by=operator.name,
                )

        grant = await self._worker.run(work)
        self._failures.give_back(visit.request.remote, now_s)
        log.info(
            "device authorization decided",
            extra={"operator": operator.name, "device": grant.device_id, "decision": decision},
        )
        return pages.page(200, pages.decided(approved=decision == "approve"))


def _see_other(target: str, headers: tuple[tuple[str, str], ...]) -> Response:
    return Response(
        303,
        b"",
        "text/plain; charset=utf-8",
        (*pages.SECURITY_HEADERS, ("location", target), *headers),
    )


def _json(status: int, data: Mapping[str, Any]) -> Response:
    return Response(status, json.dumps(data).encode(), "application/json", NO_STORE)


def _error(code: str, description: str = "") -> Response:
    data = {"error": code}
    if description:
        data["error_description"] = description
    return _json(400, data)


def _refused(refused: Refused) -> Response:
    limited = refused.code in (RefusalCode.RATE_LIMITED, RefusalCode.UNAVAILABLE)
    code = "temporarily_unavailable" if limited else "invalid_request"
    response = _json(503 if limited else 400, {"error": code, "error_description": str(refused)})
    if not refused.retry_after_s:
        return response
    retry = ("retry-after", str(int(refused.retry_after_s) + 1))
    return Response(
        response.status, response.body, response.content_type, (*response.headers, retry)
    )


def _printable(text: str) -> str:
    return "".join(c for c in text[:100] if c.isprintable())


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}".lower()
