"""Runs Nuitka's data composer with numbers in the target's byte order.

argv: "<" or ">", Nuitka's folder, folder of the generated C, the blob to write, a statistics file.
The composer packs with this machine's order where a format names none.
"""

import struct
import sys

order, nuitka = sys.argv[1:3]
pack = struct.pack
struct.pack = lambda form, *values: pack(form if form[0] in "<>=!@" else order + form, *values)  # type: ignore[assignment]
sys.argv[1:] = sys.argv[3:]
sys.path.insert(0, nuitka)

from nuitka.tools.data_composer.DataComposer import main  # type: ignore[import-not-found] # noqa: E402

main()
