"""What binary-check asks of an executable, asked of the agent that runs from source."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from buildroot.imagetest.machine import Failure
from buildroot.static import enrolment

ROOT = Path(__file__).resolve().parents[2]
AGENT = [sys.executable, "-m", "wantastic.cli.main"]


def test_the_agent_enrols_fetches_a_page_and_does_so_out_of_its_cache() -> None:
    first_s, again_s, resident_kb = enrolment.enrol(AGENT, 60.0, 0.0)
    assert 0 < first_s < 60
    assert 0 < again_s < 60
    assert 10_000 < resident_kb < 200_000


def test_an_agent_that_cannot_is_told_with_its_status(tmp_path: Path) -> None:
    """The reason is in the failure: a build that lacks a library says which."""
    broken = tmp_path / "agent.py"
    broken.write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n"
        "sys.modules['google.protobuf'] = None\n"
        "from wantastic.cli.main import main\n"
        "sys.exit(main())\n"
    )
    with pytest.raises(Failure, match=r"(?s)no page.*google.protobuf"):
        enrolment.enrol([sys.executable, str(broken)], 10.0, 0.0)


def test_registering_alone_needs_no_tunnel() -> None:
    assert 0 < enrolment.register(AGENT, 60.0) < 60
