"""Joins wireguard, netstack and host in one native loop: commands in, events out."""
