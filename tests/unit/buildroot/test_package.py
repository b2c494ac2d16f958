"""The Buildroot external tree: it parses, installs what it says, and its scripts are clean."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import kconfiglib
import pytest

from buildroot import image

ROOT = Path(__file__).resolve().parents[3]
TREE = ROOT / "buildroot"
PACKAGE = TREE / "package" / "wantasticd"

# Buildroot's own symbols that our files mention, as a configuration of its would set them.
STAND_IN = """
config BR2_HOSTARCH
	string
	default "x86_64"
config BR2_PACKAGE_CA_CERTIFICATES
	bool "ca-certificates"
"""
SYMBOLS = (
    *("x86_64", "aarch64", "arm", "mips", "mipsel", "ARM_CPU_ARMV7A", "USE_MMU"),
    *("TOOLCHAIN_USES_MUSL", "TOOLCHAIN_HAS_THREADS", "INSTALL_LIBSTDCPP"),
    "TOOLCHAIN_GCC_AT_LEAST_8",
)


def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *enabled: str) -> kconfiglib.Kconfig:
    """Return our Config.in under a stand-in of Buildroot's, with some symbols set."""
    text = 'mainmenu "stand-in"\n' + STAND_IN
    for name in SYMBOLS:
        value = "y" if name in enabled else "n"
        text += f"config BR2_{name}\n\tbool\n\tdefault {value}\n"
    text += f'source "{TREE / "Config.in"}"\n'
    (tmp_path / "Config.in").write_text(text)
    monkeypatch.setenv("BR2_EXTERNAL_WANTASTIC_PATH", str(TREE))
    return kconfiglib.Kconfig(str(tmp_path / "Config.in"), warn_to_stderr=False)


MUSL = ("USE_MMU", "TOOLCHAIN_USES_MUSL", "TOOLCHAIN_HAS_THREADS", "INSTALL_LIBSTDCPP")
ROWS = [
    # 1: big-endian MIPS, no musl: zig compiles, grpcio cannot be chosen
    (("mips", "USE_MMU"), {"ZIG_CC": "y", "BUILDROOT_CC": "n", "GRPCIO": "n", "SLIM": "y"}),
    # 2: a complete musl toolchain is preferred to zig
    (("mipsel", *MUSL, "TOOLCHAIN_GCC_AT_LEAST_8"), {"ZIG_CC": "n", "BUILDROOT_CC": "y"}),
    # 3: a musl toolchain with an old gcc is not
    (("mipsel", *MUSL), {"ZIG_CC": "y", "BUILDROOT_CC": "n"}),
    # 4: ARMv7 may have grpcio
    (("arm", "ARM_CPU_ARMV7A", "USE_MMU"), {"SLIM": "y", "GRPCIO": "n", "TUN": "n"}),
]


@pytest.mark.parametrize(("enabled", "expected"), ROWS)
def test_config_in(
    enabled: tuple[str, ...],
    expected: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kconf = config(tmp_path, monkeypatch, *enabled)
    assert not kconf.warnings
    kconf.syms["BR2_PACKAGE_WANTASTICD"].set_value("y")
    found = {
        name: kconf.syms[f"BR2_PACKAGE_WANTASTICD_{name}"].str_value or "n" for name in expected
    }
    assert found == expected
    grpcio = kconf.syms["BR2_PACKAGE_WANTASTICD_GRPCIO"]
    assert (grpcio.visibility > 0) == ("mips" not in enabled)


@pytest.mark.parametrize("enabled", [(), ("USE_MMU",), ("arm", "USE_MMU")])
def test_unsupported_cpus_do_not_offer_it(
    enabled: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kconf = config(tmp_path, monkeypatch, *enabled)
    assert kconf.syms["BR2_PACKAGE_WANTASTICD"].visibility == 0


@pytest.mark.parametrize("board", image.boards())
def test_defconfigs_set_symbols_of_ours_that_exist(
    board: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kconf = config(tmp_path, monkeypatch)
    lines = (TREE / "configs" / f"wantastic_{board}_defconfig").read_text().splitlines()
    ours = [line.partition("=")[0] for line in lines if line.startswith("BR2_PACKAGE_WANTASTICD")]
    assert "BR2_PACKAGE_WANTASTICD" in ours
    assert set(ours) <= set(kconf.syms)


def test_help_texts_fit_buildroots_rule() -> None:
    """Help is indented by a tab and two spaces and at most 72 columns wide, tab as eight."""
    in_help = False
    for line in (PACKAGE / "Config.in").read_text().splitlines():
        if in_help and line.startswith("\t  "):
            assert len(line.expandtabs(8)) <= 72, line
        in_help = line.strip() == "help" or (in_help and (line.startswith("\t  ") or not line))


def test_licences_can_stand_in_a_shell_word() -> None:
    # `make legal-info` echoes them between single quotes.
    text = (PACKAGE / "wantasticd.mk").read_text().replace("\\\n", " ")
    (licences,) = (line for line in text.splitlines() if line.startswith("WANTASTICD_LICENSE ="))
    assert "'" not in licences


def test_licence_hash_is_that_of_the_file() -> None:
    rows = (PACKAGE / "wantasticd.hash").read_text().splitlines()
    hashes = dict(reversed(row.split()[1:]) for row in rows if not row.startswith("#"))
    digest = hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest()
    assert hashes == {"LICENSE": digest}


# What Buildroot defines for a package, as far as wantasticd.mk uses it.
MAKE = """
qstrip = $(strip $(subst ",,$(1)))
KCONFIG_ENABLE_OPT = echo $(1)=y >>$(KCONFIG_LOG)
INSTALL = install
generic-package =
BR2_mipsel = y
TARGET_CC = mipsel-cc
TARGET_CXX = mipsel-c++
TARGET_AR = mipsel-ar
TARGET_RANLIB = mipsel-ranlib
TARGET_ABI = -mabi=32
HOST_MAKE_ENV = HOST_ENV=1
PARALLEL_JOBS = 2
WANTASTICD_DL_DIR = $(WORK)/dl
include {package}/wantasticd.mk
build install init systemd kernel: @D = $(WORK)/src
build:
	$(WANTASTICD_BUILD_CMDS)
install:
	$(WANTASTICD_INSTALL_TARGET_CMDS)
init:
	$(WANTASTICD_INSTALL_INIT_SYSV)
systemd:
	$(WANTASTICD_INSTALL_INIT_SYSTEMD)
kernel:
	$(WANTASTICD_LINUX_CONFIG_FIXUPS)
show:
	@echo '$(WANTASTICD_PERMISSIONS)'
"""
BUILDER = """#!/bin/sh
echo "$CC|$AR|$WANTASTIC_SOURCES|$*" >>"$LOG"
while [ "$1" != --output ]; do shift; done
mkdir -p "$2"
echo executable >"$2/wantasticd-mipsel-slim"
"""


def make(tmp_path: Path, *words: str) -> str:
    """Run GNU make on the package with stand-ins for Buildroot and for the build program."""
    for folder in ("src", "host/bin", "target", "dl"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    python = tmp_path / "host" / "bin" / "python3"
    python.write_text(BUILDER)
    python.chmod(0o755)
    (tmp_path / "Makefile").write_text(MAKE.replace("{package}", str(PACKAGE)))
    command = [
        *("make", "-s", "-C", str(tmp_path), f"WORK={tmp_path}", f"TARGET_DIR={tmp_path}/target"),
        *(f"HOST_DIR={tmp_path}/host", f"BR2_EXTERNAL_WANTASTIC_PATH={TREE}"),
        f"KCONFIG_LOG={tmp_path}/kconfig",
        *words,
    ]
    environment = {**os.environ, "LOG": str(tmp_path / "log")}
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    ).stdout


def test_package_builds_with_buildroots_compiler_and_installs(tmp_path: Path) -> None:
    (tmp_path / "own.json").write_text("{}")
    chosen = "BR2_PACKAGE_WANTASTICD_BUILDROOT_CC=y"
    features = 'BR2_PACKAGE_WANTASTICD_FEATURES="-proxy,-tools"'
    make(tmp_path, "build", chosen, features)
    cc, ar, sources, arguments = (tmp_path / "log").read_text().strip().split("|")
    assert (cc, ar) == ("mipsel-cc -mabi=32", "mipsel-ar")
    assert sources == f"{tmp_path}/dl"
    assert "--arch mipsel --transport slim --features=-proxy,-tools" in arguments
    make(
        tmp_path, "install", "init", "systemd", f"BR2_PACKAGE_WANTASTICD_CONFIG={tmp_path}/own.json"
    )
    target = tmp_path / "target"
    modes = {
        str(path.relative_to(target)): path.stat().st_mode & 0o777
        for path in target.rglob("*")
        if path.is_file() or path.name == "wantastic"
    }
    assert modes == {
        "usr/sbin/wantasticd": 0o755,
        "etc/wantastic": 0o700,
        "etc/wantastic/config.json": 0o600,
        "etc/init.d/S60wantasticd": 0o755,
        "usr/lib/systemd/system/wantasticd.service": 0o644,
        "var/lib/wantastic": 0o700,
    }


def test_zig_is_used_when_it_is_chosen(tmp_path: Path) -> None:
    make(tmp_path, "build")
    assert (tmp_path / "log").read_text().startswith("|")


@pytest.mark.parametrize(("chosen", "expected"), [("y", "CONFIG_TUN=y\n"), ("", "")])
def test_kernel_gets_tun_only_when_it_is_chosen(chosen: str, expected: str, tmp_path: Path) -> None:
    make(tmp_path, "kernel", f"BR2_PACKAGE_WANTASTICD_TUN={chosen}")
    log = tmp_path / "kconfig"
    assert (log.read_text() if log.exists() else "") == expected


def test_shell_scripts_are_clean() -> None:
    scripts = [PACKAGE / "S60wantasticd", TREE / "openwrt/wantasticd/files/wantastic.init"]
    subprocess.run(["shellcheck", *scripts], check=True)
    for script in scripts:
        subprocess.run(["busybox", "ash", "-n", script], check=True)


def test_unit_file_passes_systemds_own_check(tmp_path: Path) -> None:
    unit = tmp_path / "wantasticd.service"
    text = (PACKAGE / "wantasticd.service").read_text()
    unit.write_text(text.replace("/usr/sbin/wantasticd", str(shutil.which("true"))))
    done = subprocess.run(
        ["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


IMAGE_ROWS = [
    # 1 to 4: board, tree, what the message holds
    ("malta", "", "git clone"),
    ("toaster", "/nowhere", "aarch64_virt, malta, vexpress"),
    ("malta", "/nowhere", "is no Buildroot tree"),
    ("vexpress", "", "BOARD=vexpress BUILDROOT=$PWD/buildroot"),
]


@pytest.mark.parametrize(("board", "tree", "message"), IMAGE_ROWS)
def test_image_says_what_is_missing(board: str, tree: str, message: str) -> None:
    assert message in image.problem(board, tree)


def test_image_accepts_a_buildroot_tree(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "Config.in").touch()
    assert image.problem("malta", str(tmp_path)) == ""
