"""Arguments: each spelling of the document, wireguard-go's form, and what is refused."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wantastic.cli import exits, main
from wantastic.cli.args import (
    FORWARD_FLAGS,
    SUBCOMMANDS,
    SWITCHES,
    VALUE_FLAGS,
    Check,
    Command,
    Help,
    Interface,
    Run,
    ShowStatus,
    Subcommand,
    UsageError,
    Version,
    parse_args,
)
from wantastic.cli.help import HELP
from wantastic.cli.run import override_of
from wantastic.config.access import MAX_FORWARDS
from wantastic.config.model import Config, ForwardConfig, HostPort

ROOT = Path(__file__).resolve().parents[3]

GOOD: list[tuple[str, dict[str, str], Command]] = [
    # The document's own lines.
    (
        "-config /etc/wantastic/config.json",
        {},
        Run(config_path="/etc/wantastic/config.json"),
    ),
    (
        "-auth-url https://wantastic.app/auth/device",
        {},
        Run(auth_url="https://wantastic.app/auth/device"),
    ),
    ("-token your-auth-token", {}, Run(token="your-auth-token")),
    ("-config c.json -exit-node", {}, Run("c.json", exit_node=True)),
    ("-config config.json -v", {}, Run("config.json", verbosity=1)),
    ("-status", {}, ShowStatus()),
    # Two dashes, equals signs, and the rest.
    ("--config=c --exit-node", {}, Run("c", exit_node=True)),
    ("-config c -v -v", {}, Run("c", verbosity=2)),
    ("-config c -vv", {}, Run("c", verbosity=2)),
    ("-token-file /run/t", {}, Run(token_file="/run/t")),
    ("-token -", {}, Run(token_file="/dev/stdin")),
    ("-config c -token t", {}, Run("c", token="t")),
    ("-config c -check", {}, Check("c")),
    ("--check --config c --json", {}, Check("c", json=True)),
    ("-status --json", {}, ShowStatus(json=True)),
    ("-status -config c", {}, ShowStatus("c")),
    ("-status -interface wg1 -v", {}, ShowStatus(interface="wg1")),
    ("-version", {}, Version()),
    ("--version", {}, Version()),
    ("-h", {}, Help()),
    ("-config c -help", {}, Help()),
    # Forwards, in ssh's form.
    (
        "-config c -L 8443:10.0.0.9:443 -L=udp/[::1]:53:[fd00::1]:53 -R 22:127.0.0.1:22",
        {},
        Run(
            "c",
            forwards=(
                ForwardConfig(
                    "local", "tcp", HostPort("127.0.0.1", 8443), HostPort("10.0.0.9", 443)
                ),
                ForwardConfig("local", "udp", HostPort("::1", 53), HostPort("fd00::1", 53)),
                ForwardConfig("tunnel", "tcp", HostPort("", 22), HostPort("127.0.0.1", 22)),
            ),
        ),
    ),
    (
        "-token t -L tcp/0.0.0.0:80:web.corp.example:80",
        {},
        Run(
            token="t",
            forwards=(
                ForwardConfig(
                    "local", "tcp", HostPort("0.0.0.0", 80), HostPort("web.corp.example", 80)
                ),
            ),
        ),
    ),
    # wireguard-go's form.
    ("wg0", {}, Interface("wg0")),
    ("-f wg0", {}, Interface("wg0", foreground=True)),
    ("--foreground wg0", {}, Interface("wg0", foreground=True)),
    ("wg0", {"WG_PROCESS_FOREGROUND": "1"}, Interface("wg0", foreground=True)),
    ("wg0", {"WG_TUN_FD": "5", "WG_UAPI_FD": "6"}, Interface("wg0", tun_fd=5, uapi_fd=6)),
    ("wg0", {"LOG_LEVEL": "verbose"}, Interface("wg0", log_level="debug", keep_output=True)),
    ("wg0", {"LOG_LEVEL": "silent"}, Interface("wg0", log_level="silent")),
    ("wg0", {"LOG_LEVEL": "error"}, Interface("wg0", keep_output=True)),
    ("wg0", {"WG_TUN_NAME_FILE": "/run/n"}, Interface("wg0", name_file="/run/n")),
    ("-- wg0", {}, Interface("wg0")),
    # Subcommands get their arguments as they are.
    ("demo --seconds 3", {}, Subcommand("demo", ("--seconds", "3"))),
    ("-f demo", {}, Interface("demo", foreground=True)),
]
BAD: list[tuple[str, dict[str, str], str]] = [
    ("-config", {}, "needs a value"),
    ("-config=", {}, "not empty"),
    ("-config a -config b", {}, "twice"),
    ("-confg a", {}, "did you mean -config"),
    ("---config a", {}, "not a flag"),
    ("-", {}, "cannot be the name"),
    ("-v", {}, "nothing to do"),
    ("-exit-node", {}, "nothing to do"),
    ("-check", {}, "-check needs -config"),
    ("-check=yes -config c", {}, "takes no value"),
    ("-config c --json", {}, "belongs to -status or -check"),
    ("-config c -interface wg0", {}, "belongs to -status"),
    ("-status -token t", {}, "do not go together"),
    ("-status -exit-node", {}, "do not go together"),
    ("-token t -token-file f", {}, "do not go together"),
    ("-token - -token-file f", {}, "do not go together"),
    ("-token t -auth-url https://x", {}, "do not go together"),
    ("-auth-url http://x", {}, "https://"),
    ("-config c -L", {}, "needs a value"),
    ("-config c -L 80", {}, "-L 80: is not of the form"),
    ("-config c -L 80:10.0.0.9", {}, "is not of the form"),
    ("-config c -L 80:fd00::9:80", {}, "is not of the form"),
    ("-config c -L sctp/80:10.0.0.9:80", {}, "is not of the form"),
    ("-config c -L 0:10.0.0.9:80", {}, "no valid port"),
    ("-config c -L 80:10.0.0.9:65536", {}, "no valid port"),
    ("-config c -L localhost:80:10.0.0.9:80", {}, "name to listen on"),
    ("-config c -L udp/80:web.example:80", {}, "name as its target"),
    ("-config c -R 80:web.example:80", {}, "name as its target"),
    ("-config c -R 10.0.0.1:80:127.0.0.1:80", {}, "address to listen on"),
    ("-config c -L 80:10.0.0.9:80 -L 127.0.0.1:80:10.0.0.8:80", {}, "another one listens"),
    ("-config c -check -L 80:10.0.0.9:80", {}, "-check and -L do not go together"),
    ("-status -R 80:10.0.0.9:80", {}, "do not go together"),
    ("-L 80:10.0.0.9:80", {}, "nothing to do"),
    ("wg0 -L 80:10.0.0.9:80", {}, "do not go together"),
    ("-f", {}, "name of an interface"),
    ("wg0 wg1", {}, "only one"),
    ("wg0 -config c", {}, "do not go together"),
    ("../wg0", {}, "cannot be the name"),
    ("an-interface-too-long", {}, "cannot be the name"),
    ("wg0", {"WG_TUN_FD": "x"}, "WG_TUN_FD"),
    ("wg0", {"WG_UAPI_FD": "-1"}, "WG_UAPI_FD"),
]


@pytest.mark.parametrize(("line", "environ", "expected"), GOOD)
def test_what_arguments_ask_for(line: str, environ: dict[str, str], expected: Command) -> None:
    assert parse_args(line.split(), environ) == expected


@pytest.mark.parametrize(("line", "environ", "words"), BAD)
def test_what_is_refused(line: str, environ: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)):
        parse_args(line.split(), environ)


def test_a_token_is_not_in_the_command_s_text() -> None:
    assert "s3cret" not in repr(parse_args(["-token", "s3cret"], {}))


words = st.sampled_from(
    [
        "-",
        "--",
        "=",
        "wg0",
        "demo",
        *(f"-{f}" for f in sorted(VALUE_FLAGS | set(FORWARD_FLAGS) | set(SWITCHES))),
    ]
)


@given(st.lists(words | st.text(max_size=6), max_size=6))
def test_any_arguments_are_a_command_or_a_usage_error(argv: list[str]) -> None:
    try:
        assert isinstance(parse_args(argv, {}), Command)
    except UsageError as error:
        text = str(error)
    else:
        text = ""
    assert len(text) < 200


def test_the_help_fits_and_names_every_flag() -> None:
    assert all(len(line) <= 80 for line in HELP.splitlines())
    several = VALUE_FLAGS | set(FORWARD_FLAGS)
    for flag in several | {"check", "status", "json", "v", "version", "help", "exit-node", "f"}:
        assert re.search(rf"-{flag}\b", HELP), flag
    for name in SUBCOMMANDS:
        assert f"wantasticd {name}" in HELP


def test_the_exit_statuses_are_documented() -> None:
    text = (ROOT / "docs" / "cli.md").read_text()
    for status, meaning in exits.MEANINGS.items():
        assert f"| {status} | {meaning} |" in text


def test_every_flag_is_documented() -> None:
    text = (ROOT / "docs" / "cli.md").read_text()
    for flag in VALUE_FLAGS | set(FORWARD_FLAGS) | set(SWITCHES):
        assert f"`-{flag}" in text, flag


def test_flags_go_over_the_file_at_every_reload() -> None:
    override = override_of(Run("c", exit_node=True, verbosity=3))
    config = override(Config())
    assert config.exit_node.enabled
    assert config.log.level == "trace"
    assert override_of(Run("c"))(Config()) == Config()


def test_the_unforeseen_is_one_line_and_status_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(command: Check) -> int:
        raise RuntimeError("no such luck")

    monkeypatch.setitem(main.COMMANDS, Check, fail)
    assert main.main(["-config", "c", "-check"]) == exits.FAILED
    assert capsys.readouterr().err == (
        "wantasticd: RuntimeError: no such luck. With -v it tells where.\n"
    )
    with pytest.raises(RuntimeError):
        main.main(["-config", "c", "-check", "-v"])


@pytest.mark.parametrize(("flag", "status"), [("-version", 0), ("-help", 0), ("-status", 5)])
def test_what_is_asked_for_often_loads_little(flag: str, status: int, tmp_path: Path) -> None:
    # pathlib imports urllib.parse, and that ipaddress.
    allowed = {"json", "ipaddress"} if flag == "-status" else set()
    code = (
        "import sys; from wantastic.cli.main import main; status = main([sys.argv[1]]);"
        "heavy = {'asyncio', 'ssl', 'grpc', 'Crypto', 'cext', 'json', 'ipaddress', 'logging',"
        " 'wantastic.config', 'wantastic.device'};"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr); sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, flag],
        cwd=ROOT,
        env={**os.environ, "WANTASTIC_RUN_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status
    assert done.stderr.splitlines()[-1] == str(sorted(allowed))


def test_forwards_by_flag_join_those_of_the_file() -> None:
    kept = ForwardConfig("local", "udp", HostPort("127.0.0.1", 80), HostPort("10.0.0.1", 1))
    replaced = ForwardConfig("local", "tcp", HostPort("127.0.0.1", 80), HostPort("10.0.0.1", 1))
    run = parse_args(["-config", "c", "-L", "80:10.0.0.9:80", "-R", "80:[::1]:80"], {})
    assert isinstance(run, Run)
    found = override_of(run)(Config(forwards=(replaced, kept))).forwards
    assert found == (run.forwards[0], kept, run.forwards[1])


def test_forwards_by_flag_have_a_limit() -> None:
    def flags(count: int) -> list[str]:
        return ["-config", "c", *(f"-L={1 + n}:10.0.0.9:80" for n in range(count))]

    assert len(parse_args(flags(MAX_FORWARDS), {}).forwards) == MAX_FORWARDS  # type: ignore[union-attr]
    with pytest.raises(UsageError, match="at most"):
        parse_args(flags(MAX_FORWARDS + 1), {})
