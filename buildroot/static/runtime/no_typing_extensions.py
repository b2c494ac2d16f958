"""Stands in for typing_extensions, of which grpcio takes two names for annotations."""

from collections.abc import Callable
from typing import Any, Self

__all__ = ["Self", "override"]


def override(method: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a method for type checkers, which nobody runs here."""
    return method
