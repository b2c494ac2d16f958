"""Stands in for unicodedata and its megabyte of tables: urllib.parse asks for one thing of it."""


def normalize(form: str, text: str) -> str:
    """Return ASCII text as it is; ValueError for any other, which urllib reports as a bad URL."""
    if text.isascii():
        return text
    raise ValueError("only ASCII host names are supported: write the name as xn--...")
