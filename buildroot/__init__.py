"""Firmware: the Buildroot and OpenWrt packages, and the program that builds the executable."""
