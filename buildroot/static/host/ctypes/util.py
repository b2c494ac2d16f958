"""See the package."""


def find_library(name: str) -> None:
    """Return that there is none."""
    return
