"""The test suite; each folder says what it needs."""
