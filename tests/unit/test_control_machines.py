"""The control plane's pure machines: backoff, token schedule, trial, rotation, certificates."""

from __future__ import annotations

import contextlib
import random
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.control_peers import authority
from wantastic.control import certificate, token
from wantastic.control.backoff import ENROL, MAX_RETRY_AFTER_S, RECONNECT, Backoff
from wantastic.control.rotation import (
    Journal,
    Register,
    Report,
    Rotation,
    RotationState,
    Save,
    Step,
    Use,
)
from wantastic.control.trial import Keep, Revert, Trial, TrialState

# ---- Backoff ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "failures", "retry_after_s", "low_s", "high_s"),
    [
        (1, 0, 0, 0, 2),
        (2, 1, 0, 0, 4),
        (3, 6, 0, 0, 128),
        (4, 8, 0, 0, 300),
        (5, 100_000, 0, 0, 300),
        (6, 0, 60, 60, 75),
        (7, 0, -5, 0, 2),
        (8, 0, 1e12, MAX_RETRY_AFTER_S, MAX_RETRY_AFTER_S * 1.25),
    ],
)
def test_backoff(
    row: int, failures: int, retry_after_s: float, low_s: float, high_s: float
) -> None:
    for draw in (0.0, 0.5, 0.999999):
        backoff = Backoff(ENROL, lambda draw=draw: draw)
        backoff.failures = failures
        assert low_s <= backoff.next_s(retry_after_s) <= high_s
        assert backoff.next_s() >= 0


def test_a_thousand_devices_come_back_spread_out() -> None:
    rng = random.Random(1)
    waits = sorted(Backoff(RECONNECT, rng.random).next_s() for _ in range(1000))
    seconds = [int(w) for w in waits]
    busiest = max(seconds.count(s) for s in range(30))
    assert waits[-1] > 28
    assert busiest < 65  # 33 on average


# ---- Token --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "terms", "refresh_time_s", "interval_s"),
    [
        (1, token.Terms(), 86400, 86400),
        (2, token.Terms(lifetime_s=3600), 86400, 2400),
        (3, token.Terms(lifetime_s=3600, refresh_after_s=600), 86400, 600),
        (4, token.Terms(lifetime_s=90 * 86400), 86400, 86400),
        (5, token.Terms(lifetime_s=3), 86400, 2),
        (6, token.Terms(refresh_after_s=1), 86400, 30),
        (7, token.Terms(), 0, 0),
        (8, token.Terms(lifetime_s=300), 0, 200),
    ],
)
def test_token_interval(
    row: int, terms: token.Terms, refresh_time_s: float, interval_s: float
) -> None:
    assert token.interval_s(terms, refresh_time_s) == interval_s


@given(
    st.integers(0, 10**7),
    st.integers(0, 10**7),
    st.floats(0, 1e7),
    st.floats(0, 0.999),
    st.floats(1, 4e9),
    st.floats(1, 4e9),
)
def test_token_refresh_comes_before_expiry_whatever_the_clock(
    lifetime: int, hint: int, refresh: float, draw: float, saved: float, now: float
) -> None:
    terms = token.Terms(lifetime, hint)
    fresh = token.refresh_in_s(terms, refresh, lambda: draw)
    again = token.refresh_in_s(terms, refresh, lambda: draw, saved_unix_s=saved, now_unix_s=now)
    assert (fresh is None) == (again is None)
    if fresh is not None and again is not None:
        assert fresh > 0
        assert 0 <= again <= fresh + 1e-3
        if lifetime:
            assert fresh <= lifetime * 2 / 3 + 1e-6


# ---- Trial --------------------------------------------------------------------------


def test_trial_table() -> None:
    trial: Trial[str] = Trial(proof_s=45)
    # 1: nothing to go back to; 2: nothing at risk
    assert trial.begin(0, "a", None, risky=True) == Keep("a")
    assert trial.begin(0, "b", "a", risky=False) == Keep("b")
    assert trial.poll_at() is None
    # 3: proved in time
    assert trial.begin(10, "c", "b", risky=True) is None
    assert trial.poll_at() == 55
    assert trial.tick(54.9) is None
    assert trial.proof() == Keep("c")
    assert trial.tick(100) is None
    # 4: not proved
    assert trial.begin(200, "d", "c", risky=True) is None
    assert trial.tick(245) == Revert("c", "d", 45)
    assert trial.proof() is None
    # 5: a newer one during the trial falls back to the proved one, harmless or not
    assert trial.begin(300, "e", "c", risky=True) is None
    assert trial.begin(340, "f", "e", risky=False) is None
    assert trial.tick(350) is None
    assert trial.tick(385) == Revert("c", "f", 45)


@given(st.lists(st.tuples(st.sampled_from(["begin", "proof", "tick"]), st.booleans())))
def test_trial_never_ends_on_something_unproved(steps: list[tuple[str, bool]]) -> None:
    trial: Trial[int] = Trial(proof_s=10)
    now, running, proved = 0.0, 0, 0
    for number, (step, flag) in enumerate(steps, 1):
        now += 4
        outcome: Keep[int] | Revert[int] | None = None
        if step == "begin":
            fallback = running if trial.state is TrialState.IDLE else None
            outcome = trial.begin(now, number, fallback, risky=flag)
            running = number
        elif step == "proof":
            outcome = trial.proof()
        outcome = outcome or trial.tick(now)
        if isinstance(outcome, Keep):
            assert outcome.value == running
            proved = running
        elif isinstance(outcome, Revert):
            assert (outcome.value, outcome.rejected) == (proved, running)
            running = proved
        assert (trial.state is TrialState.IDLE) == (running == proved)


# ---- Rotation -----------------------------------------------------------------------

OLD, NEW = bytes([1]) * 32, bytes([2]) * 32


def test_rotation_that_works() -> None:
    machine = Rotation(Journal(OLD))
    assert machine.start(0) == (Use(OLD),)
    assert machine.order(NEW) == (Save(Journal(OLD, NEW)), Register(OLD, NEW))
    assert machine.order(NEW) == ()
    assert machine.handshake() == ()
    assert machine.registered(5) == (Use(NEW),)
    assert machine.tick(64) == ()
    assert machine.handshake() == (Save(Journal(NEW)), Report(NEW, failed=False))
    assert machine.state is RotationState.STEADY
    assert machine.tick(1e9) == ()


def test_rotation_that_fails_goes_back_and_keeps_both_until_the_old_key_is_proved() -> None:
    machine = Rotation(Journal(OLD))
    machine.start(0)
    machine.order(NEW)
    machine.registered(0)
    assert machine.tick(60) == (Use(OLD), Report(OLD, failed=True))
    assert machine.journal == Journal(OLD, NEW)
    assert machine.handshake() == (Save(Journal(OLD)), Report(OLD, failed=True))


def test_rotation_refused_by_the_server() -> None:
    machine = Rotation(Journal(OLD))
    machine.order(NEW)
    assert machine.refused() == (Save(Journal(OLD)),)


@given(st.data())
def test_rotation_survives_a_power_cut_at_every_step(data: st.DataObject) -> None:
    """A server that keeps the contract, cuts at any step: a working key is always on flash."""
    flash = Journal(OLD)
    server_keys = {OLD}
    pending: tuple[bytes, bytes] | None = None
    machine = Rotation(flash)
    now = 0.0
    queue: list[Step] = list(machine.start(now))
    in_use = OLD
    fresh = 10
    for _ in range(data.draw(st.integers(1, 60))):
        assert server_keys & {flash.current, flash.coming}
        now += 61
        act = data.draw(st.sampled_from(["step", "cut", "order", "shake", "lost", "tick"]))
        if act == "cut":
            machine = Rotation(flash)
            queue = list(machine.start(now))
        elif act == "step" and queue:
            match queue.pop(0):
                case Save(journal):
                    flash = journal
                case Use(key):
                    in_use = key
                case Register(current, coming):
                    server_keys, pending = {current, coming}, (current, coming)
                    if data.draw(st.booleans()):  # else the answer is lost
                        queue += machine.registered(now)
                case Report(key):
                    if pending and key in pending:
                        server_keys = {key}
                        pending = None
        elif act == "order":
            fresh += 1
            queue += machine.order(bytes([fresh]) * 32)
        elif act == "shake" and not queue and in_use in server_keys:
            if pending and in_use == pending[1]:
                server_keys, pending = {in_use}, None
            assert in_use == machine.in_use
            queue += machine.handshake()
        elif act == "tick" and not queue:
            queue += machine.tick(now)
    # Left alone with a working network, every history ends with one key that works.
    machine = Rotation(flash)
    queue = list(machine.start(now))
    for _ in range(20):
        while queue:
            step = queue.pop(0)
            if isinstance(step, Save):
                flash = step.journal
            elif isinstance(step, Use):
                in_use = step.key
        now += 61
        queue += machine.handshake() if in_use in server_keys else machine.tick(now)
    assert machine.state is RotationState.STEADY
    assert flash.coming is None
    assert flash.current in server_keys


@given(st.binary(max_size=200))
def test_journal_reads_anything(data: bytes) -> None:
    Journal.parse(data)


def test_journal_round_trip() -> None:
    for journal in (Journal(OLD), Journal(OLD, NEW)):
        assert Journal.parse(journal.render()) == journal
        assert "AQEB" not in repr(journal)


# ---- Certificates -------------------------------------------------------------------


def test_request_is_what_an_authority_signs_and_the_pair_fits() -> None:
    key = certificate.generate_key()
    request = x509.load_der_x509_csr(certificate.make_request(key, "router-å-1"))
    assert request.is_signature_valid
    assert request.subject.rfc4514_string() == "CN=router-å-1"
    der = authority().sign(certificate.make_request(key, "router-1"))
    parsed = x509.load_der_x509_certificate(der)
    loaded = serialization.load_pem_private_key(
        certificate.Certificate(key, (der,)).key_pem, password=None
    )
    assert loaded.public_key() == parsed.public_key()  # type: ignore[union-attr]
    begins, ends = certificate.validity(der)
    assert begins == parsed.not_valid_before_utc.timestamp()
    assert ends == parsed.not_valid_after_utc.timestamp()


SIGNER = ec.generate_private_key(ec.SECP256R1())


@settings(max_examples=50)
@given(st.datetimes(datetime(1950, 1, 1), datetime(2200, 1, 1)))
def test_both_forms_of_time_are_read(moment: datetime) -> None:
    moment = moment.replace(microsecond=0, tzinfo=UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "d")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).serial_number(1)
    builder = builder.public_key(SIGNER.public_key())
    builder = builder.not_valid_before(moment).not_valid_after(moment + timedelta(days=400))
    der = builder.sign(SIGNER, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
    begins = moment.timestamp()
    assert certificate.validity(der) == (begins, begins + 400 * 86400)


def test_renewal_is_due_after_two_thirds() -> None:
    hour = timedelta(hours=1)
    request = certificate.make_request(certificate.generate_key(), "d")
    chain = (authority().sign(request, -hour, 2 * hour),)
    begins, ends = certificate.validity(chain[0])
    assert not certificate.renewal_is_due(chain, begins + 7100)
    assert certificate.renewal_is_due(chain, begins + 7300)
    assert certificate.renewal_is_due((), 0)
    assert not certificate.is_over(chain, ends - 1)
    assert certificate.is_over(chain, ends)
    certificate.check_chain(chain)


@given(st.binary(max_size=300))
def test_a_certificate_that_is_none_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        certificate.check_chain((data,))


@given(st.data())
def test_damaged_certificates_are_value_errors_at_worst(data: st.DataObject) -> None:
    der = bytearray(certificate_der())
    for _ in range(data.draw(st.integers(1, 8))):
        der[data.draw(st.integers(0, len(der) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ValueError):
        certificate.validity(bytes(der))


CACHE: list[bytes] = []


def certificate_der() -> bytes:
    if not CACHE:
        CACHE.append(authority().sign(certificate.make_request(certificate.generate_key(), "d")))
    return CACHE[0]
