"""Checks a finished executable against what is promised of it, and prints its figures.

Static (no interpreter, no dynamic section), no path of the build machine inside, runs in a folder
with nothing but /proc as its root, size below the budget; two devices in one process fetch pages
from each other through a tunnel; it enrols with the reference server and fetches a page from behind
its gateway (enrolment.py); start-up and memory.
Times and memory of an emulated CPU are mostly the emulator's: printed, and held to no budget.
"""

from __future__ import annotations

import json
import lzma
import os
import platform
import resource
import shutil
import statistics
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from buildroot.static import enrolment
from buildroot.static.arches import Arch
from buildroot.static.cache import BuildError

PT_DYNAMIC, PT_INTERP = 2, 3
STARTS = 15
SETTLE_S, EMULATED_SETTLE_S = 6.0, 20.0
# An emulator is some thirty times slower, above all at starting.
TUNNEL_S, EMULATED_TUNNEL_S = 5, 40
ENROL_S, EMULATED_ENROL_S = 60.0, 300.0
# Behind the agent's last look for pages that it no longer needs (device/service.py).
ENROLLED_SETTLE_S = 62.0
CAN_ENROL = "enrolment can work"
NOT_BUILT_IN = 7
# By CPU, why no packet can leave an emulated agent: printed in place of the tunnel's figures. Link
# attributes of netlink are not turned round either, so it gets no TUN device.
EMULATOR_CANNOT = {
    "mips": "qemu-user does not turn round the numbers in control messages of sendmsg(), so the "
    "kernel answers each handshake, which carries IP_TOS, with EINVAL"
}
MB = 1_000_000
# Most bytes of `xz -9e`. 64-bit code is larger, and the flash beside it too.
WIDE_EXTRA = MB // 2
XZ_BUDGET = {"grpcio": 7 * MB, "slim": 4 * MB}
RSS_BUDGET_KB = {"grpcio": 34_000, "slim": 24_000}
# With the control plane imported and connected: what it may not grow beyond, not yet what it should
# be (docs/sizes.md).
ENROLLED_RSS_KB = {"grpcio": 34_000, "slim": 34_000}
VERSION_BUDGET_MS = 60.0


@dataclass(frozen=True)
class Figure:
    """One measured value; over its budget it is a failure."""

    name: str
    value: float
    unit: str
    budget: float | None = None

    @property
    def ok(self) -> bool:
        return self.budget is None or self.value <= self.budget

    def __str__(self) -> str:
        limit = "" if self.budget is None else f" (at most {self.budget:,.0f})"
        verdict = "" if self.ok else "  TOO MUCH"
        return f"{self.name:28} {self.value:14,.1f} {self.unit}{limit}{verdict}"


def program_headers(data: bytes) -> Iterator[int]:
    """Yield the types of an ELF file's program headers."""
    if data[:4] != b"\x7fELF":
        raise ValueError("not an ELF file")
    order = "<" if data[5] == 1 else ">"
    if data[4] == 2:
        offset, size, count = (
            *struct.unpack_from(order + "Q", data, 32),
            *struct.unpack_from(order + "HH", data, 54),
        )
    else:
        offset, size, count = (
            *struct.unpack_from(order + "I", data, 28),
            *struct.unpack_from(order + "HH", data, 42),
        )
    for i in range(count):
        yield struct.unpack_from(order + "I", data, offset + i * size)[0]


def emulator(arch: Arch) -> list[str]:
    """Return what runs the executable here: nothing, or qemu-user."""
    if arch.name == platform.machine():
        return []
    found = shutil.which(f"{arch.qemu}-static") or shutil.which(arch.qemu)
    if not found:
        raise FileNotFoundError(f"{arch.qemu} is missing: install Debian's qemu-user-static")
    return [found, "-cpu", arch.qemu_cpu]


def faults(path: Path, private: str) -> Iterator[str]:
    """Yield what is wrong with the file; `private` is a folder of the build machine."""
    data = path.read_bytes()
    if {PT_DYNAMIC, PT_INTERP} & set(program_headers(data)):
        yield "it is not fully static"
    if private.encode() in data:
        yield f"it names {private}, a folder of the build machine"


def run_alone(path: Path, arch: Arch) -> str:
    """Run `-version` with a folder as the root that has only /proc; return what it prints.

    /proc is needed: the program asks it where it is itself.
    """
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy2(path, Path(folder) / "wantasticd")
        (Path(folder) / "proc").mkdir()
        command = ["/wantasticd", "-version"]
        if emulated := emulator(arch):
            shutil.copy2(emulated[0], Path(folder) / "qemu")
            command[:0] = ["/qemu", *emulated[1:]]
        script = 'mount --bind /proc "$0/proc" && exec chroot "$0" "$@"'
        alone = ["unshare", "--mount", "sh", "-c", script, folder, *command]
        done = subprocess.run(alone, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"alone in a folder it ends with {done.returncode}: {done.stderr}")
    return done.stdout.strip()


def selftest(path: Path, arch: Arch) -> str:
    """Have the executable compute known answers of its cryptography; return what it says.

    Assembly that was put together wrongly links and starts all the same.
    """
    command = [*emulator(arch), str(path), "selftest"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"selftest ends with {done.returncode}: {done.stderr}")
    for name in () if emulator(arch) else vectors():
        if name not in done.stdout:
            raise RuntimeError(f"this CPU has {name}, and the executable does not use it")
    return done.stdout.strip()


def vectors() -> list[str]:
    """Return which of our AEAD variants this CPU can run; Linux lists its flags."""
    flags = {*Path("/proc/cpuinfo").read_text().split()}
    variants = {"avx2": {"avx2", "bmi2"}, "avx512ifma": {"avx512ifma", "avx512_vbmi2", "bmi2"}}
    return [name for name, needed in variants.items() if needed <= flags]


def start_ms(command: Sequence[str]) -> float:
    """Return the median processor time of `-version`, which a busy machine hardly changes."""
    times = []
    for _ in range(STARTS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*command, "-version"], stdout=subprocess.DEVNULL, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used_s = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
        times.append(used_s * 1000)
    return statistics.median(times)


def idle_rss_kb(command: Sequence[str], mode: str, settle_s: float) -> dict[str, int]:
    """Return the memory of an agent with a tunnel up and nothing to do, in KB."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.json"
        text = {
            "private_key": "",
            "state_dir": f"{folder}/state",
            "interface": {"mode": mode, "addresses": ["10.98.0.2/32"], "listen_port": 0},
            "server": {"endpoint": "127.0.0.1:9", "public_key": f"{'A' * 42}E="},
        }
        config.write_text(json.dumps(text))
        config.chmod(0o600)
        # Its own network, so that nothing on this machine can be in the way.
        alone = ["unshare", "--net", *command, "-config", str(config)]
        process = subprocess.Popen(alone, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            time.sleep(settle_s)
            if process.poll() is not None:
                said = process.stdout.read().decode() if process.stdout else ""
                raise RuntimeError(f"the agent ended with {process.returncode}: {said}")
            return memory_kb(process.pid)
        finally:
            process.terminate()
            process.wait(timeout=20)


def memory_kb(pid: int) -> dict[str, int]:
    """Return a process's VmRSS and VmHWM (the most it had), in KB; nothing once it has ended."""
    status = Path(f"/proc/{pid}/status").read_text()
    rows = (line.split() for line in status.splitlines() if line.startswith(("VmRSS", "VmHWM")))
    return {row[0].rstrip(":"): int(row[1]) for row in rows}


def tunnel(path: Path, arch: Arch) -> dict[str, int]:
    """Run the demonstration (two devices, ping, UDP, pages by SOCKS5); return what came through.

    Nothing when the executable was built without it.
    """
    seconds = EMULATED_TUNNEL_S if emulator(arch) else TUNNEL_S
    command = [*emulator(arch), str(path), "demo", "--json", f"--seconds={seconds}"]
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        # Not rusage: its maximum counts what this process was before it became the other.
        peak_kb = 0
        while process.poll() is None:
            peak_kb = memory_kb(process.pid).get("VmHWM", peak_kb)
            time.sleep(0.1)
        output.seek(0)
        said = output.read().splitlines()
    if process.returncode == NOT_BUILT_IN:
        return {}
    if process.returncode:
        raise RuntimeError(f"no tunnel, status {process.returncode}: {said[-3:]}")
    state = json.loads(said[-1])
    return {"pages": state["pages"], "pongs": state["pongs"], "peak_kb": peak_kb}


def xz_budget(arch: Arch, transport: str) -> int:
    """Return how many bytes the packed executable may have."""
    return XZ_BUDGET[transport] + (WIDE_EXTRA if transport == "slim" and arch.bits == 64 else 0)


def enrolled(path: Path, arch: Arch, transport: str) -> list[Figure]:
    """Return how enrolling went: the seconds until a page came, at first and out of the cache.

    Where no tunnel can be: until the server had registered the device.
    """
    native = not emulator(arch)
    command = [*emulator(arch), str(path)]
    timeout_s, settle_s = (ENROL_S, ENROLLED_SETTLE_S) if native else (EMULATED_ENROL_S, 0.0)
    if not has_tunnel(arch):
        return [Figure("registered after", enrolment.register(command, timeout_s), "s")]
    first_s, again_s, resident_kb = enrolment.enrol(command, timeout_s, settle_s)
    found = [
        Figure("enrolled: page after", first_s, "s"),
        Figure("out of the cache: page after", again_s, "s"),
    ]
    if native:
        limit_kb = ENROLLED_RSS_KB[transport]
        found.append(Figure("idle RSS, enrolled", resident_kb, "KB", limit_kb))
    return found


def has_tunnel(arch: Arch) -> bool:
    """Return whether packets can leave an agent that is run here as that CPU's."""
    return not emulator(arch) or arch.name not in EMULATOR_CANNOT


def figures(path: Path, arch: Arch, transport: str, *, can_enrol: bool) -> list[Figure]:
    """Return everything that is measured."""
    data = path.read_bytes()
    packed = len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))
    found = [
        Figure("size", len(data), "bytes"),
        Figure("size xz -9e", packed, "bytes", xz_budget(arch, transport)),
    ]
    native = not emulator(arch)
    if has_tunnel(arch) and (through := tunnel(path, arch)):
        found.append(Figure("tunnel: pages of 256 KiB", through["pages"], ""))
        if native:
            found.append(Figure("peak RSS, two devices", through["peak_kb"], "KB"))
    if can_enrol:
        found += enrolled(path, arch, transport)
    command = [*emulator(arch), str(path)]
    times = start_ms(command)
    mode = "tun" if has_tunnel(arch) else "userspace"
    memory = idle_rss_kb(command, mode, SETTLE_S if native else EMULATED_SETTLE_S)
    if native:
        found.append(Figure("-version, CPU", times, "ms", VERSION_BUDGET_MS))
        found.append(Figure("idle RSS", memory["VmRSS"], "KB", RSS_BUDGET_KB[transport]))
        found.append(Figure("peak RSS", memory["VmHWM"], "KB"))
    else:
        found.append(Figure("-version, CPU of emulator", times, "ms"))
        found.append(Figure("idle RSS with emulator", memory["VmRSS"], "KB"))
    return found


def check(path: Path, arch: Arch, transport: str, private: str) -> bool:
    """Print every figure and fault; return whether all is well."""
    if os.geteuid():
        raise BuildError("the check makes network namespaces: run it as root")
    print(f"{path.name}: {run_alone(path, arch)}")
    known = selftest(path, arch)
    print(f"  {known}")
    wrong = list(faults(path, private))
    rows = figures(path, arch, transport, can_enrol=CAN_ENROL in known)
    left_out = [] if has_tunnel(arch) else [f"no tunnel tried: {EMULATOR_CANNOT[arch.name]}"]
    for line in (*map(str, rows), *left_out, *wrong):
        print(f"  {line}")
    return not wrong and all(row.ok for row in rows)
