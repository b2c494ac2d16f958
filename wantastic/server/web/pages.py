"""The approval pages as HTML: plain forms, no script, usable by keyboard and screen reader."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from html import escape

from wantastic.server.records import Grant, Tenant
from wantastic.server.web.http import Response

STYLE = """
:root { color-scheme: light dark; --edge: #767676; --accent: #0b57d0; --bad: #b3261e; }
body { font: 1.1rem/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 34rem; padding: 1.5rem; }
label, legend { display: block; font-weight: 600; margin: 1rem 0 .25rem; }
input, select { font: inherit; padding: .5rem; width: 100%; box-sizing: border-box;
  border: 1px solid var(--edge); border-radius: .3rem; }
input[name=user_code] { font-family: ui-monospace, monospace; letter-spacing: .15em;
  text-transform: uppercase; }
button { font: inherit; margin: 1.25rem .75rem 0 0; padding: .6rem 1.4rem; min-height: 2.75rem;
  border: 2px solid var(--accent); border-radius: .3rem; cursor: pointer;
  background: var(--accent); color: #fff; }
button.deny { background: transparent; color: inherit; border-color: var(--edge); }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
dt { font-weight: 600; } dd { margin: 0 0 .5rem; overflow-wrap: anywhere; }
.error { border-left: .3rem solid var(--bad); padding: .1rem 1rem; }
.code { font-family: ui-monospace, monospace; letter-spacing: .15em; }
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
SECURITY_HEADERS = (
    (
        "content-security-policy",
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "same-origin"),
    ("cache-control", "no-store"),
)


def sign_in(form_token: str, user_code: str, error: str = "") -> str:
    """Ask who is there."""
    return f"""{_alert(error)}
<h1>Sign in to approve a device</h1>
<form method="post" action="/auth/device/sign-in">
{_hidden(form_token=form_token, user_code=user_code)}
<label for="code">Sign-in code</label>
<input id="code" name="code" type="password" autocomplete="current-password" required autofocus
  aria-describedby="code-help">
<p id="code-help">Your server's administrator makes it with
<code>wantastic-server operator create</code>.</p>
<button type="submit">Sign in</button>
</form>"""


def ask_code(form_token: str, user_code: str, operator: str, error: str = "") -> str:
    """Ask for the code that the device shows."""
    return f"""{_alert(error)}
<h1>Approve a device</h1>
<form method="post" action="/auth/device/review">
{_hidden(form_token=form_token)}
<label for="user_code">Code shown by the device</label>
<input id="user_code" name="user_code" value="{escape(user_code)}" required autofocus
  autocomplete="off" autocapitalize="characters" spellcheck="false" maxlength="16"
  aria-describedby="user_code-help">
<p id="user_code-help">Eight letters, such as BCDF-GHJK.</p>
<button type="submit">Continue</button>
</form>
{_sign_out(form_token, operator)}"""


def review(
    form_token: str, grant: Grant, tenants: Sequence[Tenant], operator: str, *, replaces: bool
) -> str:
    """Show what would be approved."""
    if len(tenants) == 1:
        choice = _hidden(tenant=tenants[0].id) + (
            f"<p>It will join <strong>{escape(tenants[0].name)}</strong>.</p>"
        )
    else:
        options = "".join(
            f'<option value="{escape(t.id)}">{escape(t.name)}</option>' for t in tenants
        )
        choice = (
            '<label for="tenant">It will join</label>'
            f'<select id="tenant" name="tenant" required>{options}</select>'
        )
    warning = (
        _alert(
            "A device with this name is enrolled already. Approving hands its name and "
            "addresses to the device in front of you, and the old one is cut off."
        )
        if replaces
        else ""
    )
    return f"""<h1>Approve this device?</h1>
<p>Approve only if the device in front of you shows
<strong class="code">{escape(grant.user_code)}</strong>.</p>
{warning}
<dl>
<dt>Name</dt><dd>{escape(grant.device_id) or "not stated"}</dd>
<dt>Model</dt><dd>{escape(grant.model) or "not stated"}</dd>
<dt>Asked from</dt><dd>{escape(grant.remote)}</dd>
</dl>
<form method="post" action="/auth/device/decide">
{_hidden(form_token=form_token, user_code=grant.user_code)}
{choice}
<button type="submit" name="decision" value="approve">Approve</button>
<button type="submit" name="decision" value="deny" class="deny">Deny</button>
</form>
{_sign_out(form_token, operator)}"""


def decided(*, approved: bool) -> str:
    """Say what was done."""
    if approved:
        return """<h1>Device approved</h1>
<p role="status">The device connects by itself within a few seconds. You can close this page.</p>
<p><a href="/auth/device">Approve another device</a></p>"""
    return """<h1>Device denied</h1>
<p role="status">The device was told so. You can close this page.</p>
<p><a href="/auth/device">Approve another device</a></p>"""


def problem(text: str) -> str:
    """Say what is wrong, and where to go on."""
    return f"""{_alert(text)}
<h1>That did not work</h1>
<p><a href="/auth/device">Start again</a></p>"""


def page(status: int, content: str, headers: tuple[tuple[str, str], ...] = ()) -> Response:
    """Wrap a page's content."""
    start = content.index("<h1>") + 4
    title = content[start : content.index("</h1>")]
    body = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
{content}
</main>
</body>
</html>
"""
    return Response(
        status, body.encode(), "text/html; charset=utf-8", (*SECURITY_HEADERS, *headers)
    )


def _alert(text: str) -> str:
    return f'<p class="error" role="alert">{escape(text)}</p>' if text else ""


def _hidden(**values: str) -> str:
    return "".join(
        f'<input type="hidden" name="{name}" value="{escape(value)}">'
        for name, value in values.items()
    )


def _sign_out(form_token: str, operator: str) -> str:
    return f"""<form method="post" action="/auth/device/sign-out">
{_hidden(form_token=form_token)}
<p>Signed in as {escape(operator)}. <button type="submit" class="deny">Sign out</button></p>
</form>"""
