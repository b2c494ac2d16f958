"""The program's first module: make imports and host names work here, then run the command line."""

import sys

import dotted
import hostnames
import late

from wantastic.cli.main import main

assert dotted
assert hostnames
assert late
sys.exit(main())
