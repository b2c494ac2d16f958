"""Runs packetdrill scripts (.pkt) against a netstack in virtual time.

A subset of the language: one listening socket, `<` and `>` of TCP, write, shutdown,
close, assertions about tcpi_snd_cwnd. Sequence numbers count from each side's SYN.
Outbound data is compared by the bytes it covers, not by how it is cut: the scripts
show what a host with segmentation offload hands down. PSH and windows are not
compared. A range of times is held to; at a single time it is enough to have sent by
then, because those of the scripts follow the kernel's pacing. Whatever else a
script asks for raises Unsupported with its line.
"""

from __future__ import annotations

import re
from pathlib import Path

from cext.netstack import testing
from tests.support import segments
from tests.support.segments import ACK, FIN, PSH, RST, SYN, Segment

# IP version: our end, theirs, and the MTU that makes an MSS of 1460.
ENDS = {
    4: (("192.168.0.1", 8080), ("192.0.2.1", 40000), 1500),
    6: (("fd3d:a0b:17d6::1", 8080), ("fd3d:fa7b:d17d::1", 40000), 1520),
}
TIME = re.compile(r"(\+?)(\d*\.?\d+)(?:~\+?(\d*\.?\d+))?\s+(.*)")
FLAGS = {"S": SYN, ".": ACK, "F": FIN, "R": RST, "P": PSH}
SEGMENT = re.compile(r"([<>])\s+([SFRP.]+)\s+(\d+):(\d+)\((\d+)\)(.*)")
IGNORED = re.compile(r"(socket|setsockopt|bind|listen|accept|fcntl|getsockopt)\(")


class Unsupported(Exception):
    """The script uses what this runner does not have; the text is the line."""


class Mismatch(AssertionError):
    """The stack did something else than the script says; the text says what."""


class Runner:
    def __init__(self, version: int) -> None:
        self.ours, self.theirs, mtu = ENDS[version]
        self.stack = testing.Stack(addresses=(self.ours[0],), mtu=mtu, ram_bytes=1 << 28)
        self.stack.listen(self.ours[1], space=1 << 20)
        self.now_ns = 10**15
        self.iss = 0
        self.handle = -1
        self.unsent = b""
        self.out: list[Segment] = []

    def advance(self, seconds: float, *, until_sent: bool = False) -> None:
        end = self.now_ns + round(seconds * 1e9)
        while (at := self.stack.poll_at()) is not None and at <= end:
            if at <= self.now_ns and not self.pull():
                break
            self.now_ns = max(at, self.now_ns)
            self.stack.poll(self.now_ns)
            if until_sent and (self.pull() or self.out):
                return
        self.now_ns = end
        self.stack.poll(end)
        self.pull()

    def between(self, first: float, last: float) -> None:
        """The next segment leaves so many seconds from now."""
        start = self.now_ns
        if self.out:
            raise Mismatch(f"sent {self.out[0]} too early")
        self.advance(last, until_sent=True)
        passed = (self.now_ns - start) / 1e9
        if not self.out or passed < first:
            raise Mismatch(f"sent {self.out[:1]} after {passed} s, not {first} to {last}")

    def pull(self) -> bool:
        """Events, what could not be written yet, packets; whether there were any."""
        before = len(self.out)
        for handle, mask, _, _ in self.stack.events():
            if mask & testing.EVENT_CONNECTED:
                self.handle = handle
        while True:
            if self.unsent and self.handle >= 0:
                self.unsent = self.unsent[self.stack.send(self.handle, self.unsent) :]
            got = [segments.parse_tcp(p) for p in self.stack.packets()]
            for s in got:
                if s.flags & SYN:
                    self.iss = s.seq
            self.out += got
            if not got:
                return len(self.out) > before

    def inject(self, flags: int, start: int, length: int, rest: str) -> None:
        ack = re.search(r"ack (\d+)", rest)
        window = re.search(r"win (\d+)", rest)
        opts = self.options(re.search(r"<(.*)>", rest))
        number = (self.iss + int(ack[1])) % 2**32 if ack else 0
        data = segments.tcp(
            self.theirs, self.ours, flags, start, number, bytes(length),
            window=int(window[1]) if window else 65535, opts=opts,
        )  # fmt: skip
        self.stack.input(data, now_ns=self.now_ns)
        self.pull()

    def options(self, found: re.Match[str] | None) -> bytes:
        known: dict[str, object] = {}
        for item in found[1].split(",") if found else []:
            name, _, value = item.strip().partition(" ")
            if name == "mss":
                known["mss"] = int(value)
            elif name == "wscale":
                known["wscale"] = int(value)
            elif name == "sackOK":
                known["sack_ok"] = True
            elif name == "sack":
                ranges = [r.split(":") for r in value.split()]
                known["sacks"] = tuple((self.iss + int(a), self.iss + int(b)) for a, b in ranges)
            elif name != "nop":
                raise Unsupported(item)
        return segments.options(**known)  # type: ignore[arg-type]

    def expect(self, flags: int, start: int, end: int, rest: str) -> None:
        ack = re.search(r"ack (\d+)", rest)
        at = start
        while True:
            if not self.out:
                raise Mismatch(f"nothing sent at {at}, expected {start}:{end}")
            s = self.out.pop(0)
            seq = (s.seq - self.iss) % 2**32
            if seq != at or (ack and s.flags & ACK and s.ack != int(ack[1])):
                raise Mismatch(f"sent {s}, expected {at} ack {ack and ack[1]}")
            at += len(s.payload)
            if at >= end:
                break
        if at != end or (s.flags & ~PSH) != (flags & ~PSH):
            raise Mismatch(f"sent {s}, expected {start}:{end} flags {flags}")

    def line(self, text: str) -> None:
        found = SEGMENT.match(text)
        if found:
            flags = 0
            for letter in found[2]:
                flags |= FLAGS[letter]
            start, end, length = int(found[3]), int(found[4]), int(found[5])
            if found[1] == "<":
                self.inject(flags, start, length, found[6])
            else:
                self.pull()
                self.expect(flags, start, end, found[6])
        elif match := re.match(r"write\(4, \.\.\., (\d+)\)", text):
            self.unsent += bytes(int(match[1]))
            self.pull()
        elif re.match(r"shutdown\(4, SHUT_WR\)", text):
            self.stack.shutdown(self.handle)
            self.pull()
        elif re.match(r"close\(4\)", text):
            self.stack.close(self.handle)
            self.pull()
        elif match := re.match(r"%\{ assert tcpi_snd_cwnd == (\d+)", text):
            info = self.stack.info(self.handle)
            if info["cwnd"] // info["mss"] != int(match[1]):
                raise Mismatch(f"cwnd {info['cwnd'] / info['mss']} segments, not {match[1]}")
        elif not IGNORED.match(text):
            raise Unsupported(text)


def run(path: Path, version: int = 4) -> None:
    """Run one script over IPv4 or IPv6; Unsupported or Mismatch name the line."""
    runner = Runner(version)
    text = re.sub(r"`[^`]*`", "", path.read_text())
    for number, line in enumerate(text.splitlines(), 1):
        line = re.sub(r"//.*", "", line).strip()
        timed = TIME.match(line)
        if not line or line.startswith(("#", "*")):
            continue
        if not timed:
            raise Unsupported(f"{path.name}: {line}")
        try:
            if timed[3]:
                runner.between(float(timed[2]), float(timed[3]))
            elif timed[1]:
                runner.advance(float(timed[2]))
            runner.line(timed[4])
        except (Unsupported, Mismatch) as error:
            raise type(error)(f"{path.name}:{number}: {line}: {error}") from None
