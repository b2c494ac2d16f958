"""Makes this process see a kernel of the 3.10 era: a seccomp filter answers for it.

recvmmsg, sendmmsg and getrandom do not exist (ENOSYS), nor do the socket options
UDP_SEGMENT and UDP_GRO (ENOPROTOOPT). It cannot be undone.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct

SYSCALLS = {
    "x86_64": {"recvmmsg": 299, "sendmmsg": 307, "getrandom": 318, "setsockopt": 54},
    "aarch64": {"recvmmsg": 243, "sendmmsg": 269, "getrandom": 278, "setsockopt": 208},
}
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 22, 38, 2
RET_ALLOW, RET_ERRNO = 0x7FFF0000, 0x00050000
LOAD, JUMP_IF_EQUAL, JUMP_IF_GREATER_EQUAL, RETURN = 0x20, 0x15, 0x35, 0x06
IPPROTO_UDP, UDP_SEGMENT = 17, 103
NUMBER, LEVEL, OPTION = 0, 16 + 8, 16 + 16  # offsets into struct seccomp_data, low words


def instruction(code: int, k: int, when_true: int = 0, when_false: int = 0) -> bytes:
    return struct.pack("HBBI", code, when_true, when_false, k)


def program() -> bytes:
    """Return the filter; its jumps count instructions to skip."""
    numbers = SYSCALLS[platform.machine()]
    missing = [numbers[name] for name in ("recvmmsg", "sendmmsg", "getrandom")]
    out = [instruction(LOAD, NUMBER)]
    for i, number in enumerate(missing):
        out.append(instruction(JUMP_IF_EQUAL, number, len(missing) - i + 6))
    out += [
        instruction(JUMP_IF_EQUAL, numbers["setsockopt"], 0, 4),
        instruction(LOAD, LEVEL),
        instruction(JUMP_IF_EQUAL, IPPROTO_UDP, 0, 2),
        instruction(LOAD, OPTION),
        instruction(JUMP_IF_GREATER_EQUAL, UDP_SEGMENT, 1, 0),
        instruction(RETURN, RET_ALLOW),
        instruction(RETURN, RET_ERRNO | errno.ENOPROTOOPT),
        instruction(RETURN, RET_ERRNO | errno.ENOSYS),
    ]
    return b"".join(out)


def available() -> bool:
    """Return whether the numbers of this machine's system calls are known."""
    return platform.machine() in SYSCALLS


def pretend() -> None:
    """Install the filter for all threads that start from now on."""
    code = program()
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in ((PR_SET_NO_NEW_PRIVS, 1, 0), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, header)):
        if libc.prctl(*arguments, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl")
