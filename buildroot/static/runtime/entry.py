"""The program's first module: make imports and host names work here, then run the command line."""

import os
import sys

import dotted
import hostnames
import late
import quick

from wantastic.cli.main import main

assert dotted
assert hostnames
assert late
assert quick
status = main()
for stream in (sys.stdout, sys.stderr):
    try:
        stream.flush()
    except BrokenPipeError:
        # As in main(): there is nobody to tell.
        pass
    except OSError:
        status = status or 1
# The kernel takes a process apart in no time; the interpreter needs a fifth of what a start costs.
os._exit(status)
