"""UCI to JSON: what an OpenWrt user writes is what wantasticd reads."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wantastic.config import parse

ROOT = Path(__file__).resolve().parents[3]
FEED = ROOT / "buildroot" / "openwrt" / "wantasticd"
CONVERT = FEED / "files" / "uci-to-json.awk"
AWKS = (["busybox", "awk"], ["awk"])

ROWS = [
    # 1: nothing
    ("", {}),
    # 2: what only the init script reads is left out
    ("wantastic.main=wantastic\nwantastic.main.enabled='1'\n", {}),
    # 3: numbers, truth values, text
    (
        "wantastic.interface=interface\nwantastic.interface.listen_port='51820'\n"
        "wantastic.interface.strict_port='on'\nwantastic.interface.mode='tun'\n",
        {"interface": {"listen_port": 51820, "strict_port": True, "mode": "tun"}},
    ),
    # 4: a list of one, a list of two
    (
        "wantastic.interface=interface\nwantastic.interface.addresses='10.0.0.2/32'\n"
        "wantastic.server=server\nwantastic.server.allowed_ips='10.0.0.0/8' 'fd00::/8'\n",
        {
            "interface": {"addresses": ["10.0.0.2/32"]},
            "server": {"allowed_ips": ["10.0.0.0/8", "fd00::/8"]},
        },
    ),
    # 5: peers without a name, in order
    (
        "wantastic.@peer[0]=peer\nwantastic.@peer[0].name='a'\n"
        "wantastic.@peer[1]=peer\nwantastic.@peer[1].persistent_keepalive='25'\n",
        {"peers": [{"name": "a"}, {"persistent_keepalive": 25}]},
    ),
    # 6: the exit node's `enabled` is the configuration's, the main section's is not
    (
        "wantastic.exit_node=exit_node\nwantastic.exit_node.enabled='0'\n",
        {"exit_node": {"enabled": False}},
    ),
    # 7: quotes, backslashes, dots and signs in values
    (
        "wantastic.main=wantastic\nwantastic.main.device_id='a'\\''b\"c\\d.e=f'\n",
        {"device_id": "a'b\"c\\d.e=f"},
    ),
    # 8: a number that is none stays text, for wantasticd to refuse by name
    (
        "wantastic.interface=interface\nwantastic.interface.mtu='big'\n",
        {"interface": {"mtu": "big"}},
    ),
]


def convert(text: str, awk: list[str]) -> object:
    """Run the script as the router does."""
    done = subprocess.run(
        [*awk, "-f", CONVERT], input=text, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("awk", AWKS, ids=" ".join)
@pytest.mark.parametrize(("text", "expected"), ROWS)
def test_rows(text: str, expected: object, awk: list[str]) -> None:
    assert convert(text, awk) == expected


@given(
    st.lists(st.text(st.characters(min_codepoint=32, max_codepoint=126)), min_size=1, max_size=4)
)
def test_any_value_survives(values: list[str]) -> None:
    quoted = " ".join("'" + value.replace("'", "'\\''") + "'" for value in values)
    text = f"wantastic.dns=dns\nwantastic.dns.servers={quoted}\n"
    assert convert(text, AWKS[0]) == {"dns": {"servers": values}}


def uci_show(text: str) -> str:
    """Return what `uci show wantastic` prints for a configuration file."""
    lines, section, lists = [], "", dict[str, list[str]]()
    for row in text.splitlines():
        words = row.split(None, 2)
        if not words or words[0].startswith("#"):
            continue
        if words[0] == "config":
            section = f"wantastic.{words[2].strip(chr(39))}"
            lines.append(f"{section}={words[1]}")
        elif words[0] == "option":
            lines.append(f"{section}.{words[1]}={words[2]}")
        else:
            lists.setdefault(f"{section}.{words[1]}", []).append(words[2])
    return "\n".join([*lines, *(f"{k}={' '.join(v)}" for k, v in lists.items())]) + "\n"


def test_the_packaged_configuration_with_its_examples_is_valid() -> None:
    text = (FEED / "files" / "wantastic.config").read_text().replace("\t# ", "\t")
    text = text.replace("public_key ''", f"public_key '{'A' * 42}E='")
    text = "\n".join(row for row in text.splitlines() if "config_file" not in row)
    data = json.dumps(convert(uci_show(text), AWKS[0])).encode()
    config = parse.parse_config(data, "uci").config
    assert config.interface.listen_port == 51820
    assert config.server
    assert config.server.keepalive_s == 25


RULES = """
INCLUDE_DIR := $(TOPDIR)/include
STAGING_DIR_HOSTPKG := $(TOPDIR)
PKG_BUILD_DIR := /build
ARCH := arm
TARGET_CC := gcc
TARGET_CXX := g++
TARGET_AR := ar
TARGET_RANLIB := ranlib
TARGET_CFLAGS := -Os -pipe -mcpu=cortex-a7 -g3 -mfloat-abi=hard
"""
BUILD_PACKAGE = "define BuildPackage\ncompile:\n\t$$(call Build/Compile)\nendef\n"


@pytest.mark.parametrize(
    ("setting", "transport"), [("", "slim"), ("CONFIG_WANTASTICD_GRPCIO=y", "grpcio")]
)
def test_the_recipe_compiles_for_the_cpu_of_the_image(
    tmp_path: Path, setting: str, transport: str
) -> None:
    python = tmp_path / "bin" / "python3"
    for path, text in (
        (tmp_path / "rules.mk", RULES),
        (tmp_path / "include" / "package.mk", BUILD_PACKAGE),
        (python, '#!/bin/sh\nprintf "%s\\n" "$CC" "$CXX" "$AR" "$RANLIB" "$*"\n'),
    ):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    python.chmod(0o755)
    command = ["make", "-s", "-C", FEED, "compile", f"TOPDIR={tmp_path}", *setting.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [line for line in done.stdout.splitlines() if not line.startswith("make")]
    flags = "-mcpu=cortex-a7 -mfloat-abi=hard"
    assert lines == [
        f"gcc {flags}",
        f"g++ {flags}",
        "ar",
        "ranlib",
        f"-m buildroot.static binary --arch armv7 --transport {transport} --output /build",
    ]


def test_the_package_starts_disabled_and_keeps_what_the_user_wrote() -> None:
    assert "option enabled '0'" in (FEED / "files" / "wantastic.config").read_text()
    makefile = (FEED / "Makefile").read_text()
    conffiles = makefile.partition("/conffiles\n")[2].partition("endef")[0].split()
    assert conffiles == ["/etc/config/wantastic", "/etc/wantastic/"]
    assert "no-mips16" in makefile
    assert "kmod-" not in makefile.partition("DEPENDS:=")[2].partition("\n")[0]
