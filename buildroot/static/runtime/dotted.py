"""Finds statically linked modules by their dotted names.

CPython 3.11's own finder of built-in modules looks only at names without a dot. Importing this
module installs one that looks at the others.
"""

import _imp
import sys
from importlib.machinery import BuiltinImporter, ModuleSpec


class DottedBuiltinFinder:
    """A meta path finder for modules in the table of built-in modules under a dotted name."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Return the specification of a module that is in the table."""
        if "." in name and _imp.is_builtin(name):
            return ModuleSpec(name, BuiltinImporter, origin="built-in")  # type: ignore[arg-type]
        return None


sys.meta_path.insert(0, DottedBuiltinFinder)
