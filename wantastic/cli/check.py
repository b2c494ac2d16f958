"""`wantasticd -config FILE -check`: what is wrong, what is odd, what would happen."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict

from wantastic.cli import exits
from wantastic.cli.args import Check
from wantastic.config.diff import tunnel_of
from wantastic.config.errors import ConfigError, Problem
from wantastic.config.load import load_config
from wantastic.config.model import Config


def check(command: Check) -> int:
    """Print the judgement; return OK or CONFIG."""
    problems: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()
    plan: list[str] = []
    try:
        parsed = load_config(command.config_path, thorough=True)
        warnings, plan = parsed.warnings, list(describe(parsed.config))
    except ConfigError as error:
        problems = error.problems
    if command.json:
        found = {
            "ok": not problems,
            "file": command.config_path,
            "problems": [asdict(p) for p in problems],
            "warnings": [asdict(p) for p in warnings],
        }
        sys.stdout.write(json.dumps(found) + "\n")
    else:
        for problem in problems:
            sys.stderr.write(f"{command.config_path}: {problem}\n")
        for warning in warnings:
            sys.stderr.write(f"{command.config_path}: warning: {warning}\n")
        if not problems:
            sys.stdout.write(f"{command.config_path}: ok\n")
        for line in plan:
            sys.stdout.write(f"  {line}\n")
    return exits.CONFIG if problems else exits.OK


def describe(config: Config) -> Iterator[str]:
    """Yield what running this configuration would do."""
    interface = config.interface
    addresses = ", ".join(map(str, interface.addresses)) or "no address"
    yield f"interface {interface.name}: {addresses}; MTU {interface.mtu_bytes}"
    yield f"UDP port: {interface.listen_port or 'any'}"
    key = "from this file" if config.private_key else f"kept in {config.state_dir}"
    yield f"private key: {key}"
    for peer in config.all_peers:
        where = f"at {peer.endpoint}" if peer.endpoint else "that calls us"
        ranges = ", ".join(map(str, peer.allowed_ips)) or "nothing"
        name = peer.name or ("server" if peer is config.server else "without a name")
        yield f"peer {name} {where}: {ranges}"
    routes = sorted(map(str, tunnel_of(config, None).routes))
    yield f"routes into the tunnel: {', '.join(routes) or 'none'}"
    yield f"default route into the tunnel: {'yes' if interface.default_route else 'no'}"
