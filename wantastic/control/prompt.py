"""Shows the sign-in prompt of the device flow on a terminal: link, code, QR code.

The QR code comes from segno, which is small, pure Python and without dependencies; a QR
encoder of our own would have to repeat its tables and error correction. Two modules share
one character cell, light ones drawn, with colours set so that light and dark terminals show
the same.
"""

from __future__ import annotations

from typing import Final

from wantastic.control.device_flow import Prompt

QUIET_ZONE: Final = 2
_CELLS: Final = {(0, 0): "█", (0, 1): "▀", (1, 0): "▄", (1, 1): " "}
"""(dark above, dark below) -> character in white on black."""
_WHITE_ON_BLACK: Final = "\x1b[97;40m"
_RESET: Final = "\x1b[0m"


def render_qr(text: str, columns: int) -> str:
    """Return a QR code of half blocks; "" when it does not fit or segno is not there."""
    try:
        import segno
    except ImportError:
        return ""
    code = segno.make_qr(text, error="l")
    rows = [[1 if module & 1 else 0 for module in row] for row in code.matrix]
    width = len(rows) + 2 * QUIET_ZONE
    if width > columns:
        return ""
    side = [0] * QUIET_ZONE
    rows = [[*side, *row, *side] for row in rows]
    rows = [[0] * width] * QUIET_ZONE + rows + [[0] * width] * QUIET_ZONE
    if len(rows) % 2:
        rows.append([0] * width)
    lines = []
    for above, below in zip(rows[::2], rows[1::2], strict=True):
        cells = "".join(_CELLS[a, b] for a, b in zip(above, below, strict=True))
        lines.append(f"{_WHITE_ON_BLACK}{cells}{_RESET}")
    return "\n".join(lines)


def render_prompt(prompt: Prompt, *, terminal: bool, columns: int = 80) -> str:
    """Return what to print; the QR code on a terminal only."""
    minutes = max(1, round(prompt.expires_in_s / 60))
    lines = [
        "To connect this device, open",
        "",
        f"    {prompt.link}",
        "",
        f"and enter the code  {prompt.user_code}",
    ]
    code = render_qr(prompt.link_with_code or prompt.link, columns) if terminal else ""
    if code:
        lines += ["", "or scan", "", code]
    unit = "minute" if minutes == 1 else "minutes"
    lines += ["", f"The code is good for {minutes} {unit}. Waiting for approval ..."]
    return "\n".join(lines) + "\n"
