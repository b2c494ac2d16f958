"""Tests of the native rooms through their Cython faces."""
