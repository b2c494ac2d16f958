"""Changes names in compiled ELF objects, of any word size and byte order.

The symbols' names lie in a string table whose entries may share their ends, so nothing in it is
overwritten: a longer copy goes to the end of the file, and the changed symbols point into it.
"""

from __future__ import annotations

import struct
from collections.abc import Collection

SYMBOL_TABLE = 2
GLOBAL, WEAK = 1, 2


def rename(data: bytes, names: Collection[str], prefix: str) -> bytes:
    """Return the object with `prefix` before each name that is in `names`, defined here or used."""
    out = bytearray(data)
    order = "<" if data[5] == 1 else ">"
    wide = data[4] == 2
    # Of a section: type, offset, size and linked section; of a symbol: name and info.
    if wide:
        (table,) = struct.unpack_from(order + "Q", data, 40)
        row, count = struct.unpack_from(order + "HH", data, 58)
        section, offset_at, symbol = order + "4xI16xQQI", 24, struct.Struct(order + "IB19x")
    else:
        (table,) = struct.unpack_from(order + "I", data, 32)
        row, count = struct.unpack_from(order + "HH", data, 46)
        section, offset_at, symbol = order + "4xI8xIII", 16, struct.Struct(order + "I8xB3x")
    if count == 0:
        # More than 65,279 sections: the first one's size says how many.
        count = struct.unpack_from(section, data, table)[2]
    wanted = {name.encode() for name in names}
    for number in range(count):
        kind, offset, size, linked = struct.unpack_from(section, data, table + number * row)
        if kind != SYMBOL_TABLE:
            continue
        header = table + linked * row
        _, strings_at, strings_size, _ = struct.unpack_from(section, data, header)
        strings = bytearray(data[strings_at : strings_at + strings_size])
        places: dict[bytes, int] = {}
        for at, (name_at, info) in enumerate(symbol.iter_unpack(data[offset : offset + size])):
            if info >> 4 not in (GLOBAL, WEAK) or not name_at:
                continue
            end = data.index(0, strings_at + name_at)
            name = data[strings_at + name_at : end]
            if name not in wanted:
                continue
            if name not in places:
                places[name] = len(strings)
                strings += prefix.encode() + name + b"\0"
            struct.pack_into(order + "I", out, offset + at * symbol.size, places[name])
        if places:
            word = "Q" if wide else "I"
            struct.pack_into(
                f"{order}{word}{word}", out, header + offset_at, len(out), len(strings)
            )
            out += strings
    return bytes(out)
