"""Stands in for datetime: what is written in C, without the same once more in Python.

CPython 3.11 defines every class in Python first and then replaces it; 3.12 left that out.
"""

from _datetime import *  # noqa: F403
