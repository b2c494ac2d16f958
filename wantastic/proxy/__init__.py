"""SOCKS5 and HTTP proxies and port forwards into the tunnel.

The parsers here are sans-IO: bytes in, a request and bytes to answer out. Connections,
name resolution and the moving of bytes are the caller's.
"""
