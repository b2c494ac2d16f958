"""The engine that unit tests use has the real one's shape: methods, arguments, defaults."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

from tests.support.fake_engine import FakeEngine

CONTRACT = Path(__file__).resolve().parents[3] / "cext" / "engine" / "engine.pyi"


def contract() -> dict[str, tuple[list[str], list[str]]]:
    """Return the positional and the keyword-only names of each method of Engine."""
    tree = ast.parse(CONTRACT.read_text())
    (engine,) = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "Engine"]
    return {
        node.name: (
            [a.arg for a in node.args.args if a.arg != "self"],
            [a.arg for a in node.args.kwonlyargs],
        )
        for node in engine.body
        if isinstance(node, ast.FunctionDef)
    }


def test_the_fake_has_the_contracts_methods() -> None:
    methods = contract()
    compared = 0
    for name, (positional, keywords) in methods.items():
        method = getattr(FakeEngine, name, None)
        if name.startswith("__") or method is None:
            continue
        parameters = inspect.signature(method).parameters.values()
        kinds = {p.name: p.kind for p in parameters if p.name != "self"}
        assert [n for n, k in kinds.items() if k is inspect.Parameter.KEYWORD_ONLY] == keywords, (
            name
        )
        assert [n for n, k in kinds.items() if k is not inspect.Parameter.KEYWORD_ONLY] == (
            positional
        ), name
        compared += 1
    assert compared > 18
