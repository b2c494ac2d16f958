"""A Nuitka user plugin: what is different when the result is one static program for another CPU.

Loaded by Nuitka with --user-plugin, so it sees Nuitka's internals of exactly the pinned version and
nothing of buildroot.static; STATIC_BUILD names a JSON file with its orders:

    static      dotted names of the modules that are linked in; they count as built-in
    compile     top-level packages that become C; everything else stays bytecode
    bytecode    modules of those packages that stay bytecode all the same
    codecs      text encodings that go in
    report      where the names of all taken modules are written

Nuitka can write its C for a target it cannot run on, but not compile or link it: the plugin ends
Nuitka when the C and its constants are on disk.
"""

import json
import os
import sys
from pathlib import Path

import nuitka.freezer.ImportDetection as ImportDetection
import nuitka.utils.Importing as Importing
import nuitka.utils.SharedLibraries as SharedLibraries
from nuitka.plugins.PluginBase import NuitkaPluginBase

ORDERS = json.loads(Path(os.environ["STATIC_BUILD"]).read_text())
STATIC = frozenset(ORDERS["static"])

# Attributes of sys that differ between this machine and the target, yet count as constants.
HOST_VALUES = ("byteorder", "maxsize", "version", "hexversion", "builtin_module_names")


def early_imports():
    """Return the modules that the interpreter itself needs to start: not every codec there is."""
    codecs = "".join(f"import encodings.{name};" for name in ("aliases", *ORDERS["codecs"]))
    return ImportDetection._detectImports(command=f"{codecs}import importlib._bootstrap")


is_builtin = Importing.imp.is_builtin
Importing.builtin_module_names.update(STATIC)
Importing.imp.is_builtin = lambda name: 1 if str(name) in STATIC else is_builtin(str(name))
# Only what is imported goes in, not the whole standard library.
ImportDetection._detectStdlibAutoInclusionModules = set
ImportDetection._detectEarlyImports = early_imports
# No shared library is ever made, so none has to be patched.
SharedLibraries.checkPatchElfPresenceAndUsability = lambda logger: None


class StaticProgram(NuitkaPluginBase):
    """See the file's first lines."""

    plugin_name = "static-program"
    plugin_desc = "Write C for a static program of another CPU."

    def onCompilationStartChecks(self):
        # Nuitka's node classes can be imported only once its options are known.
        import nuitka.HardImportRegistry as HardImportRegistry

        for name in HOST_VALUES:
            HardImportRegistry.module_sys_trust.pop(name, None)

    def decideCompilation(self, module_name):
        name = str(module_name)
        if name.partition(".")[0] not in ORDERS["compile"] or name in ORDERS["bytecode"]:
            return "bytecode"
        return None

    def onGeneratedSourceCode(self, source_dir, onefile):
        import nuitka.ModuleRegistry as ModuleRegistry

        done = {
            module.getFullName().asString(): module.__class__.__name__
            for module in ModuleRegistry.getDoneModules()
        }
        Path(ORDERS["report"]).write_text(json.dumps(done, indent=1, sort_keys=True))
        sys.stdout.flush()
        os._exit(0)
