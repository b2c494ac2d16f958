"""Wantastic Agent: a userspace WireGuard agent for routers."""
