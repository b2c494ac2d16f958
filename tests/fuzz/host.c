/* SPDX-License-Identifier: Apache-2.0 */
/* The libFuzzer program that drives a fuzz target of a Cython module. */
#include <Python.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/*
 * FUZZ_TARGET=ROOM:NAME names the function `fuzz_NAME` of `cext.ROOM.fuzz`, a
 * `cdef int (const uint8_t *, size_t) noexcept nogil` that Cython exports as a
 * capsule.  The interpreter only loads it; a run touches no Python object.
 */
typedef int (*fuzz_function)(const uint8_t *data, size_t size);

static fuzz_function target;

static void fail(const char *what)
{
	if (PyErr_Occurred())
		PyErr_Print();
	fprintf(stderr, "fuzz host: %s\n", what);
	exit(2);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	static char module_name[128], function_name[128];
	const char *wanted = getenv("FUZZ_TARGET");
	PyObject *module, *exported, *capsule;

	(void)argc;
	(void)argv;
	if (!wanted ||
	    sscanf(wanted, "%40[a-z0-9_]:%40[a-z0-9_]", module_name, function_name) != 2)
		fail("set FUZZ_TARGET=ROOM:NAME");
	char path[160], name[160];
	snprintf(path, sizeof(path), "cext.%s.fuzz", module_name);
	snprintf(name, sizeof(name), "fuzz_%s", function_name);

	Py_InitializeEx(0);
	module = PyImport_ImportModule(path);
	if (!module)
		fail("the module does not load");
	exported = PyObject_GetAttrString(module, "__pyx_capi__");
	capsule = exported ? PyDict_GetItemString(exported, name) : NULL;
	if (!capsule)
		fail("the module has no such target");
	target = (fuzz_function)PyCapsule_GetPointer(capsule, PyCapsule_GetName(capsule));
	if (!target)
		fail("the target is not a function");
	PyEval_SaveThread();
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	target(data, size);
	return 0;
}
