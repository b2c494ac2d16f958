"""From a Config back to the file's JSON: parse_config(render_config(c)) gives c again."""

from __future__ import annotations

import json
from typing import Any

from wantastic.config import values
from wantastic.config.duration import render_duration
from wantastic.config.keys import encode_key
from wantastic.config.model import (
    AuthConfig,
    Config,
    DnsConfig,
    ForwardConfig,
    HostPort,
    PeerConfig,
    ProxyConfig,
)

REDACTED = "(hidden)"


def _key(key: bytes | None, redact: bool = False) -> str:
    return "" if key is None else REDACTED if redact else encode_key(key)


def _place(place: HostPort | None) -> str:
    return "" if place is None else str(place)


def _peer(peer: PeerConfig, redact: bool) -> dict[str, Any]:
    result: dict[str, Any] = {
        "name": peer.name,
        "public_key": _key(peer.public_key),
        "preshared_key": _key(peer.preshared_key, redact),
        "endpoint": _place(peer.endpoint),
        "persistent_keepalive": peer.keepalive_s,
    }
    if peer.allowed_ips_listed:
        result["allowed_ips"] = [str(n) for n in peer.allowed_ips]
    return result


def _dns(dns: DnsConfig) -> dict[str, Any]:
    return {
        "listen": _place(dns.listen),
        "servers": [values.render_dns_server(s) for s in dns.servers],
        "search": list(dns.search),
        "routes": {r.domain: [values.render_dns_server(s) for s in r.servers] for r in dns.routes},
        "records": {name: list(addresses) for name, addresses in dns.records},
        "cache_entries": dns.cache_entries,
    }


def _proxy(proxy: ProxyConfig, redact: bool) -> dict[str, Any]:
    found = {"socks5": proxy.socks5, "http": proxy.http}
    return {
        name: {
            "listen": str(listener.listen),
            "user": listener.user,
            "password": REDACTED if redact and listener.password else listener.password,
        }
        for name, listener in found.items()
        if listener
    }


def _forward(forward: ForwardConfig) -> dict[str, Any]:
    place: dict[str, Any] = {"listen": str(forward.listen)}
    if forward.end == "tunnel":
        place = {"port": forward.listen.port}
    return {
        "from": forward.end,
        "protocol": forward.protocol,
        **place,
        "target": str(forward.target),
    }


def _auth(auth: AuthConfig, redact: bool) -> dict[str, Any]:
    return {
        "server_url": _place(auth.server_url),
        "auth_url": auth.auth_url,
        "token": REDACTED if redact and auth.token else auth.token,
        "token_file": auth.token_file,
        "refresh_time": render_duration(auth.refresh_time_ns),
        "ca_file": auth.ca_file,
        "client_cert_file": auth.client_cert_file,
        "client_key_file": auth.client_key_file,
        "server_name": auth.server_name,
        "insecure": auth.insecure,
        "transport": auth.transport,
        "key_rotation": render_duration(auth.key_rotation_ns),
    }


def config_to_json(config: Config, *, redact: bool = False) -> dict[str, Any]:
    """Return the file's tables; `redact` hides every secret."""
    interface, exit_node = config.interface, config.exit_node
    result: dict[str, Any] = {
        "device_id": config.device_id,
        "tenant_id": config.tenant_id,
        "private_key": _key(config.private_key, redact),
        "public_key": _key(config.public_key),
        "peers": [_peer(peer, redact) for peer in config.peers],
        "interface": {
            "name": interface.name,
            "addresses": [str(a) for a in interface.addresses],
            "listen_port": interface.listen_port,
            "strict_port": interface.strict_port,
            "mtu": interface.mtu_bytes,
            "mode": interface.mode,
            "default_route": interface.default_route,
            "fwmark": interface.fwmark,
            "bind_interface": interface.bind_interface,
        },
        "exit_node": {
            "enabled": exit_node.enabled,
            "routes": [str(n) for n in exit_node.routes],
            "dns": list(exit_node.dns),
            "allow_lan": exit_node.allow_lan,
            "allow": [values.render_rule(r) for r in exit_node.allow],
            "deny": [values.render_rule(r) for r in exit_node.deny],
        },
        "dns": _dns(config.dns),
        "proxy": _proxy(config.proxy, redact),
        "forwards": [_forward(forward) for forward in config.forwards],
        "auth": _auth(config.auth, redact),
        "log": {
            "level": config.log.level,
            "format": config.log.format,
            "target": config.log.target,
        },
        "state_dir": config.state_dir,
        "memory_limit": config.memory_limit_bytes,
        "threads": config.threads,
    }
    if config.server:
        result["server"] = _peer(config.server, redact)
    return result


def render_config(config: Config, *, redact: bool = False) -> bytes:
    """Return the configuration file's text."""
    return json.dumps(config_to_json(config, redact=redact), indent=2).encode() + b"\n"
