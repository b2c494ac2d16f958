"""Fuzz target for the UAPI stream: the same requests, however the bytes are split."""

from __future__ import annotations

from wantastic.device.uapi import Bad, Decoder, Request


def requests(pieces: list[bytes]) -> list[Request]:
    """Return what a server would act on: nothing follows a fatal request."""
    decoder, found = Decoder(), []
    for piece in pieces:
        for request in decoder.feed(piece):
            found.append(request)
            if isinstance(request, Bad) and request.fatal:
                return found
    return found


def fuzz_uapi(data: bytes) -> None:
    """Raise only when the decoder breaks its promise."""
    whole = requests([data])
    if requests([data[i : i + 1] for i in range(len(data))]) != whole:
        raise AssertionError("splitting the stream changed its meaning")
