"""The store: identity, state, the write budget."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.disks import CutDisk, RefusingDisk
from wantastic.store.record import MAX_KEPT_ASIDE, Record, StoreError, unseal
from wantastic.store.store import MAX_NAMES, State, Store, parse_state, render_state


def entropy(n: int) -> bytes:
    return bytes(range(1, n + 1))


def test_an_identity_is_made_once() -> None:
    disk = CutDisk()
    key = Store("/s", disk, entropy).make_identity()
    assert len(key) == 32
    again = Store("/s", disk, lambda n: bytes(n))
    assert again.make_identity() == key
    assert again.writes == 0


def test_an_identity_survives_the_loss_of_its_file() -> None:
    disk = CutDisk()
    key = Store("/s", disk, entropy).make_identity()
    disk.names[Path("/s/identity")].data = b"rotten"
    store = Store("/s", disk)
    assert store.identity() == key
    assert "damaged" in store.notices[0]


def test_an_identity_that_cannot_last_is_refused() -> None:
    with pytest.raises(StoreError, match="writable file system"):
        Store("/s", RefusingDisk(fail_at=0, error=errno.EROFS), entropy).make_identity()


FOREIGN = [b"", b"null", b"[]", b'{"version": 2}', b'{"private_key": 7}', b"[" * 100_000, b"\xff"]


@pytest.mark.parametrize("payload", FOREIGN)
def test_an_identity_that_cannot_be_used_is_kept_aside_whatever_follows(payload: bytes) -> None:
    """Both copies hold it, as a later version would have left them."""
    disk = CutDisk()
    record = Store("/s", disk).record("identity")
    raw = Record(Path("/s"), "identity", disk, lambda notice: None)
    raw.write(payload)
    raw.keep_copy()
    assert record.read() is None
    store = Store("/s", disk, entropy)
    assert store.identity() is None
    assert "cannot use" in store.notices[0]
    began = len(disk.moments)
    key = store.make_identity()
    for contents in (c for moment in disk.moments[began:] for c in moment):
        left = [unseal(data) for path, data in contents.items() if path.suffix != ".new"]
        assert payload in left, "lost over a power cut"
    # Nothing that follows touches it, nor does a second one that cannot be used.
    later = Store("/s", disk)
    assert later.make_identity() == key
    raw = Record(Path("/s"), "identity", disk, lambda notice: None)
    raw.write(b"another")
    raw.keep_copy()
    Store("/s", disk, entropy).make_identity()
    kept = {p.name: unseal(i.data) for p, i in disk.names.items() if "unreadable" in p.name}
    assert kept == {"identity.unreadable": payload, "identity.unreadable.2": b"another"}


def test_without_a_place_to_keep_it_an_identity_is_not_written_over() -> None:
    disk = CutDisk()
    for number in range(MAX_KEPT_ASIDE + 1):
        raw = Record(Path("/s"), "identity", disk, lambda notice: None)
        raw.write(b"foreign %d" % number)
        raw.keep_copy()
        before = dict(disk.names)
        if number < MAX_KEPT_ASIDE:
            Store("/s", disk, entropy).make_identity()
    with pytest.raises(StoreError, match="kept aside"):
        Store("/s", disk, entropy).make_identity()
    assert disk.names == before


def test_a_copy_that_can_be_used_is() -> None:
    disk = CutDisk()
    key = Store("/s", disk, entropy).make_identity()
    content = disk.names[Path("/s/identity.previous")].data
    Record(Path("/s"), "identity", disk, lambda notice: None).write(b"{}")
    disk.create(Path("/s/identity.previous"), content, 0o600)
    store = Store("/s", disk)
    assert store.identity() == key
    assert store.record("identity").write(b'{"private_key": "", "more": 1}')
    assert unseal(disk.names[Path("/s/identity.unreadable")].data) == b"{}"


def test_state_goes_on_without_a_disk() -> None:
    store = Store("/s", RefusingDisk(fail_at=0))
    assert not store.raise_floor(5)
    assert store.trouble is not None
    assert "Free some space" in store.trouble.remedy
    assert store.state().timestamp_floor_unix_ns == 5


def test_the_floor_only_rises() -> None:
    disk = CutDisk()
    store = Store("/s", disk)
    for value in (5, 3, 5, 9):
        assert store.raise_floor(value)
    assert store.writes == 2
    assert Store("/s", disk).state().timestamp_floor_unix_ns == 9


def test_the_same_addresses_in_another_order_are_no_change() -> None:
    store = Store("/s", CutDisk())
    store.remember_addresses("a", ("1.1.1.1", "2.2.2.2"))
    store.remember_addresses("a", ("2.2.2.2", "1.1.1.1"))
    store.remember_addresses("a", ())
    assert store.writes == 1
    for n in range(MAX_NAMES + 5):
        store.remember_addresses(f"n{n}", ("1.1.1.1",))
    assert len(store.state().last_good) == MAX_NAMES


names = st.dictionaries(st.text(max_size=5), st.lists(st.text(max_size=5)).map(tuple), max_size=3)


@given(st.builds(State, st.integers(0, 2**63 - 1), names))
def test_a_state_comes_back(state: State) -> None:
    assert parse_state(render_state(state)) == state


@given(
    st.binary()
    | st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.sampled_from(["timestamp_floor_unix_ns", "last_good", "x"]), inner)
        ),
    ).map(lambda v: json.dumps(v).encode())
)
def test_any_other_payload_is_an_incomplete_state(payload: bytes) -> None:
    assert isinstance(parse_state(payload), State)
