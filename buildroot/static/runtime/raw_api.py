"""Crypto.Util._raw_api for a program that holds pycryptodome's C itself: no cffi, no ctypes.

The same names with the same meaning as pycryptodome's own module. Memory that C code writes is a
bytearray; a pointer that C code returns is kept in a bytearray of its size and read as an int.
`Crypto.Util._static` holds the functions, see buildroot/static/pycryptodome.py.
"""

import sys
from typing import Any

from Crypto.Util import _static  # type: ignore[attr-defined]

backend = "static"
null_pointer = None
POINTER_BYTES = (sys.maxsize.bit_length() + 1) // 8


def _identity(value: int) -> int:
    return value


c_size_t = c_ulong = c_ulonglong = c_uint = c_ubyte = _identity


def create_string_buffer(init_or_size: bytes | int, size: int | None = None) -> bytearray:
    """Return zeroed memory, or a copy of bytes with a zero behind it."""
    if isinstance(init_or_size, int):
        return bytearray(init_or_size)
    return bytearray(init_or_size).ljust(max(len(init_or_size) + 1, size or 0), b"\0")


create_output_buffer = create_string_buffer


def get_c_string(c_string: bytearray) -> bytes:
    """Return what stands before the first zero."""
    return bytes(c_string).partition(b"\0")[0]


def get_raw_buffer(buf: bytearray) -> bytes:
    return bytes(buf)


def c_uint8_ptr(data: Any) -> Any:
    """Return what stands for a pointer to the data."""
    if isinstance(data, (bytes, bytearray, memoryview)):
        return data
    raise TypeError(f"Object type {type(data)} cannot be passed to C code")


def c_uint8_ptr_len(data: Any) -> tuple[Any, int]:
    """Return a pointer to the data and its length in bytes.

    The memoryview keeps a bytearray from being resized while it is in use.
    """
    view = memoryview(c_uint8_ptr(data)).cast("B")
    return view, len(view)


class c_uint8_ptr_out:
    """A context in which C code may write into a buffer."""

    def __init__(self, data: Any) -> None:
        self._data = data

    def __enter__(self) -> Any:
        return c_uint8_ptr(self._data)

    def __exit__(self, *exception: object) -> None:
        return None


class VoidPointer:
    """Room for one pointer that C code fills in."""

    def __init__(self) -> None:
        self._room = bytearray(POINTER_BYTES)

    def get(self) -> int:
        """Return the address."""
        return int.from_bytes(self._room, sys.byteorder)

    def address_of(self) -> bytearray:
        """Return the room itself, whose buffer is a `void **`."""
        return self._room


class SmartPointer:
    """Owns memory of C code; hands it to `destructor` in the end."""

    def __init__(self, raw_pointer: int, destructor: Any) -> None:
        self._raw_pointer: int | None = raw_pointer
        self._destructor = destructor

    def get(self) -> int | None:
        return self._raw_pointer

    def release(self) -> int | None:
        """Give the memory up; return its address."""
        pointer, self._raw_pointer = self._raw_pointer, None
        return pointer

    def __del__(self) -> None:
        pointer = self.release()
        if pointer is not None:
            self._destructor(pointer)


def load_pycryptodome_raw_lib(name: str, cdecl: str) -> Any:
    """Return the functions; OSError for a variant that is not compiled in."""
    if name not in _static.LIBRARIES:
        raise OSError(f"{name} is not in this program")
    return _static


def is_buffer(x: object) -> bool:
    return isinstance(x, (bytes, bytearray, memoryview))


def is_writeable_buffer(x: object) -> bool:
    return isinstance(x, bytearray) or (isinstance(x, memoryview) and not x.readonly)
