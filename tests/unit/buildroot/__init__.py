"""Tests of buildroot/: the packages, and the program that builds the executable."""
