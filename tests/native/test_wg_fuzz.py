"""The fuzz targets on their corpus and on some thousand repeatable random inputs."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from cext.wireguard import fuzz

CORPUS = Path(__file__).resolve().parents[1] / "fuzz" / "corpus"
TARGETS = {"message": 3000, "device": 400, "allowed_ips": 4000, "replay": 4000}


@pytest.mark.parametrize("name", TARGETS)
def test_corpus(name: str) -> None:
    seeds = sorted((CORPUS / f"wireguard_{name}").iterdir())
    assert seeds
    for seed in seeds:
        assert fuzz.run(name, seed.read_bytes()) == 0


@pytest.mark.parametrize("name", TARGETS)
def test_random_inputs(name: str) -> None:
    rng = random.Random(name)
    for _ in range(TARGETS[name]):
        data = rng.randbytes(rng.choice([8, 33, 65, 93, 149, 300, 500]))
        assert fuzz.run(name, data) == 0


def test_an_unknown_target_is_an_error() -> None:
    with pytest.raises(KeyError):
        fuzz.run("nothing", b"")
