"""pycryptodome's C inside the executable, and wrappers in place of its loader.

pycryptodome opens each of its C libraries by cffi or ctypes and dlopen, none of which a static
program has. Its Python files carry the C prototypes that cffi would parse; this stage reads them
there and writes one extension module, Crypto.Util._static, with one function per prototype. The
replacement for Crypto.Util._raw_api (runtime/raw_api.py) hands that module out as every library.

Only portable libraries are compiled; for the others pycryptodome falls back when the loader raises
OSError. Which functions are linked follows from the modules that Nuitka has taken in.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from buildroot.static import cpython, symbols
from buildroot.static.cache import BuildError, Cache, Unit, recipe_of
from buildroot.static.rooms import NativeModule
from buildroot.static.sources import Sources
from buildroot.static.toolchain import Toolchain

MODULE = NativeModule("Crypto.Util._static", "PyInit_Crypto__Util___static")
PREFIX = "wt_pcd_"
# Variants for instructions that a router may lack; packets never come here, so plain C will do.
VARIANT = re.compile(r"(avx2|aesni|shani|bmi2|armv8|clmul|pmull)")
PROTOTYPE = re.compile(r"([\w *]+?)\b(\w+)\s*\(([^()]*)\)\s*;")
NOT_PROTOTYPES = re.compile(r"/\*.*?\*/|//[^\n]*|#define[^\n]*|typedef[^;]*;", re.S)
# C type -> (its C spelling here, the function that converts a Python int to it).
SCALARS = {
    "int": ("int", "as_int"),
    "unsigned": ("unsigned", "as_unsigned"),
    "unsigned int": ("unsigned", "as_unsigned"),
    "unsigned long": ("unsigned long", "as_ulong"),
    "size_t": ("size_t", "as_size"),
    "uint8_t": ("uint8_t", "as_uint8"),
    "uint64_t": ("uint64_t", "as_uint64"),
}
RESULTS = {
    "int": "PyLong_FromLong",
    "uint64_t": "PyLong_FromUnsignedLongLong",
    "size_t": "PyLong_FromSize_t",
    "void": "",
}


@dataclass(frozen=True)
class Function:
    """One C function that a Python file declares."""

    module: str
    name: str
    result: str
    parameters: tuple[str, ...]
    """"*" for a pointer, else a key of SCALARS."""


def functions(source: Path) -> list[Function]:
    """Return what pycryptodome's Python files declare."""
    found = []
    for path in sorted((source / "lib" / "Crypto").rglob("*.py")):
        module = ".".join(path.relative_to(source / "lib").with_suffix("").parts)
        if "SelfTest" in module:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                text = NOT_PROTOTYPES.sub("", node.value.replace("%imp%", "portable"))
                found += [
                    Function(module, match[2], match[1].strip(), tuple(_parameters(match[3])))
                    for match in PROTOTYPE.finditer(text)
                    if match[1].strip() in RESULTS
                ]
    if not found:
        raise BuildError("no prototype found in pycryptodome")
    return found


def _parameters(text: str) -> Iterator[str]:
    for part in text.split(","):
        words = " ".join(part.replace("const", " ").split())
        if words in {"", "void"}:
            continue
        if "*" in words or "[" in words:
            yield "*"
        else:
            kind = words.rpartition(" ")[0]
            if kind not in SCALARS:
                raise BuildError(f"pycryptodome has a parameter of unknown type: {part}")
            yield kind


def wrappers(chosen: Collection[Function], libraries: Collection[str]) -> str:
    """Return the C of the extension module."""
    parts = [WRAPPER_HEAD]
    rows = []
    for function in sorted(chosen, key=lambda f: f.name):
        parts.append(_wrapper(function))
        rows.append(
            f'\t{{"{function.name}", (PyCFunction)(void (*)(void))call_{function.name}, '
            "METH_FASTCALL, NULL},\n"
        )
    names = "".join(f'"{name}\\0"\n\t' for name in sorted(libraries))
    parts.append(WRAPPER_TAIL.format(rows="".join(rows), names=names, init=MODULE.init))
    return "\n".join(parts)


def _wrapper(function: Function) -> str:
    """Return one function: convert, release the GIL, call, convert back."""
    name, kinds = function.name, function.parameters
    types = [SCALARS[k][0] if k in SCALARS else "void *" for k in kinds]
    lines = [
        f"extern {function.result} {name}({', '.join(types) or 'void'});",
        f"static PyObject *call_{name}(PyObject *self, PyObject *const *args, Py_ssize_t n)",
        "{",
        f"\tstruct pointer p[{max(1, len(kinds))}] = {{0}};",
        "\tPyObject *done = NULL;",
    ]
    lines += [
        f"\t{kind} a{i} = 0;"
        for i, kind in ((i, SCALARS[k][0]) for i, k in enumerate(kinds) if k in SCALARS)
    ]
    if function.result != "void":
        lines.append(f"\t{function.result} result;")
    lines.append(f'\tif (!right_count("{name}", n, {len(kinds)}))\n\t\treturn NULL;')
    for i, kind in enumerate(kinds):
        call = (
            f"{SCALARS[kind][1]}(args[{i}], &a{i})"
            if kind in SCALARS
            else f"as_pointer(args[{i}], &p[{i}])"
        )
        lines.append(f"\tif ({call} < 0)\n\t\tgoto out;")
    values = ", ".join(f"a{i}" if k in SCALARS else f"p[{i}].at" for i, k in enumerate(kinds))
    assign = "" if function.result == "void" else "result = "
    lines.append(f"\tPy_BEGIN_ALLOW_THREADS\n\t{assign}{name}({values});\n\tPy_END_ALLOW_THREADS")
    convert = RESULTS[function.result]
    lines.append(f"\tdone = {convert}(result);" if convert else "\tdone = Py_NewRef(Py_None);")
    lines.append(f"out:\n\trelease(p, {len(kinds)});\n\treturn done;\n}}\n")
    return "\n".join(lines)


WRAPPER_HEAD = """// SPDX-License-Identifier: Apache-2.0
/* Every C function of pycryptodome that this program uses, callable from Python.
 *
 * A pointer parameter takes None (NULL), an int (an address that C code gave earlier), or an
 * object with a buffer, which is held during the call.
 */
#define PY_SSIZE_T_CLEAN
#include "Python.h"
#include <stdint.h>

struct pointer {
	void *at;
	Py_buffer view;
};

static int as_pointer(PyObject *o, struct pointer *p)
{
	if (o == Py_None)
		return 0;
	if (PyLong_Check(o)) {
		p->at = PyLong_AsVoidPtr(o);
		return p->at == NULL && PyErr_Occurred() ? -1 : 0;
	}
	if (PyObject_GetBuffer(o, &p->view, PyBUF_SIMPLE) < 0)
		return -1;
	p->at = p->view.buf;
	return 0;
}

static void release(struct pointer *p, int n)
{
	for (int i = 0; i < n; i++)
		if (p[i].view.obj)
			PyBuffer_Release(&p[i].view);
}

static int as_uint64(PyObject *o, uint64_t *value)
{
	*value = PyLong_AsUnsignedLongLong(o);
	return *value == UINT64_MAX && PyErr_Occurred() ? -1 : 0;
}

#define UNSIGNED(name, type)                                                   \\
	static __attribute__((unused)) int name(PyObject *o, type *value)          \\
	{                                                                      \\
		uint64_t wide;                                                 \\
		if (as_uint64(o, &wide) < 0)                                   \\
			return -1;                                             \\
		*value = (type)wide;                                           \\
		if (*value == wide)                                            \\
			return 0;                                              \\
		PyErr_SetString(PyExc_OverflowError, "int too large for C");   \\
		return -1;                                                     \\
	}
UNSIGNED(as_size, size_t)
UNSIGNED(as_ulong, unsigned long)
UNSIGNED(as_unsigned, unsigned)
UNSIGNED(as_uint8, uint8_t)

static __attribute__((unused)) int as_int(PyObject *o, int *value)
{
	long wide = PyLong_AsLong(o);

	if (wide == -1 && PyErr_Occurred())
		return -1;
	*value = (int)wide;
	return 0;
}

static int right_count(const char *name, Py_ssize_t n, Py_ssize_t want)
{
	if (n == want)
		return 1;
	PyErr_Format(PyExc_TypeError, "%s takes %zd arguments, not %zd", name, want, n);
	return 0;
}
"""
WRAPPER_TAIL = """
static const char library_names[] =
	{names};

static PyMethodDef methods[] = {{
{rows}	{{NULL, NULL, 0, NULL}},
}};

static int execute(PyObject *module)
{{
	PyObject *names = PyFrozenSet_New(NULL);

	for (const char *name = library_names; names && *name; name += strlen(name) + 1) {{
		PyObject *text = PyUnicode_FromString(name);

		if (!text || PySet_Add(names, text) < 0)
			Py_CLEAR(names);
		Py_XDECREF(text);
	}}
	if (!names)
		return -1;
	if (PyModule_AddObject(module, "LIBRARIES", names) == 0)
		return 0;
	Py_DECREF(names);
	return -1;
}}

static PyModuleDef_Slot slots[] = {{{{Py_mod_exec, execute}}, {{0, NULL}}}};
static struct PyModuleDef definition = {{
	PyModuleDef_HEAD_INIT, "_static", NULL, 0, methods, slots, NULL, NULL, NULL,
}};

PyMODINIT_FUNC {init}(void)
{{
	return PyModuleDef_Init(&definition);
}}
"""


def _libraries(source: Path) -> dict[str, list[str]]:
    """Return library -> C files, as pycryptodome's own setup.py lists them."""
    found = {}
    for node in ast.walk(ast.parse((source / "setup.py").read_text())):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Extension":
            name = ast.literal_eval(node.args[0])
            files = next(k.value for k in node.keywords if k.arg == "sources")
            if not VARIANT.search(name):
                found[name] = ast.literal_eval(files)
    return found


def _units(source: Path, files: list[str], command: tuple[str, ...]) -> list[Unit]:
    include = f"-I{source / 'src'}"
    return [Unit(source / name, f"{Path(name).stem}.o", (*command, include)) for name in files]


def build(
    cache: Cache, sources: Sources, tools: Toolchain, modules: Collection[str]
) -> tuple[list[Path], Path]:
    """Return the wrappers' object and an archive of pycryptodome's C.

    `modules` are the dotted names of the Python modules that are in the executable.
    """
    source = sources.unpack("pycryptodome")
    libraries = _libraries(source)
    chosen = [f for f in functions(source) if f.module in modules]
    arch = tools.arch
    defines = [
        "-DHAVE_STDINT_H",
        "-DHAVE_POSIX_MEMALIGN",
        f"-DSYS_BITS={arch.bits}",
        f"-DPYCRYPTO_{'BIG' if arch.big_endian else 'LITTLE'}_ENDIAN",
        *(["-DHAVE_UINT128"] if arch.bits == 64 else []),
    ]
    inputs = {
        "source": sources.pin("pycryptodome").sha256,
        "tools": tools.identity,
        "python": cpython.target(cache, sources, tools).name,
        "functions": sorted({f.name for f in chosen}),
        "recipe": recipe_of(sys.modules[__name__], symbols),
    }

    def recipe(folder: Path) -> None:
        env = tools.environment(cache)
        include = cpython.include_flags(cache, sources, tools)
        command = (tools.cc, *tools.common_flags(), "-std=gnu11", *defines, *include)
        files = sorted({name for names in libraries.values() for name in names})
        first = folder / "plain"
        first.mkdir(exist_ok=True)
        objects = cache.compile(first, _units(source, files, command), env)
        defined = symbols.defined(objects)
        (folder / "prefix.h").write_text(symbols.prefix_header(defined, PREFIX))
        command = (*command, "-include", str(folder / "prefix.h"))
        objects = cache.compile(folder, _units(source, files, command), env)
        cache.run(folder / "log", [tools.ar, "rcs", folder / "libcrypto_c.a", *objects], env=env)
        # A few prototypes have no function behind them, which a lazy loader never notices.
        text = wrappers([f for f in chosen if f.name in defined], libraries)
        (folder / "wrappers.c").write_text(text)
        cache.compile(folder, [Unit(folder / "wrappers.c", "wrappers_static.o", command)], env)

    folder = cache.stage(f"pycryptodome-{arch.name}", inputs, recipe, resume=True)
    return [folder / "wrappers_static.o"], folder / "libcrypto_c.a"
