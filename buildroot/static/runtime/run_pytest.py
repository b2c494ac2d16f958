"""Starts pytest in the static interpreter: modules by dotted names, hypothesis with fewer examples.

An emulated CPU is some thirty times slower: a property gets EXAMPLES examples unless its test asks
for a number itself, and no example has a deadline.
"""

import sys

import hypothesis
import pytest

from buildroot.static.runtime import dotted  # noqa: F401

EXAMPLES = 10

hypothesis.settings.register_profile(
    "emulated",
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
hypothesis.settings.load_profile("emulated")
sys.exit(
    pytest.main(["-p", "hypothesis.extra.pytestplugin", "-p", "no:cacheprovider", *sys.argv[1:]])
)
