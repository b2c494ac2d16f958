"""The table of native modules inside a static program, as C, and how dotted names are found in it."""

from __future__ import annotations

from collections.abc import Iterable

from buildroot.static.rooms import NativeModule

HEAD = """// SPDX-License-Identifier: Apache-2.0
/* Registers the statically linked extension modules before the interpreter starts. */
#include "Python.h"
"""


def source(modules: Iterable[NativeModule]) -> str:
    """Return C that appends `modules` to CPython's table of built-in modules.

    A constructor, since Nuitka's main() and CPython's own leave no other place before
    Py_Initialize.
    """
    modules = list(modules)
    declarations = "".join(f"extern PyObject *{m.init}(void);\n" for m in modules)
    rows = "".join(f'\tPyImport_AppendInittab("{m.name}", {m.init});\n' for m in modules)
    return (
        f"{HEAD}\n{declarations}\n"
        f"__attribute__((constructor)) static void register_modules(void)\n{{\n{rows}}}\n"
    )
