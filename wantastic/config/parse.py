"""From the bytes of a configuration file to a Config, or to a ConfigError.

Nothing else is ever raised, whatever the bytes are. Checks that need more than one
section (key against key, peer against peer) are here; the rest is in sections.py.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from wantastic.config import access, keys
from wantastic.config import sections as read
from wantastic.config.errors import ConfigError, Problem
from wantastic.config.model import DEFAULT_MEMORY_BYTES, Config, PeerConfig
from wantastic.config.reader import Report, Table

MAX_FILE_BYTES = 1 << 20
MIN_MEMORY_BYTES = 4 << 20
# Sizes fit into the 32 bits of a small router's size_t.
MAX_MEMORY_BYTES = 2 << 30
MAX_THREADS = 16


@dataclass(frozen=True, slots=True)
class Parsed:
    """A usable configuration and what its author may want to know about it."""

    config: Config
    warnings: tuple[Problem, ...]


class _Duplicate(ValueError):
    pass


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result: dict[str, object] = {}
    for name, value in pairs:
        if name in result:
            raise _Duplicate(name)
        result[name] = value
    return result


def _constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def read_json(data: bytes, source: str) -> dict[str, object]:
    """Return the table that `data` spells; ConfigError for anything else."""

    def wrong(text: str, remedy: str, path: str = "") -> ConfigError:
        return ConfigError(source, (Problem(path, text, remedy),))

    if len(data) > MAX_FILE_BYTES:
        raise wrong("is larger than 1 MiB", "A configuration is a few kilobytes of JSON.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise wrong(f"is not UTF-8 at byte {error.start}", "Save it as UTF-8 text.") from None
    if not text.strip():
        raise wrong("is empty", "Write at least {}: see docs/configuration.md.")
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_constant)
    except _Duplicate as error:
        name = json.dumps(str(error))
        raise wrong(f"has the field {name} twice in one table", "Keep one of them.") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        remedy = "JSON wants double quotes, a comma between fields and none after the last."
        raise wrong(f"is not JSON at {where}: {error.msg}", remedy) from None
    except (ValueError, RecursionError):
        raise wrong("is not usable JSON", "Use plain numbers and little nesting.") from None
    if not isinstance(value, dict):
        raise wrong("is not a table", 'Begin with "{" and end with "}".')
    return value


def parse_config(data: bytes, source: str, *, thorough: bool = False) -> Parsed:
    """Return the configuration in `data`; `source` names the file in messages.

    `thorough` also computes what costs a small router a second: the public key, to see
    whether a peer is this device itself (the engine leaves such a peer out anyway).
    """
    report = Report(source)
    root = Table(read_json(data, source), "", report)
    config = Config(
        device_id=root.text("device_id"),
        tenant_id=root.text("tenant_id"),
        private_key=read.read_private_key(root),
        public_key=read.read_public_key(
            root, "public_key", "Leave it out: it follows from the private key."
        ),
        server=read.read_server(root),
        peers=read.read_peers(root),
        interface=read.read_interface(root),
        exit_node=read.read_exit_node(root),
        dns=read.read_dns(root),
        proxy=access.read_proxy(root),
        forwards=access.read_forwards(root),
        auth=read.read_auth(root),
        log=read.read_log(root),
        state_dir=root.text("state_dir", Config().state_dir),
        memory_limit_bytes=read.read_memory_limit(
            root, "memory_limit", DEFAULT_MEMORY_BYTES, MIN_MEMORY_BYTES, MAX_MEMORY_BYTES
        ),
        threads=root.integer("threads", 1, 1, MAX_THREADS),
    )
    read.warn_placeholder(root, "device_id", config.device_id)
    read.warn_placeholder(root, "tenant_id", config.tenant_id)
    root.finish()
    check_state_dir(root, config)
    check_own_keys(root, config)
    check_peers(root, config, thorough)
    report.finish()
    return Parsed(config, tuple(report.warnings))


def check_state_dir(root: Table, config: Config) -> None:
    if not config.state_dir.startswith("/"):
        remedy = f'Write a full path such as "{Config().state_dir}".'
        root.problem("state_dir", "is not an absolute path", remedy)


def check_own_keys(root: Table, config: Config) -> None:
    """The file's public key must be the one of its private key."""
    if not config.private_key or not config.public_key:
        return
    if keys.public_key_of(config.private_key) != config.public_key:
        remedy = "Leave public_key out, or correct the one that is wrong."
        root.problem("public_key", "does not belong to private_key", remedy)


def check_peers(root: Table, config: Config, thorough: bool) -> None:
    """Each public key once, each range at one peer, and no peer that is ourselves."""
    places = ["server"] if config.server else []
    places += [f"peers[{i}]" for i in range(len(config.peers))]
    own = config.public_key
    if thorough and own is None and config.private_key:
        own = keys.public_key_of(config.private_key)
    key_at: dict[bytes, str] = {}
    range_at: dict[object, str] = {}
    for place, peer in zip(places, config.all_peers, strict=True):
        check_peer_key(root, place, peer, own, key_at)
        for network in peer.allowed_ips:
            other = range_at.setdefault(network, place)
            if other != place:
                text = f"has {network}, which {other} has too"
                remedy = "A range belongs to one peer: keep it at one of them."
                root.problem(f"{place}.allowed_ips", text, remedy)


def check_peer_key(
    root: Table, place: str, peer: PeerConfig, own: bytes | None, key_at: dict[bytes, str]
) -> None:
    at = f"{place}.public_key"
    if peer.public_key == own:
        root.problem(at, "is this device's own key", "Write the other side's public key.")
    other = key_at.setdefault(peer.public_key, place)
    if other != place:
        root.problem(at, f"is the key of {other} too", "Merge the two entries.")
