"""The configuration file: the document's own, each error and warning, and any bytes."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz import config as fuzz
from tests.support.configs import (
    ALICE_PRIVATE,
    ALICE_PUBLIC,
    BOB_PUBLIC,
    DOCUMENT,
    configs,
    document,
)
from wantastic.config.errors import ConfigError
from wantastic.config.keys import encode_key
from wantastic.config.load import load_config
from wantastic.config.model import EVERYTHING, Config, HostPort
from wantastic.config.parse import parse_config
from wantastic.config.render import render_config

BOB = encode_key(BOB_PUBLIC)
LOW_ORDER = "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
HUB = {"public_key": encode_key(ALICE_PUBLIC)}


def parse(value: object, **options: bool) -> Config:
    return parse_config(json.dumps(value).encode(), "c.json", **options).config


def problems(value: object, **options: bool) -> list[str]:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    with pytest.raises(ConfigError) as caught:
        parse_config(data, "c.json", **options)
    for problem in caught.value.problems:
        assert problem.remedy.endswith("."), problem
        assert len(problem.text) < 200
    return [str(problem) for problem in caught.value.problems]


def test_the_documents_file_is_understood_field_by_field() -> None:
    config = parse(document())
    assert config.server is not None
    assert config.server.endpoint == HostPort("wg.wantastic.app", 51820)
    assert config.server.allowed_ips == EVERYTHING
    assert not config.server.allowed_ips_listed
    assert [str(a) for a in config.interface.addresses] == ["10.0.0.2/32"]
    assert (config.interface.listen_port, config.interface.mtu_bytes) == (51820, 1420)
    assert config.exit_node.dns == ("8.8.8.8:53", "1.1.1.1:53")
    assert config.auth.server_url == HostPort("auth.wantastic.app", 443)
    assert config.auth.refresh_time_ns == 24 * 3600 * 10**9
    assert config.private_key is None


def test_the_documents_placeholders_are_named_one_by_one() -> None:
    found = problems(DOCUMENT.encode())
    assert [line.split(":")[0] for line in found] == [
        "private_key",
        "public_key",
        "server.public_key",
    ]
    assert all("placeholder" in line for line in found)


# (what is changed, the new value, the field that the message names, a word of it)
ERRORS: list[tuple[str, Any, str, str]] = [
    ("private_key", "!" * 44, "private_key", "not base64"),
    ("private_key", "short", "private_key", "5 characters"),
    ("private_key", encode_key(bytes(32)), "private_key", "all zeros"),
    ("private_key", 7, "private_key", "whole number"),
    ("private_key", BOB[:-2] + "1=", "private_key", "not the base64 of 32 bytes"),
    ("public_key", LOW_ORDER, "public_key", "low order"),
    ("server__public_key", "", "server.public_key", "missing"),
    ("server__public_key", LOW_ORDER, "server.public_key", "low order"),
    ("server__endpoint", "wg.example:0", "server.endpoint", "port"),
    ("server__endpoint", "wg.example:99999", "server.endpoint", "port"),
    ("server__endpoint", "wg.example:51821", "server.port", "51821"),
    ("server__endpoint", "[2001:db8::1", "server.endpoint", "brackets"),
    ("server__endpoint", "2001:db8::1::2", "server.endpoint", "IPv6"),
    ("server__endpoint", "2001:db8::1%eth0", "server.endpoint", "link-local"),
    ("server__endpoint", "1.2.3.400", "server.endpoint", "neither"),
    ("server__endpoint", "höst.example", "server.endpoint", "xn--"),
    ("server__endpoint", "a b", "server.endpoint", "neither"),
    ("server__port", 0, "server.port", "1 to 65535"),
    ("server__port", "51820", "server.port", "without quotes"),
    ("server__port", True, "server.port", "true or false"),
    ("server__port", 51820.5, "server.port", "fraction"),
    ("server__preshared_key", "secret", "server.preshared_key", "no WireGuard key"),
    ("server__persistent_keepalive", 65536, "server.persistent_keepalive", "65535"),
    ("server__allowed_ips", ["10.0.0.0/33"], "server.allowed_ips[0]", "10.0.0.0/33"),
    ("server__allowed_ips", ["::/0", 4], "server.allowed_ips[1]", "quotes"),
    ("server__allowed_ips", "0.0.0.0/0", "server.allowed_ips", "a list"),
    ("server", [], "server", "a list"),
    ("interface__addresses", ["10.0.0.2/32", "10.0.0.2/24"], "interface.addresses", "twice"),
    ("interface__addresses", ["127.0.0.1/8"], "interface.addresses", "no host"),
    ("interface__addresses", ["fe80::1%eth0/64"], "interface.addresses[0]", "zone"),
    ("interface__listen_port", -1, "interface.listen_port", "-1"),
    ("interface__mtu", 100, "interface.mtu", "100"),
    ("interface__mtu", 70000, "interface.mtu", "70000"),
    ("interface__mode", "kernel", "interface.mode", "userspace"),
    ("interface__name", "far too long a name", "interface.name", "15"),
    ("interface__name", "../x", "interface.name", "interface"),
    ("interface__fwmark", 2**32, "interface.fwmark", "4294967295"),
    ("interface__bind_interface", "wg0", "interface.bind_interface", "tunnel"),
    ("interface__default_route", "yes", "interface.default_route", "true or false"),
    ("exit_node__routes", ["nonsense"], "exit_node.routes[0]", "nonsense"),
    ("exit_node__dns", ["dns.google"], "exit_node.dns[0]", "address"),
    ("exit_node__allow", ["tcp"], "exit_node.allow[0]", "RANGE"),
    ("exit_node__deny", ["icmp 10.0.0.0/8 80"], "exit_node.deny[0]", "ICMP"),
    ("exit_node__deny", ["tcp 10.0.0.0/8 90-80"], "exit_node.deny[0]", "ends before"),
    ("dns__servers", ["tls://9.9.9.9"], "dns.servers[0]", "certificate"),
    ("dns__routes", {"not a domain": []}, "dns.routes.not a domain", "domain"),
    ("proxy__socks5", {"listen": "0.0.0.0:1080"}, "proxy.socks5.listen", "no password"),
    ("proxy__socks5", {"listen": "localhost:1080"}, "proxy.socks5.listen", "name"),
    ("proxy__http", {"user": "me"}, "proxy.http.user", "together"),
    ("proxy__http", {"listen": "127.0.0.1:0"}, "proxy.http.listen", "port"),
    ("forwards", [{"target": "10.0.0.1:80"}], "forwards[0].listen", "missing"),
    ("forwards", [{"from": "tunnel", "target": "10.0.0.1:80"}], "forwards[0].port", "missing"),
    ("forwards", [{"listen": "127.0.0.1:80"}], "forwards[0].target", "missing"),
    (
        "forwards",
        [{"from": "tunnel", "port": 22, "target": "nas:22"}],
        "forwards[0].target",
        "name",
    ),
    (
        "forwards",
        [{"from": "up", "listen": "127.0.0.1:80", "target": "10.0.0.1:80"}],
        "forwards[0].from",
        "tunnel",
    ),
    (
        "forwards",
        [{"listen": "127.0.0.1:80", "target": "10.0.0.1:80"}] * 2,
        "forwards[1]",
        "forwards[0]",
    ),
    ("auth__refresh_time", "1 day", "auth.refresh_time", "24h"),
    ("auth__refresh_time", "-1h", "auth.refresh_time", "short"),
    ("auth__refresh_time", 24, "auth.refresh_time", "quotes"),
    ("auth__server_url", "https://x/path", "auth.server_url", "path"),
    ("auth__auth_url", "http://x", "auth.auth_url", "HTTPS"),
    ("auth__token_file", "/run/token", "auth.token_file", "both"),
    ("auth__client_cert_file", "/c.pem", "auth.client_cert_file", "missing"),
    ("log__level", "verbose", "log.level", "debug"),
    ("memory_limit", "1M", "memory_limit", "range"),
    ("memory_limit", "lots", "memory_limit", "size"),
    ("memory_limit", 17, "memory_limit", "17"),
    ("threads", 0, "threads", "1 to 16"),
    ("state_dir", "state", "state_dir", "absolute"),
    ("device_id", "a\nb", "device_id", "control character"),
    ("device_id", "a" * 5000, "device_id", "longer"),
    ("peers", [{"public_key": BOB}], "peers[0].public_key", "server too"),
    ("peers", [HUB | {"allowed_ips": ["::/0"]}], "peers[0].allowed_ips", "server has too"),
    ("peers", [3], "peers[0]", "table"),
]


@pytest.mark.parametrize(("name", "value", "field", "word"), ERRORS)
def test_an_error_names_field_problem_and_remedy(
    name: str, value: object, field: str, word: str
) -> None:
    (found,) = problems(document(**{name: value}))
    assert found.startswith(field + ": ")
    assert word in found


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "empty"),
        (b"\xff\xfe{", "UTF-8"),
        (b"[]", "not a table"),
        (b'{"a": 1,}', "line 1, column 9"),
        (b'{"a": 1, "a": 2}', 'field "a" twice'),
        (b'{"server": {"port": 1, "port": 2}}', 'field "port" twice'),
        (b'{"threads": NaN}', "usable"),
        (b'{"threads": ' + b"9" * 5000 + b"}", "usable"),
        (b"[" * 100_000, "usable"),
        (b" " * (1 << 20) + b"{}", "1 MiB"),
    ],
)
def test_what_is_not_json_is_said_to_be_so(data: bytes, word: str) -> None:
    (found,) = problems(data)
    assert word in found


@pytest.mark.parametrize(
    ("name", "value", "field", "word"),
    [
        ("privateKey", "x", "privateKey", '"private_key"'),
        ("server__PersistentKeepalive", 25, "server.PersistentKeepalive", '"persistent_keepalive"'),
        ("interface__adresses", [], "interface.adresses", '"addresses"'),
        ("interface__zzz", 1, "interface.zzz", "no effect"),
        ("auth__insecure", True, "auth.insecure", "tests"),
        ("auth__token", "your-auth-token", "auth.token", "placeholder"),
        ("peers", [HUB], "peers[0].allowed_ips", "nothing may cross"),
    ],
)
def test_a_warning_names_the_field_and_what_to_do(
    name: str, value: object, field: str, word: str
) -> None:
    data = json.dumps(document(**{name: value})).encode()
    found = [str(w) for w in parse_config(data, "c.json").warnings]
    assert any(w.startswith(field + ": ") and word in w for w in found), found


def test_no_secret_is_quoted_or_shown() -> None:
    secret = "c2VjcmV0LXNlY3JldC1zZWNyZXQ"
    wrong = {"private_key": secret, "server__preshared_key": secret, "auth__token": [secret]}
    text = "\n".join(problems(document(**wrong)))
    assert "private_key" in text
    assert secret not in text
    good = encode_key(ALICE_PRIVATE)
    config = parse(document(private_key=good, server__preshared_key=good, auth__token=secret))
    assert secret not in repr(config)
    assert good not in repr(config)
    assert repr(config.private_key) not in repr(config)
    hidden = render_config(config, redact=True).decode()
    assert secret not in hidden
    assert good not in hidden


def test_own_keys_are_compared() -> None:
    pair = {"private_key": encode_key(ALICE_PRIVATE), "public_key": encode_key(ALICE_PUBLIC)}
    parse(document(**pair))
    (found,) = problems(document(**(pair | {"public_key": BOB, "server": None})))
    assert "does not belong" in found
    own = {"private_key": pair["private_key"], "server__public_key": encode_key(ALICE_PUBLIC)}
    assert parse(document(**own))
    assert "own key" in problems(document(**own), thorough=True)[0]


def test_every_problem_is_reported_at_once() -> None:
    assert len(problems(document(threads=0, interface__mtu=1, server__port=0))) == 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("wg.example", HostPort("wg.example", 51820)),
        ("wg.example:5", HostPort("wg.example", 5)),
        ("192.0.2.1:5", HostPort("192.0.2.1", 5)),
        ("2001:DB8::1", HostPort("2001:db8::1", 51820)),
        ("[2001:db8::1]:5", HostPort("2001:db8::1", 5)),
        ("[fe80::1%eth0]:5", HostPort("fe80::1%eth0", 5)),
    ],
)
def test_an_endpoint_is_host_or_host_and_port(text: str, expected: HostPort) -> None:
    value = document(server__endpoint=text)
    del value["server"]["port"]
    server = parse(value).server
    assert server is not None
    assert server.endpoint == expected


def test_memory_limit_is_a_number_or_a_size() -> None:
    for text in ("16M", "16MiB", "16 mb", 16 << 20):
        assert parse({"memory_limit": text}).memory_limit_bytes == 16 << 20


@pytest.mark.parametrize("field", ["device_id", "peers", "server", "log", "threads", "nobody"])
def test_any_depth_is_an_error_and_nothing_else(field: str) -> None:
    """Also where reading just manages what showing it does not."""
    for depth in (*range(900, 1000), 5_000, 200_000):
        for begin, end in (("[", "]"), ('{"a":', "}")):
            data = f'{{"{field}": {begin * depth}1{end * depth}}}'.encode()
            with contextlib.suppress(ConfigError):
                parse_config(data, "deep")


def test_a_field_that_is_there_twice_is_found_at_once() -> None:
    names = [f'"name{number}": 1' for number in range(60_000)]
    data = ("{" + ", ".join([*names, names[-1]]) + "}").encode()
    started = time.process_time()
    with pytest.raises(ConfigError, match="name59999"):
        parse_config(data, "long")
    assert time.process_time() - started < 5


def test_files_are_read_and_exposed_secrets_warned_about(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(document()))
    path.chmod(0o644)
    assert any("chmod 600" in str(w) for w in load_config(path).warnings)
    path.chmod(0o600)
    assert not any("chmod" in str(w) for w in load_config(path).warnings)
    # A proxy's password is a secret too, and who may write decides where the tunnel leads.
    for mode, text, expected in (
        (0o640, '{"proxy": {"socks5": {"user": "u", "password": "p"}}}', ["chmod 600"]),
        (0o620, "{}", ["chmod go-w"]),
        (0o602, "{}", ["chmod go-w"]),
        (0o644, "{}", []),
    ):
        path.write_text(text)
        path.chmod(mode)
        found = [str(w) for w in load_config(path).warnings if "chmod" in str(w)]
        assert len(found) == len(expected), found
        assert all(e in f for e, f in zip(expected, found, strict=True))
    for wrong in (tmp_path / "none", tmp_path, "a\0b"):
        with pytest.raises(ConfigError, match="cannot be read"):
            load_config(wrong)


@given(configs())
def test_a_rendered_configuration_parses_to_itself(config: Config) -> None:
    assert parse_config(render_config(config), "c").config == config


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=10,
)


@settings(max_examples=300)
@given(st.sampled_from(sorted(fuzz.FIELDS)), json_values)
def test_any_value_in_any_field_is_taken_or_refused(field: str, value: object) -> None:
    name = field.replace(".", "__")
    fuzz.fuzz_config(json.dumps(document(**{name: value})).encode())


@given(st.binary())
def test_any_bytes_are_refused_politely(data: bytes) -> None:
    fuzz.fuzz_config(data)


def test_every_field_is_documented() -> None:
    text = (Path(__file__).resolve().parents[3] / "docs" / "configuration.md").read_text()
    for field in fuzz.FIELDS:
        assert f"`{field.rpartition('.')[2]}`" in text, field
