"""A program without one of the build's FEATURES, run from a source tree that lacks its modules."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from buildroot.static.nuitka import FEATURES
from wantastic.cli import exits

ROOT = Path(__file__).resolve().parents[2]
END_S = 30.0


def tree_without(feature: str, folder: Path) -> Path:
    """Copy what the executable is made from, less what the feature names."""
    tree = folder / "tree"
    skip = shutil.ignore_patterns("server", "__pycache__")
    shutil.copytree(ROOT / "wantastic", tree / "wantastic", ignore=skip)
    (tree / "cext").symlink_to(ROOT / "cext")
    for module in FEATURES[feature]:
        path = tree / Path(*module.split("."))
        shutil.rmtree(path, ignore_errors=True)
        path.with_suffix(".py").unlink(missing_ok=True)
    return tree


def start(tree: Path, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "wantastic.cli.main", *arguments],
        env={**os.environ, "PYTHONPATH": str(tree), "WANTASTIC_RUN_DIR": str(folder / "run")},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize("feature", FEATURES)
def test_a_tunnel_from_a_file_needs_no_feature(feature: str, tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    text = {
        "private_key": "",
        "state_dir": str(tmp_path / "state"),
        "interface": {"mode": "userspace", "addresses": ["10.98.0.2/32"], "listen_port": 0},
        "server": {"endpoint": "127.0.0.1:9", "public_key": f"{'A' * 42}E="},
    }
    config.write_text(json.dumps(text))
    config.chmod(0o600)
    agent = start(tree_without(feature, tmp_path), tmp_path, "-config", str(config))
    try:
        deadline = time.monotonic() + END_S
        status = tmp_path / "run"
        while not any(status.glob("*.sock")) and agent.poll() is None:
            assert time.monotonic() < deadline, "no status socket"
            time.sleep(0.05)
        agent.terminate()
        said = agent.communicate(timeout=END_S)[0]
    finally:
        agent.kill()
        agent.wait()
    assert agent.returncode == exits.OK, said
    assert "tunnel is up" in said


def test_without_the_control_plane_enrolling_is_refused_by_name(tmp_path: Path) -> None:
    agent = start(tree_without("control", tmp_path), tmp_path, "-token-file", "token")
    said = agent.communicate(timeout=END_S)[0]
    assert agent.returncode == exits.NOT_BUILT_IN, said
    assert "cannot enrol" in said
