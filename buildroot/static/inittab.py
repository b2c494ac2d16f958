"""The table of modules inside a static program, as C.

libpython3.11.a has a table of its own that names every module it was compiled with. An object that
defines the same symbol comes first in the link, so that the archive's is never taken: what is not
named here (unicodedata's tables alone are a megabyte) stays out of the program.
"""

from __future__ import annotations

from collections.abc import Iterable

from buildroot.static.rooms import NativeModule

# What no interpreter starts without, with the functions that do not follow the naming rule.
CORE = (
    *("_abc", "_codecs", "_collections", "_functools", "_io", "_locale", "_operator", "_signal"),
    *("_sre", "_stat", "_string", "_symtable", "_thread", "_tokenize", "_tracemalloc"),
    *("_weakref", "_ast", "_imp", "atexit", "errno", "faulthandler", "gc", "itertools", "posix"),
    *("pwd", "time"),
)
IRREGULAR = {
    "builtins": "NULL",
    "sys": "NULL",
    "marshal": "PyMarshal_Init",
    "_warnings": "_PyWarnings_Init",
}

HEAD = """// SPDX-License-Identifier: Apache-2.0
/* Every module that is inside this program; taken instead of libpython's own table. */
#include "Python.h"

"""


def source(standard: Iterable[str], modules: Iterable[NativeModule]) -> str:
    """Return C for the core, the named modules of the standard library, and ours."""
    rows = {name: f"PyInit_{name}" for name in (*CORE, *standard)} | IRREGULAR
    rows |= {module.name: module.init for module in modules}
    functions = sorted(set(rows.values()) - {"NULL"})
    return (
        HEAD
        + "".join(f"extern PyObject *{function}(void);\n" for function in functions)
        + "\nstruct _inittab _PyImport_Inittab[] = {\n"
        + "".join(f'\t{{"{name}", {function}}},\n' for name, function in sorted(rows.items()))
        + "\t{0, 0},\n};\n"
    )
