"""`wantasticd selftest`: known answers of the cryptography, computed inside this executable.

Importing the primitives proves what the tunnel uses; asking for wrong answers, what TLS takes from
OpenSSL. A build for another CPU can get either wrong without a word of the linker's, and lack a
library of the control plane without a word of the compiler's.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec

from wantastic.cli import exits
from wantastic.cli.args import UsageError


def run(arguments: Sequence[str]) -> int:
    """Print what was proved; the status says whether all is right."""
    if arguments:
        raise UsageError("selftest takes no arguments")
    from wantastic.device import selftest

    wrong = selftest.wrong_answer()
    if wrong:
        sys.stderr.write(f"wantasticd: a known answer of {wrong} is wrong\n")
        return exits.FAILED
    sys.stdout.write(f"known answers right: {', '.join(selftest.proved())}, OpenSSL\n")
    return _enrolment() if find_spec("wantastic.control") else exits.OK


def _enrolment() -> int:
    try:
        from wantastic.agent import uplink  # noqa: F401
        from wantastic.control import selftest

        sys.stdout.write(f"enrolment can work: {selftest.run()}\n")
    except (ImportError, ValueError) as error:
        sys.stderr.write(f"wantasticd: enrolment cannot work: {error}\n")
        return exits.FAILED
    return exits.OK
