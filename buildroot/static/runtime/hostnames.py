"""The codec that the socket module passes every host name through, for ASCII names only.

CPython's own brings the Unicode tables with it, a megabyte. An international name is written as
"xn--..." in a configuration, which is ASCII; one with other letters is refused where it is used.
"""

import codecs


def encode(text: str, errors: str = "strict") -> tuple[bytes, int]:
    """Return an ASCII name as bytes."""
    return text.encode("ascii"), len(text)


def decode(data: bytes, errors: str = "strict") -> tuple[str, int]:
    """Return bytes as an ASCII name."""
    return bytes(data).decode("ascii"), len(data)


def find(name: str) -> codecs.CodecInfo | None:
    """Answer the lookup of the one codec that is here."""
    return codecs.CodecInfo(encode, decode, name="idna") if name == "idna" else None


codecs.register(find)
