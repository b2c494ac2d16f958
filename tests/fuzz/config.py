"""Fuzz target for the configuration file: ConfigError, or a configuration that round-trips."""

from __future__ import annotations

from wantastic.config.errors import ConfigError
from wantastic.config.parse import parse_config
from wantastic.config.render import render_config

# Every field of the document's file and of our additions, for mutation one at a time.
SECTIONS = {
    "": "device_id tenant_id private_key public_key server peers interface exit_node dns auth"
    " log state_dir memory_limit threads",
    "server.": "endpoint port public_key preshared_key allowed_ips persistent_keepalive name",
    "interface.": "name addresses listen_port strict_port mtu mode default_route fwmark"
    " bind_interface",
    "exit_node.": "enabled routes dns allow_lan allow deny",
    "dns.": "listen servers search routes records cache_entries",
    "auth.": "server_url auth_url token token_file refresh_time ca_file client_cert_file"
    " client_key_file server_name insecure transport key_rotation",
    "log.": "level format target",
}
FIELDS = frozenset(section + name for section in SECTIONS for name in SECTIONS[section].split())


def fuzz_config(data: bytes) -> None:
    """Raise only when the parser breaks its promise."""
    try:
        parsed = parse_config(data, "fuzz")
    except ConfigError as error:
        if not all(p.text and p.remedy for p in error.problems):
            raise AssertionError("an error without text or remedy") from error
        return
    assert parse_config(render_config(parsed.config), "again").config == parsed.config
