"""Cookies, load and floods: what a device under attack answers, and what it refuses."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cext.wireguard.testing import Device, tai64n
from tests.support import noise_reference as reference
from tests.support.wireguard import (
    CONSUMED,
    COOKIE,
    INITIATION,
    MS,
    RESPONSE,
    SECOND,
    START_NS,
    START_UNIX_NS,
    Pair,
    address,
    kind,
    private_key,
    public_key,
)

HOME = address("192.0.2.9", 999)
HOME6 = address("2001:db8::9", 999)


def fake_initiation(number: int, receiver: bytes, cookie: bytes = b"") -> bytes:
    """What anybody can make who knows the public key: only the MACs are right."""
    body = b"\x01\x00\x00\x00" + number.to_bytes(4, "little") + bytes(108)
    return reference.add_macs(body, receiver, cookie)


def loaded(**limits: int) -> Device:
    """A device just after a flood."""
    device = Device(9, **limits)
    device.set_private_key(private_key("ours"))
    device.set_unix_time(START_NS, START_UNIX_NS)
    device.add_peer(public_key("theirs"))
    device.up(START_NS)
    ours = public_key("ours")
    for i in range(40):
        device.prepare(START_NS, fake_initiation(i, ours), address("198.51.100.1", 1 + i))
    device.process_handshakes(START_NS)
    device.transmits(START_NS)
    return device


def cookie_for(device: Device, now_ns: int, source: tuple[bytes, int]) -> bytes:
    """Ask as `source` and open the reply."""
    ask = fake_initiation(7, public_key("ours"))
    device.receive(now_ns, ask, source)
    [(reply, to)] = device.transmits(now_ns)
    assert (kind(reply), len(reply), to) == (COOKIE, 64, source)
    assert reply[4:8] == ask[4:8], "addressed to the sender's index"
    return reference.open_cookie(reply, ask[116:132], public_key("ours"))


def drops_of(device: Device, before: dict[str, int]) -> dict[str, int]:
    return {k: v - before.get(k, 0) for k, v in device.drops().items() if v != before.get(k, 0)}


def test_an_idle_device_asks_nobody_for_a_cookie() -> None:
    device = Device()
    device.set_private_key(private_key("ours"))
    device.up(START_NS)
    for i in range(150):
        device.receive(START_NS + i, fake_initiation(i, public_key("ours")), HOME)
    assert device.transmits(START_NS) == []


@pytest.mark.parametrize(
    ("limits", "messages"),
    [({"handshake_queue": 64}, 8), ({"handshake_queue": 1024, "handshake_rate": 50}, 51)],
)
def test_load_begins_by_queue_or_by_rate_and_ends_a_second_later(
    limits: dict[str, int], messages: int
) -> None:
    device = Device(1, **limits)
    device.set_private_key(private_key("ours"))
    device.up(START_NS)
    ours = public_key("ours")
    for i in range(200):
        device.prepare(START_NS, fake_initiation(i, ours), HOME)
        if "handshake_rate" in limits:
            device.process_handshakes(START_NS)
        if device.transmits(START_NS):
            break
    assert i + 1 in (messages, messages + 1)
    device.process_handshakes(START_NS)
    device.receive(START_NS + 999 * MS, fake_initiation(1, ours), HOME)
    assert len(device.transmits(START_NS + 999 * MS)) == 1, "still under load"
    quiet_ns = START_NS + 999 * MS + 1001 * MS
    device.receive(quiet_ns, fake_initiation(1, ours), HOME)
    assert device.transmits(quiet_ns) == []


@pytest.mark.parametrize("source", [HOME, HOME6])
def test_a_cookie_buys_a_handshake(source: tuple[bytes, int]) -> None:
    device = loaded(handshake_queue=64)
    now_ns = START_NS + MS
    cookie = cookie_for(device, now_ns, source)
    peer = reference.Peer(private_key("theirs"), public_key("ours"))
    device.receive(now_ns, peer.initiation(1, tai64n(START_UNIX_NS), cookie), source)
    [(response, _)] = device.transmits(now_ns)
    assert kind(response) == RESPONSE


COOKIES = [
    # what the cookie was baked for, who uses it, when, whether it is good
    (HOME, HOME, 500 * MS, True),
    (HOME, address("192.0.2.9", 998), 500 * MS, False),  # the port counts
    (HOME, address("192.0.2.8", 999), 500 * MS, False),
    (HOME6, address("2001:db8::8", 999), 500 * MS, False),
    (HOME, HOME, 119 * SECOND, True),
    (HOME, HOME, 120 * SECOND, False),  # the secret changed
]


@pytest.mark.parametrize(("baked", "used", "after_ns", "good"), COOKIES)
def test_a_cookie_is_bound_to_address_port_and_time(
    baked: tuple[bytes, int], used: tuple[bytes, int], after_ns: int, good: bool
) -> None:
    device = loaded(handshake_queue=64, handshake_rate=50)
    cookie = cookie_for(device, START_NS, baked)
    now_ns = START_NS + after_ns
    for i in range(60):  # under load again
        device.prepare(now_ns, fake_initiation(i, public_key("ours")), HOME)
    device.process_handshakes(now_ns)
    device.transmits(now_ns)
    before = device.drops()
    device.receive(now_ns, fake_initiation(5, public_key("ours"), cookie), used)
    # A good one reaches the Diffie-Hellman, which its zeros do not survive.
    expect = "wg_bad_handshake" if good else "wg_bad_mac2"
    assert drops_of(device, before) == {expect: 1}
    assert len(device.transmits(now_ns)) == (0 if good else 1)


def test_with_a_cookie_a_source_has_20_a_second_and_5_at_once() -> None:
    device = loaded(handshake_queue=256, handshake_rate=10)
    cookie = cookie_for(device, START_NS, HOME)
    message = fake_initiation(5, public_key("ours"), cookie)
    before = device.drops()
    passed = [device.prepare(START_NS, message, HOME).verdict for _ in range(10)]
    assert passed.count(CONSUMED) == 5
    assert drops_of(device, before) == {"wg_rate_limited": 5}
    later_ns = START_NS + 500 * MS
    passed = [device.prepare(later_ns, message, HOME).verdict for _ in range(10)]
    assert passed.count(CONSUMED) == 5
    for i in range(40):
        device.prepare(later_ns + i * 50 * MS, message, HOME)


def test_the_queue_is_bounded() -> None:
    device = Device(1, handshake_queue=1, handshake_rate=10**9)
    device.set_private_key(private_key("ours"))
    device.up(START_NS)
    verdicts = [
        device.prepare(START_NS, fake_initiation(i, public_key("ours")), HOME).verdict
        for i in range(3)
    ]
    assert verdicts[0] == CONSUMED
    assert sum(device.drops().values()) == 2
    assert device.process_handshakes(START_NS, 0) == 1
    assert device.process_handshakes(START_NS, 5) == 0


def test_a_full_outbox_stops_processing_until_it_is_drained() -> None:
    device = Device(1, outbox=1)
    device.set_private_key(private_key("ours"))
    device.set_unix_time(START_NS, START_UNIX_NS)
    device.up(START_NS)
    for name in ("a", "b"):
        device.add_peer(public_key(name))
        peer = reference.Peer(private_key(name), public_key("ours"))
        device.prepare(START_NS, peer.initiation(1, tai64n(START_UNIX_NS)), HOME)
    assert device.process_handshakes(START_NS) == 1
    assert len(device.transmits(START_NS)) == 1
    assert device.process_handshakes(START_NS) == 0
    assert len(device.transmits(START_NS)) == 1


def test_a_flood_costs_cookies_and_no_memory() -> None:
    device = loaded(handshake_queue=256)
    before = device.memory_bytes()
    cookies = 0
    for i in range(5000):
        now_ns = START_NS + i * 100_000  # 10,000 a second
        source = address(f"203.0.{i % 250}.{i // 250 % 250}", 1024 + i)
        device.receive(now_ns, fake_initiation(i, public_key("ours")), source)
        cookies += sum(kind(message) == COOKIE for message, _ in device.transmits(now_ns))
    assert cookies >= 4950 - 200, "all but the burst that the rate allows"
    assert device.memory_bytes() == before


def test_a_flood_keeps_load_up_and_then_99_percent_get_cookies() -> None:
    device = loaded(handshake_queue=256)
    cookies = 0
    for i in range(12000):
        now_ns = START_NS + i * 100_000
        device.receive(now_ns, fake_initiation(i, public_key("ours")), HOME)
        cookies += len(device.transmits(now_ns))
    assert cookies >= 0.99 * 12000


def test_during_a_flood_a_peer_gets_in_on_its_second_try() -> None:
    """Both sides ours: cookie, then MAC2 with the repetition after 5 s."""
    pair = Pair(handshake_rate=20)
    number = 0

    def flood() -> None:
        nonlocal number
        for _ in range(40):
            number += 1
            pair.bob.device.receive(
                pair.now_ns,
                fake_initiation(number, pair.bob.public),
                address("198.51.100.7", 1024 + number),
            )
        pair.bob.device.transmits(pair.now_ns)

    flood()
    pair.send(pair.alice, b"through")
    assert pair.kinds(pair.alice) == [INITIATION]
    assert pair.kinds(pair.bob) == [COOKIE]
    assert pair.status(pair.alice)["handshake_attempts"] == 1
    for _ in range(60):
        pair.run(100 * MS)
        flood()
    assert pair.bob.received[0].endswith(b"through")
    repeated = pair.alice.sent[1][1]
    assert kind(repeated) == INITIATION
    assert repeated[132:] != bytes(16)


def test_a_cookie_is_used_for_115_seconds() -> None:
    pair = Pair()
    pair.network = lambda *_: []
    device = pair.alice.device
    device.initiate(pair.now_ns, pair.bob.public)
    [(first, _)] = device.transmits(pair.now_ns)
    sender = int.from_bytes(first[4:8], "little")
    reply = reference.seal_cookie(sender, b"c" * 16, first[116:132], pair.bob.public)
    got_ns = pair.now_ns
    device.receive(got_ns, reply, pair.bob.endpoint)
    with_mac2 = []
    for _ in range(120):
        pair.run(SECOND)
        device.initiate(pair.now_ns, pair.bob.public)
        for message, _ in device.transmits(pair.now_ns):
            expected = reference.blake(message[:132], b"c" * 16, 16)
            assert message[132:] in (expected, bytes(16))
            with_mac2.append((pair.now_ns - got_ns, message[132:] == expected))
    with_mac2 += [
        (t - got_ns, m[132:] != bytes(16)) for t, m in pair.alice.sent if kind(m) == INITIATION
    ]
    assert with_mac2
    assert all(used == (age_ns < 115 * SECOND) for age_ns, used in with_mac2)


FORGED_COOKIES = ["mac1", "tag", "nonce", "index", "twice", "unasked"]


@pytest.mark.parametrize("what", FORGED_COOKIES)
def test_a_cookie_reply_that_does_not_answer_our_message_is_refused(what: str) -> None:
    pair = Pair()
    device = pair.alice.device
    device.initiate(pair.now_ns, pair.bob.public)
    [(first, _)] = device.transmits(pair.now_ns)
    sender = int.from_bytes(first[4:8], "little")
    mac1 = bytes(16) if what == "mac1" else first[116:132]
    reply = bytearray(reference.seal_cookie(sender, b"c" * 16, mac1, pair.bob.public))
    at = {"tag": 63, "nonce": 8, "index": 4}.get(what)
    if at is not None:
        reply[at] ^= 1
    reason = "wg_unknown_index" if what == "index" else "wg_bad_cookie"
    if what == "twice":
        device.receive(pair.now_ns, bytes(reply), pair.bob.endpoint)
    if what == "unasked":
        device = pair.bob.device
        reason = "wg_unknown_index"
    device.receive(pair.now_ns, bytes(reply), pair.bob.endpoint)
    assert device.drops() == {reason: 1}
    if what != "twice":
        pair.network = lambda *_: []
        pair.run(6 * SECOND)
        assert all(m[132:] == bytes(16) for _, m in pair.alice.sent if kind(m) == INITIATION)


def test_a_response_under_load_needs_a_cookie_too_and_only_if_it_was_asked_for() -> None:
    device = loaded(handshake_queue=64)
    stray = reference.add_macs(b"\x02\x00\x00\x00" + bytes(56), public_key("ours"))
    device.receive(START_NS, stray, HOME)
    assert device.transmits(START_NS) == []
    assert device.drops()["wg_unknown_index"] == 1

    device.set_endpoint(START_NS, public_key("theirs"), HOME)
    device.initiate(START_NS, public_key("theirs"))
    [(initiation, _)] = device.transmits(START_NS)
    peer = reference.Peer(private_key("theirs"), public_key("ours"))
    peer.consume_initiation(initiation)
    response, _ = peer.response(3)
    device.receive(START_NS, response, HOME)
    [(reply, _)] = device.transmits(START_NS)
    cookie = reference.open_cookie(reply, response[60:76], public_key("ours"))
    again = reference.add_macs(response[:60], public_key("ours"), cookie)
    device.receive(START_NS, again, HOME)
    assert device.status(START_NS, public_key("theirs"))["has_session"]


@settings(max_examples=50, deadline=None)
@given(st.binary(min_size=64, max_size=64), st.binary(min_size=112, max_size=112))
def test_under_load_every_answer_is_shorter_than_its_question(head: bytes, tail: bytes) -> None:
    device = loaded(handshake_queue=8)
    for message in (b"\x03\0\0\0" + head[4:], b"\x01\0\0\0" + tail, b"\x02\0\0\0" + tail[:56]):
        signed = reference.add_macs(message, public_key("ours"))
        device.receive(START_NS, signed, HOME)
        assert sum(len(m) for m, _ in device.transmits(START_NS)) < len(signed)
