"""Stands in for ctypes while Nuitka runs, and tells it the target's sizes.

Nuitka uses ctypes on Windows only, except for two things. The size of a C long decides which Python
integers become C longs in its code: this machine's 8 bytes would silently cut numbers above 2**28
on a 32-bit CPU. 4 is right there and safe everywhere, so that one run serves every target. And it
asks the kernel for performance counters, to which the answer here is -1.
"""


class Structure:
    """The base of declarations, and of the values that are never looked at."""

    def __init__(self, *values: object, **fields: object) -> None: ...


Union = Structure


class c_long(Structure):
    """See sizeof."""


class c_longlong(Structure):
    """See sizeof."""


def sizeof(kind: type) -> int:
    """Return the size of a C long or long long on the smallest target."""
    return {c_long: 4, c_longlong: 8}.get(kind, 0)


def byref(value: object) -> object:
    return value


class CDLL:
    """The C library, with the one function that is asked for."""

    def __init__(self, name: object, use_errno: bool = False) -> None:
        def syscall(*arguments: object) -> int:
            return -1

        self.syscall = syscall


def __getattr__(name: str) -> type:
    if name.startswith("c_"):
        return Structure
    raise AttributeError(name)
