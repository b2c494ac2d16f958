"""SOCKS5 and HTTP proxies and port forwards into the tunnel."""
