"""`wantasticd selftest`, and what it says where an answer is wrong."""

from __future__ import annotations

import sys
from functools import partial

import pytest

from wantastic.cli import exits
from wantastic.cli.main import main
from wantastic.device import selftest


def test_all_is_right_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selftest"]) == exits.OK
    out = capsys.readouterr().out
    assert "portable" in out
    assert "enrolment can work" in out


def test_a_wrong_answer_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(selftest, "wrong_answer", partial(str, "AES-128"))
    assert main(["selftest"]) == exits.FAILED
    assert "AES-128" in capsys.readouterr().err


def test_a_library_that_is_missing_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "Crypto.PublicKey", None)
    assert main(["selftest"]) == exits.FAILED
    assert "Crypto.PublicKey" in capsys.readouterr().err


def test_it_takes_no_arguments() -> None:
    assert main(["selftest", "-v"]) == exits.USAGE
