"""Records: every power cut, every refused operation, every damaged byte."""

from __future__ import annotations

import errno
import os
import random
import signal
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.disks import CutDisk, RefusingDisk, after_cut
from wantastic.store.filesystem import RealFilesystem
from wantastic.store.record import Record, StoreError, seal, unseal

FOLDER = Path("/state")


def record(disk: CutDisk, notices: list[str] | None = None) -> Record:
    return Record(FOLDER, "r", disk, (notices if notices is not None else []).append)


@given(st.binary(max_size=200))
def test_sealed_values_come_back(payload: bytes) -> None:
    assert unseal(seal(payload)) == payload


@given(st.binary(max_size=60), st.data())
def test_any_changed_or_missing_byte_is_noticed(payload: bytes, data: st.DataObject) -> None:
    content = seal(payload)
    at = data.draw(st.integers(0, len(content) - 1))
    flip = data.draw(st.integers(1, 255))
    damaged = content[:at] + bytes([content[at] ^ flip]) + content[at + 1 :]
    assert unseal(damaged) is None
    assert unseal(content[:at]) is None
    assert unseal(content + b"x") is None


def test_a_cut_at_any_moment_leaves_the_old_or_the_new_value() -> None:
    """No acknowledged write is lost and nothing torn is ever read, four writes long."""
    disk = CutDisk()
    writer, cuts = record(disk), 0
    acknowledged: bytes | None = None
    for value in (b"one" * 9, b"two" * 30, b"3", b"four" * 20):
        start = len(disk.moments)
        assert writer.write(value)
        for contents in (c for moment in disk.moments[start:-1] for c in moment):
            assert record(after_cut(contents)).read() in (acknowledged, value)
            cuts += 1
        for contents in disk.moments[-1]:
            assert record(after_cut(contents)).read() == value
        acknowledged = value
    assert cuts > 80


def test_after_any_cut_the_next_write_is_safe_from_cuts_too() -> None:
    disk = CutDisk()
    writer = record(disk)
    writer.write(b"old" * 9)
    start = len(disk.moments)
    writer.write(b"new" * 9)
    for contents in (c for moment in disk.moments[start:] for c in moment):
        second = after_cut(contents)
        survivor = record(second)
        before = survivor.read()
        survivor.write(b"next" * 9)
        for again in (c for moment in second.moments[:-1] for c in moment):
            assert record(after_cut(again)).read() in (before, b"next" * 9)
        for again in second.moments[-1]:
            assert record(after_cut(again)).read() == b"next" * 9


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS, errno.EIO, errno.EACCES])
@pytest.mark.parametrize("for_good", [True, False])
def test_a_refused_operation_leaves_a_value_and_the_next_write_works(
    error: int, for_good: bool
) -> None:
    fail_at = 0
    while True:
        disk = RefusingDisk(error=error, for_good=for_good)
        writer = record(disk)
        writer.write(b"old")
        disk.done, disk.fail_at = 0, fail_at
        try:
            writer.write(b"new")
            break
        except StoreError as refused:
            told = (refused.errno, str(refused)[-1])
        assert told == (error, ".")
        assert record(after_cut({p: i.data for p, i in disk.names.items()})).read() in (
            b"old",
            b"new",
        )
        disk.fail_at = -1
        assert writer.write(b"third")
        assert record(disk).read() == b"third"
        fail_at += 1
    assert fail_at >= 5


def test_the_same_value_is_not_written_again() -> None:
    disk = CutDisk()
    writer = record(disk)
    assert writer.write(b"a")
    assert not writer.write(b"a")
    assert writer.writes == 1
    again = record(disk)
    assert not again.write(b"a")
    assert again.writes == 0


@pytest.mark.parametrize("damage", [b"", b"garbage", seal(b"x")[:-1]])
def test_a_damaged_value_is_kept_aside_and_the_one_before_used(damage: bytes) -> None:
    disk = CutDisk()
    writer = record(disk)
    writer.write(b"first")
    writer.write(b"second")
    disk.names[FOLDER / "r"].data = damage
    notices: list[str] = []
    reader = record(disk, notices)
    assert reader.read() == b"first"
    assert disk.names[FOLDER / "r.corrupt"].data == damage
    assert "r.previous is used instead" in notices[0]
    assert reader.write(b"third")
    assert record(disk).read() == b"third"


def test_without_any_copy_there_is_no_value() -> None:
    disk = CutDisk()
    record(disk).write(b"x")
    disk.names[FOLDER / "r"].data = b"?"
    notices: list[str] = []
    assert record(disk, notices).read() is None
    assert "no other copy" in notices[0]


def test_removed_values_stay_away() -> None:
    disk = CutDisk()
    writer = record(disk)
    writer.write(b"one")
    writer.write(b"two")
    writer.remove()
    assert record(disk).read() is None
    assert writer.write(b"two")


@settings(max_examples=50)
@given(st.lists(st.sampled_from(["a", "b", "c", "reopen", "cut"]), max_size=12), st.data())
def test_any_sequence_agrees_with_a_variable(steps: list[str], data: st.DataObject) -> None:
    disk, model = CutDisk(), None
    subject = record(disk)
    for step in steps:
        if step == "reopen":
            subject = record(disk)
            assert subject.read() == model
        elif step == "cut" and disk.moments:
            disk = after_cut(data.draw(st.sampled_from(disk.moments[-1])))
            subject = record(disk)
            assert subject.read() == model
        elif len(step) == 1:
            model = step.encode()
            subject.write(model)
    assert record(disk).read() == model


def test_on_a_real_disk(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "state"
    subject = Record(folder, "r", RealFilesystem(), print)
    subject.write(b"one")
    subject.write(b"two")
    assert Record(folder, "r", RealFilesystem(), print).read() == b"two"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {p.name: p.stat().st_mode & 0o777 for p in folder.iterdir()} == {
        "r": 0o600,
        "r.previous": 0o600,
    }


@pytest.mark.parametrize("mode", [0o1777, 0o777, 0o775, 0o722, 0o2770])
def test_a_folder_that_others_write_to_is_refused_and_left_as_it_was(
    tmp_path: Path, mode: int
) -> None:
    tmp_path.chmod(mode)
    with pytest.raises(StoreError, match="shared with others") as caught:
        Record(tmp_path, "r", RealFilesystem(), print).write(b"secret")
    assert "set state_dir" in caught.value.remedy.lower()
    assert (f"chmod go-w {tmp_path}" in caught.value.remedy) == (mode != 0o1777)
    assert tmp_path.stat().st_mode & 0o7777 == mode
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", [0o755, 0o700, 0o750, 0o1755])
def test_a_folder_that_stands_already_keeps_its_mode(tmp_path: Path, mode: int) -> None:
    """/etc as state_dir must not become unreadable for everybody else."""
    tmp_path.chmod(mode)
    Record(tmp_path, "r", RealFilesystem(), print).write(b"secret")
    assert tmp_path.stat().st_mode & 0o7777 == mode
    assert (tmp_path / "r").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("umask", [0, 0o022, 0o077, 0o777])
def test_a_folder_of_ours_is_private_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    folder = tmp_path / "state"
    before = os.umask(umask)
    try:
        Record(folder, "r", RealFilesystem(), print).write(b"secret")
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o7777 == 0o700
    assert tmp_path.stat().st_mode & 0o777 == 0o700


def test_killed_writers_lose_nothing_that_they_said(tmp_path: Path) -> None:
    """SIGKILL at any moment of a writer that says each number once it is written.

    (The agent's own records are killed a thousand times in test_agent_power_cuts.)
    """
    rng = random.Random(7)
    kept = 0
    for _ in range(50):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            subject = Record(tmp_path, "r", RealFilesystem(), lambda text: None)
            number = kept
            while True:
                number += 1
                subject.write(str(number).encode() * 50)
                os.write(writer, number.to_bytes(8, "big"))
        os.close(writer)
        said = os.read(reader, 8)
        time.sleep(rng.random() * 0.004)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        while more := os.read(reader, 8):
            said = more
        os.close(reader)
        notices: list[str] = []
        found = Record(tmp_path, "r", RealFilesystem(), notices.append).read()
        assert found
        assert notices == []
        kept = next(n for n in range(kept, 10**9) if str(n).encode() * 50 == found)
        # The one after the last that was said may have been written too.
        assert 0 <= kept - int.from_bytes(said, "big") <= 1


def test_a_planted_link_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "r.new").symlink_to(victim)
    with pytest.raises(StoreError, match="symbolic link"):
        Record(tmp_path, "r", RealFilesystem(), print).write(b"x")
    assert victim.read_text() == "precious"
