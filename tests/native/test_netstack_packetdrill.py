"""Packetdrill scripts: ours, and the kernel's where Debian's linux-source is unpacked.

NETSTACK_KERNEL_SCRIPTS names tools/testing/selftests/net/packetdrill of a kernel tree.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support import packetdrill

OURS = sorted(Path(__file__).with_name("packetdrill").glob("*.pkt"))
KERNEL = Path(os.environ.get("NETSTACK_KERNEL_SCRIPTS", "/nonexistent"))

LESS_GREEDY = "an application-limited sender's cwnd grows by a segment or two less than Linux's"

# Script of the kernel -> why it is not for this stack.
SKIPPED = {
    "tcp_inq_client": "SIOCINQ and TCP_INQ are the consumer's",
    "tcp_inq_server": "SIOCINQ and TCP_INQ are the consumer's",
    "tcp_slow_start_slow-start-ack-per-2pkt-send-5pkt": "cwnd grows while 5 of 10 are in flight",
    "tcp_slow_start_slow-start-app-limited": LESS_GREEDY,
    "tcp_slow_start_slow-start-app-limited-9-packets-out": LESS_GREEDY,
    "tcp_slow_start_slow-start-after-win-update": "the runner has no time ranges",
    "tcp_md5_md5-only-on-client-ack": "TCP-MD5 is not implemented",
    **{
        f"tcp_zerocopy_{name}": "MSG_ZEROCOPY is an interface of the kernel's sockets"
        for name in (
            "basic", "batch", "client", "closed", "epoll_edge", "epoll_exclusive",
            "epoll_oneshot", "fastopen-client", "fastopen-server", "maxfrags", "small",
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("path", OURS, ids=lambda p: p.stem)
def test_our_scripts(path: Path) -> None:
    packetdrill.run(path)


def test_a_wrong_script_fails(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.pkt"
    wrong.write_text(OURS[0].read_text().replace("ack 1 <", "ack 1 <").replace("10001", "9001"))
    with pytest.raises(packetdrill.Mismatch):
        packetdrill.run(wrong)


def kernel_scripts() -> list[Path]:
    return [path for path in sorted(KERNEL.glob("*.pkt")) if path.stem not in SKIPPED]


if KERNEL.is_dir():

    @pytest.mark.parametrize("path", kernel_scripts(), ids=lambda p: p.stem)
    def test_kernel_scripts(path: Path) -> None:
        packetdrill.run(path)
