"""Packetdrill scripts: ours, and the kernel's out of Debian's linux-source package."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import kernel_scripts, packetdrill

OURS = sorted(Path(__file__).with_name("packetdrill").glob("*.pkt"))
RUN = [
    f"tcp_slow_start_slow-start-{name}"
    for name in (
        "ack-per-1pkt", "ack-per-2pkt", "ack-per-2pkt-send-5pkt", "ack-per-2pkt-send-6pkt",
        "ack-per-4pkt", "after-idle", "after-win-update", "app-limited",
        "app-limited-9-packets-out", "fq-ack-per-2pkt",
    )
]  # fmt: skip

# Script of the kernel -> why it is not for this stack.
SKIPPED = {
    "tcp_inq_client": "SIOCINQ and TCP_INQ are the consumer's",
    "tcp_inq_server": "SIOCINQ and TCP_INQ are the consumer's",
    "tcp_md5_md5-only-on-client-ack": "TCP-MD5 is not implemented",
    **{
        f"tcp_zerocopy_{name}": "MSG_ZEROCOPY is an interface of the kernel's sockets"
        for name in (
            "basic", "batch", "client", "closed", "epoll_edge", "epoll_exclusive",
            "epoll_oneshot", "fastopen-client", "fastopen-server", "maxfrags", "small",
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("path", OURS, ids=lambda p: p.stem)
def test_our_scripts(path: Path, version: int) -> None:
    packetdrill.run(path, version)


def test_a_wrong_script_fails(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.pkt"
    wrong.write_text(OURS[0].read_text().replace("ack 1 <", "ack 1 <").replace("10001", "9001"))
    with pytest.raises(packetdrill.Mismatch):
        packetdrill.run(wrong)


@pytest.fixture(scope="module")
def scripts() -> dict[str, Path]:
    if not kernel_scripts.ARCHIVE.exists():
        pytest.skip(f"Debian's {kernel_scripts.PACKAGE} is not installed")
    folder = kernel_scripts.unpack(kernel_scripts.ARCHIVE)
    return {path.stem: path for path in folder.glob("*.pkt")}


def test_kernel_scripts_are_run_or_named(scripts: dict[str, Path]) -> None:
    assert scripts.keys() == {*RUN, *SKIPPED}


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("name", RUN)
def test_kernel_scripts(scripts: dict[str, Path], name: str, version: int) -> None:
    packetdrill.run(scripts[name], version)
