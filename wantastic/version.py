"""Which version this is, and a moment that is certainly past: a clock that says less is wrong."""

VERSION = "0.1.0"
# 2026-11-01T00:00:00Z; the packaging may put the build's own moment here.
BUILD_UNIX_NS = 1_793_491_200 * 10**9
