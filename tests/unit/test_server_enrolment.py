"""Enrolment on SQLite: who may register what, and what many at once may not break."""

from __future__ import annotations

import base64
import ipaddress
import secrets
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wantastic.server import addresses, devices, enrolment, tenants
from wantastic.server.database import Database
from wantastic.server.enrolment import Registration
from wantastic.server.records import DeviceStatus, RefusalCode, Refused, Tenant
from wantastic.server.tokens import PlainEnrolmentToken, parse_enrolment_token


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now_s = 1_700_000_000

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def database(tmp_path: Path, clock: Clock) -> Iterator[Database]:
    database = Database.open(str(tmp_path / "server.db"), clock)
    database.migrate()
    yield database
    database.close()


@pytest.fixture
def tenant(database: Database) -> Tenant:
    with database.write() as tx:
        return tenants.create(tx, "acme")


def key() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()


def token(
    database: Database,
    tenant: Tenant,
    max_uses: int | None = 1,
    lifetime_s: int = 3600,
    device_id: str = "",
) -> PlainEnrolmentToken:
    with database.write() as tx:
        plain, _ = enrolment.create_token(
            tx, tenant, max_uses=max_uses, lifetime_s=lifetime_s, device_id=device_id
        )
    return plain


def refusal(action: Callable[[], object]) -> RefusalCode:
    with pytest.raises(Refused) as caught:
        action()
    return caught.value.code


def register(
    database: Database, plain: PlainEnrolmentToken, device_id: str, public_key: str, **more: str
) -> devices.Device:
    with database.write() as tx:
        return enrolment.register_with_token(tx, plain, Registration(device_id, public_key, **more))


def test_a_hundred_redemptions_of_a_one_off_token_make_one_device(
    database: Database, tenant: Tenant
) -> None:
    plain = token(database, tenant)
    start = threading.Barrier(20)

    def redeem(number: int) -> RefusalCode | None:
        if number < 20:
            start.wait()
        try:
            register(database, plain, f"device-{number}", key())
        except Refused as refused:
            return refused.code
        return None

    with ThreadPoolExecutor(20) as pool:
        outcomes = list(pool.map(redeem, range(100)))
    assert outcomes.count(None) == 1
    assert outcomes.count(RefusalCode.TOKEN_USED) == 99
    with database.read() as tx:
        assert len(list(devices.iterate(tx))) == 1
        assert enrolment.list_tokens(tx)[0].uses == 1


def test_a_revoked_token_does_not_answer_again(database: Database, tenant: Tenant) -> None:
    """Not even to the device that it let in, though that one stays."""
    plain, public_key = token(database, tenant), key()
    made = register(database, plain, "one", public_key)
    assert register(database, plain, "one", public_key) == made
    with database.write() as tx:
        enrolment.revoke_token(tx, plain.id)
    refused = refusal(lambda: register(database, plain, "one", public_key))
    assert refused is RefusalCode.TOKEN_REVOKED
    with database.read() as tx:
        assert [d.pk for d in devices.iterate(tx)] == [made.pk]


def test_a_token_for_five_lets_in_five_and_addresses_differ(
    database: Database, tenant: Tenant
) -> None:
    plain = token(database, tenant, max_uses=5)

    def redeem(number: int) -> bool:
        try:
            register(database, plain, f"d{number}", key())
        except Refused:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(redeem, range(40))) == 5
    with database.read() as tx:
        made = list(devices.iterate(tx))
    assert len({d.ipv4 for d in made}) == len({d.ipv6 for d in made}) == 5
    for device in made:
        assert ipaddress.ip_address(device.ipv4) in ipaddress.ip_network(tenant.ipv4_pool)
        assert ipaddress.ip_address(device.ipv6) in ipaddress.ip_network(tenant.ipv6_pool)


def test_a_lost_answer_does_not_cost_the_token_until_the_device_was_heard(
    database: Database, tenant: Tenant
) -> None:
    plain, public_key = token(database, tenant), key()
    first = register(database, plain, "router", public_key)
    again = register(database, plain, "router", public_key)
    assert (again.pk, again.ipv4, again.generation) == (first.pk, first.ipv4, first.generation)
    with database.write() as tx:
        devices.report(tx, first.pk, enrolment_open=False)
    assert refusal(lambda: register(database, plain, "router", public_key)) is (
        RefusalCode.TOKEN_USED
    )


REFUSALS: list[tuple[int, str, str, RefusalCode]] = [
    # number, device_id, public key, what is answered
    (1, "", key(), RefusalCode.INVALID_REQUEST),
    (2, "a b", key(), RefusalCode.INVALID_REQUEST),
    (3, "x" * 129, key(), RefusalCode.INVALID_REQUEST),
    (4, "é", key(), RefusalCode.INVALID_REQUEST),
    (5, "router", "", RefusalCode.INVALID_REQUEST),
    (6, "router", key()[:-1], RefusalCode.INVALID_REQUEST),
    (7, "router", base64.b64encode(bytes(32)).decode(), RefusalCode.INVALID_REQUEST),
    (8, "router", base64.b64encode(b"1" * 31).decode(), RefusalCode.INVALID_REQUEST),
    (9, "router", base64.b64encode(b"1" * 33).decode(), RefusalCode.INVALID_REQUEST),
    (10, "router", key()[:-2] + "\n=", RefusalCode.INVALID_REQUEST),
]


@pytest.mark.parametrize(("number", "device_id", "public_key", "code"), REFUSALS)
def test_fields_that_cannot_be_right_use_no_token(
    database: Database,
    tenant: Tenant,
    number: int,
    device_id: str,
    public_key: str,
    code: RefusalCode,
) -> None:
    plain = token(database, tenant)
    assert refusal(lambda: register(database, plain, device_id, public_key)) is code, number
    register(database, plain, "router", key())


def test_tokens_that_are_wrong_expired_revoked_or_of_another_tenant(
    database: Database, tenant: Tenant, clock: Clock
) -> None:
    plain = token(database, tenant)
    wrong = PlainEnrolmentToken(plain.id, plain.secret[:-1] + "!")
    unknown = PlainEnrolmentToken("a" * 12, plain.secret)
    for bad in (wrong, unknown):
        assert refusal(lambda bad=bad: register(database, bad, "r", key())) is (
            RefusalCode.TOKEN_INVALID
        )
    code = refusal(lambda: register(database, plain, "r", key(), tenant="someone-else"))
    assert code is RefusalCode.TENANT_UNKNOWN
    clock.now_s += 3600
    assert refusal(lambda: register(database, plain, "r", key())) is RefusalCode.TOKEN_EXPIRED
    revoked = token(database, tenant, max_uses=None)
    register(database, revoked, "r1", key(), tenant="acme")
    with database.write() as tx:
        enrolment.revoke_token(tx, revoked.id)
    assert refusal(lambda: register(database, revoked, "r2", key())) is RefusalCode.TOKEN_REVOKED


def test_a_device_id_is_taken_over_only_with_a_token_bound_to_it(
    database: Database, tenant: Tenant
) -> None:
    anybody = token(database, tenant, max_uses=None)
    first = register(database, anybody, "router", key())
    assert refusal(lambda: register(database, anybody, "router", key())) is (
        RefusalCode.DEVICE_ID_IN_USE
    )
    assert refusal(lambda: register(database, anybody, "clone", first.public_key)) is (
        RefusalCode.KEY_IN_USE
    )
    bound = token(database, tenant, device_id="router")
    assert refusal(lambda: register(database, bound, "other", key())) is (
        RefusalCode.DEVICE_ID_IN_USE
    )
    new_key = key()
    second = register(database, bound, "router", new_key)
    assert (second.pk, second.ipv4, second.public_key) == (first.pk, first.ipv4, new_key)
    assert second.generation != first.generation


def test_a_key_is_rotated_by_offer_and_promotion_or_rolled_back(
    database: Database, tenant: Tenant, clock: Clock
) -> None:
    plain, old, new = token(database, tenant), key(), key()
    device = register(database, plain, "router", old)
    with database.write() as tx:
        code = refusal(
            lambda: enrolment.register_with_device(tx, device, Registration("router", new))
        )
    assert code is RefusalCode.INVALID_REQUEST
    wanted = Registration("router", new, replaces_public_key=old)
    with database.write() as tx:
        offered = enrolment.register_with_device(tx, device, wanted)
    assert (offered.public_key, offered.next_public_key) == (old, new)
    other = token(database, tenant)
    assert refusal(lambda: register(database, other, "thief", new)) is RefusalCode.KEY_IN_USE
    with database.write() as tx:
        assert not devices.promote_key(tx, device.pk, key())
        assert devices.promote_key(tx, device.pk, new)
        promoted = devices.by_pk(tx, device.pk)
    assert promoted is not None
    assert (promoted.public_key, promoted.next_public_key) == (new, None)
    with database.write() as tx:
        enrolment.register_with_device(
            tx, promoted, Registration("router", old, replaces_public_key=new)
        )
    with database.write() as tx:
        assert devices.drop_stale_rotations(tx) == 0
    clock.now_s += devices.ROTATION_LIMIT_S
    with database.write() as tx:
        assert devices.drop_stale_rotations(tx) == 1
        rolled_back = devices.by_pk(tx, device.pk)
    assert rolled_back is not None
    assert (rolled_back.public_key, rolled_back.next_public_key) == (new, None)


def test_a_small_range_gives_every_address_once_and_the_longest_unused_again(
    database: Database, clock: Clock
) -> None:
    with database.write() as tx:
        small = tenants.create(tx, "small", ipv4_pool="192.0.2.0/29", ipv6_pool="fd00:9::/64")
    plain = token(database, small, max_uses=None)
    made = [register(database, plain, f"d{n}", key()) for n in range(5)]
    assert [d.ipv4 for d in made] == [f"192.0.2.{n}" for n in range(2, 7)]
    assert refusal(lambda: register(database, plain, "late", key())) is RefusalCode.NO_ADDRESS
    for number in (3, 1):
        clock.now_s += 10
        with database.write() as tx:
            devices.remove(tx, made[number])
    assert register(database, plain, "x", key()).ipv4 == made[3].ipv4
    assert register(database, plain, "y", key()).ipv4 == made[1].ipv4


def test_a_tenant_has_no_more_devices_than_it_may_have(database: Database) -> None:
    with database.write() as tx:
        small = tenants.create(tx, "small", max_devices=3)
    plain = token(database, small, max_uses=None)

    def code(number: int) -> RefusalCode | None:
        try:
            register(database, plain, f"d{number}", key())
        except Refused as refused:
            return refused.code
        return None

    with ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(code, range(20)))
    assert codes.count(None) == 3
    assert codes.count(RefusalCode.DEVICE_LIMIT) == 17
    with database.read() as tx:
        assert enrolment.list_tokens(tx)[0].uses == 3
    with database.write() as tx:
        devices.remove(tx, next(devices.iterate(tx)))
    assert code(99) is None


def test_pending_devices_wait_and_numbers_are_never_given_twice(database: Database) -> None:
    with database.write() as tx:
        strict = tenants.create(tx, "strict", approval_required=True)
    plain = token(database, strict, max_uses=None)
    first = register(database, plain, "a", key())
    assert first.status is DeviceStatus.PENDING
    with database.write() as tx:
        assert [d.pk for d in devices.pending(tx)] == [first.pk]
        devices.approve(tx, first)
        assert devices.pending(tx) == []
        devices.remove(tx, first)
    second = register(database, plain, "a", key())
    assert second.pk > first.pk


def test_changes_are_numbered_without_gaps_and_pruned(database: Database, clock: Clock) -> None:
    with database.write() as tx:
        tenant = tenants.create(tx, "acme")
    plain = token(database, tenant, max_uses=None)
    changes, reached, complete = database.changes_after(0)
    start = reached
    assert complete
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: register(database, plain, f"d{n}", key()), range(30)))
    changes, reached, complete = database.changes_after(start)
    assert [c.revision for c in changes] == list(range(start + 1, start + 31))
    assert (reached, complete) == (start + 30, True)
    clock.now_s += 100
    register(database, plain, "later", key())
    database.prune_changes(before_s=clock.now_s)
    assert database.changes_after(start)[2] is False
    changes, reached, complete = database.changes_after(start + 30)
    assert [c.revision for c in changes] == [start + 31]
    assert complete


def test_ranges_that_overlap_or_have_no_room_are_refused(database: Database) -> None:
    with database.write() as tx:
        tenants.create(tx, "one", ipv4_pool="10.1.0.0/16", ipv6_pool="fd00:1::/64")

    def create(ipv4: str, ipv6: str) -> None:
        with database.write() as tx:
            tenants.create(tx, "two", ipv4_pool=ipv4, ipv6_pool=ipv6)

    for pools in [
        ("10.1.2.0/24", "fd00:2::/64"),
        ("10.2.0.0/16", "fd00:1::/80"),
        ("10.2.0.1/16", "fd00:2::/64"),
        ("10.2.0.0/31", "fd00:2::/64"),
        ("fd00:2::/64", "10.2.0.0/16"),
    ]:
        assert refusal(partial(create, *pools)) is RefusalCode.INVALID_REQUEST, pools


@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(16, 30),
    st.lists(st.integers(2, 2**16), min_size=1, max_size=20),
)
def test_indices_and_addresses_match_one_to_one(base: int, prefix: int, indices: list[int]) -> None:
    ipv4 = ipaddress.IPv4Network((base, prefix), strict=False)
    pools = addresses.Pools(ipv4, ipaddress.IPv6Network("fd00::/64"))
    seen: dict[tuple[str, str], int] = {}
    for index in indices:
        if index >= pools.end_index:
            with pytest.raises(ValueError, match="outside"):
                pools.at(index)
            continue
        pair = pools.at(index)
        assert seen.setdefault(pair, index) == index
        assert int(ipaddress.ip_address(pair[0])) == int(ipv4.network_address) + index
        assert ipaddress.ip_address(pair[0]) != ipv4.broadcast_address


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=100))
def test_text_that_is_no_enrolment_token_is_told_apart(text: str) -> None:
    parsed = parse_enrolment_token(text)
    assert parsed is None or parsed.text == text
    parsed = parse_enrolment_token("wte_" + text)
    assert parsed is None or parsed.text == "wte_" + text
