"""The approval page in a real browser: headless Chromium, by keyboard, with scripts off."""

from __future__ import annotations

import json
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import grpc
import pytest
from selenium import webdriver
from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from tests.support import server as support
from tests.support.server import Caller, ServerProcess, key, operate
from wantastic.server.web.device_flow import GRANT_TYPE

Browser = webdriver.Chrome
PREFERENCES = {"profile.managed_default_content_settings.javascript": 2}
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


class Site:
    """A server with its page, two tenants and an operator."""

    def __init__(self, server: ServerProcess, sign_in_code: str) -> None:
        self.server = server
        self.sign_in_code = sign_in_code
        self.url = f"https://localhost:{server.ports['http']}"
        self._root = (server.state / "ca.pem").read_text()

    def post(self, path: str, **form: str) -> dict[str, Any]:
        """Send a form as a device does, with the server's root pinned."""
        request = urllib.request.Request(self.url + path, urlencode(form).encode())
        context = ssl.create_default_context(cadata=self._root)
        try:
            with urllib.request.urlopen(request, timeout=10, context=context) as answer:
                parsed: dict[str, Any] = json.load(answer)
        except urllib.error.HTTPError as error:
            parsed = json.load(error)
        return parsed

    def begin(self, **facts: str) -> dict[str, Any]:
        return self.post("/auth/device", client_id="wantasticd", **facts)

    def token(self, started: dict[str, Any]) -> dict[str, Any]:
        return self.post("/auth/token", grant_type=GRANT_TYPE, device_code=started["device_code"])

    def register(self, token: str, device_id: str) -> str:
        root = (self.server.state / "ca.pem").read_bytes()
        credentials = grpc.ssl_channel_credentials(root)
        target = f"localhost:{self.server.ports['grpc']}"
        with grpc.secure_channel(target, credentials) as channel:
            return Caller(channel).register(token, device_id, key()).device_id


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    state = tmp_path_factory.mktemp("page") / "state"
    support.set_gateway(state)
    for name in ("default", "branch"):
        operate(state, "tenant", "create", name)
    code = operate(state, "operator", "create", "olivia")[0]["sign_in_code"]
    options = ("--host", "localhost", "--http-listen", "127.0.0.1:0")
    with support.serving(state, *options) as server:
        yield Site(server, code)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    driver, chromium = shutil.which("chromedriver"), shutil.which("chromium")
    if driver is None or chromium is None:
        pytest.skip("install chromium and chromium-driver")
    options = Options()
    options.binary_location = chromium
    options.accept_insecure_certs = True
    options.add_experimental_option("prefs", PREFERENCES)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(flag)
    browser = webdriver.Chrome(options=options, service=Service(driver))
    browser.set_page_load_timeout(20)
    browser.implicitly_wait(0.2)
    try:
        yield browser
    finally:
        browser.quit()


def heading(browser: Browser) -> str:
    return browser.find_element(By.TAG_NAME, "h1").text


def comes(browser: Browser, wanted: str) -> bool:
    """Wait for a page; the one before may vanish while it is looked at."""

    def there() -> bool:
        try:
            return heading(browser) == wanted
        except (NoSuchElementException, StaleElementReferenceException):
            return False

    return support.eventually(there)


def type_here(browser: Browser, *keys: str) -> None:
    browser.switch_to.active_element.send_keys(*keys)


def submit_here(browser: Browser, *keys: str) -> None:
    """Type and press Enter, then wait until another page stands there."""
    before = browser.find_element(By.TAG_NAME, "main")
    type_here(browser, *keys, Keys.ENTER)

    def gone() -> bool:
        try:
            return browser.find_element(By.TAG_NAME, "main") != before
        except (NoSuchElementException, StaleElementReferenceException):
            return False

    assert support.eventually(gone)


def check_page(browser: Browser) -> None:
    """What a screen reader needs: language, title, one heading, a label for each field."""
    root = browser.find_element(By.TAG_NAME, "html")
    assert root.get_attribute("lang") == "en"
    assert browser.title
    assert len(browser.find_elements(By.TAG_NAME, "h1")) == 1
    assert len(browser.find_elements(By.TAG_NAME, "main")) == 1
    assert browser.find_elements(By.TAG_NAME, "script") == []
    for element in browser.find_elements(By.CSS_SELECTOR, "input:not([type=hidden]), select"):
        name = element.get_attribute("id")
        assert len(browser.find_elements(By.CSS_SELECTOR, f"label[for={name}]")) == 1
        assert element.accessible_name
    for element in browser.find_elements(By.TAG_NAME, "button"):
        assert element.accessible_name
        assert element.size["height"] >= 44
    width = browser.find_element(By.TAG_NAME, "main").size["width"]
    assert width <= browser.get_window_size()["width"]


def sign_in(browser: Browser, site: Site, target: str) -> None:
    browser.get(target)
    assert heading(browser) == "Sign in to approve a device"
    submit_here(browser, site.sign_in_code)


def test_a_person_approves_a_device_by_keyboard_without_scripts(
    browser: Browser, site: Site
) -> None:
    browser.get("data:text/html,<title>off</title><script>document.title='on'</script>")
    assert browser.title == "off"
    browser.set_window_size(360, 740)
    started = site.begin(device_id="router-7", model="Malta")
    assert site.token(started)["error"] == "authorization_pending"
    browser.get(started["verification_uri_complete"])
    check_page(browser)
    submit_here(browser, "wto_wrong")
    assert "not known" in browser.find_element(By.CSS_SELECTOR, "[role=alert]").text
    check_page(browser)
    submit_here(browser, site.sign_in_code)
    assert heading(browser) == "Approve a device"
    check_page(browser)
    field = browser.switch_to.active_element
    assert field.get_attribute("value") == started["user_code"]
    submit_here(browser)
    assert heading(browser) == "Approve this device?"
    check_page(browser)
    text = browser.find_element(By.TAG_NAME, "main").text
    assert started["user_code"] in text
    assert "router-7" in text
    Select(browser.find_element(By.ID, "tenant")).select_by_visible_text("branch")
    browser.find_element(By.ID, "tenant").send_keys(Keys.TAB)
    assert browser.switch_to.active_element.text == "Approve"
    submit_here(browser)
    assert heading(browser) == "Device approved"
    check_page(browser)
    time.sleep(4.1)
    token = site.token(started)["access_token"]
    assert site.register(token, "router-7") == "router-7"
    assert site.token(started)["error"] in ("invalid_grant", "slow_down")
    rows = operate(site.server.state, "device", "list", "--tenant", "branch")
    assert [row["device_id"] for row in rows] == ["router-7"]


def test_a_person_denies_a_device_and_signs_out(browser: Browser, site: Site) -> None:
    started = site.begin()
    sign_in(browser, site, f"{site.url}/auth/device")
    submit_here(browser, "BCDF-GHJK")
    assert "No device waits" in browser.find_element(By.CSS_SELECTOR, "[role=alert]").text
    type_here(browser, Keys.CONTROL, "a")
    submit_here(browser, started["user_code"].lower().replace("-", " "))
    deny = browser.find_element(By.CSS_SELECTOR, "button[value=deny]")
    deny.send_keys(Keys.ENTER)
    assert comes(browser, "Device denied")
    assert site.token(started)["error"] == "access_denied"
    browser.find_element(By.LINK_TEXT, "Approve another device").click()
    browser.find_element(By.XPATH, "//button[text()='Sign out']").click()
    assert comes(browser, "Sign in to approve a device")


def test_another_site_cannot_approve(browser: Browser, site: Site, tmp_path: Path) -> None:
    started = site.begin()
    sign_in(browser, site, f"{site.url}/auth/device")
    cookie = browser.get_cookies()[0]
    assert cookie["httpOnly"]
    assert cookie["secure"]
    evil = tmp_path / "evil.html"
    evil.write_text(
        f'<form method="post" action="{site.url}/auth/device/decide">'
        f'<input name="user_code" value="{started["user_code"]}">'
        '<input name="decision" value="approve"><input name="form_token" value="x">'
        "<button>Win</button></form>"
    )
    browser.get(evil.as_uri())
    browser.find_element(By.TAG_NAME, "button").click()
    assert comes(browser, "That did not work")
    assert site.token(started)["error"] == "authorization_pending"
