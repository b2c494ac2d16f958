"""The certificate authority: client certificates for devices, one for the server itself.

A P-256 key made on first use, sealed in the database, so that every process signs for
the same root. Device certificates live for a month and are renewed with the token, so
there is no revocation list: a removed device's token is refused whatever it presents.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from sqlalchemy import insert, select

from wantastic.server import schema
from wantastic.server.database import Transaction
from wantastic.server.keyring import Keyring
from wantastic.server.records import Device, RefusalCode, Refused

SEALED_NAME = "authority"
AUTHORITY_DAYS = 3650
DEVICE_DAYS = 30
SERVER_DAYS = 365
# Devices whose clock is a day behind still take a new certificate for valid.
BACKDATED = datetime.timedelta(days=1)
MAX_REQUEST_BYTES = 16_384
DEVICE_URI = "urn:wantastic:device:"


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """What a TLS listener needs, as PEM."""

    chain: bytes
    private_key: bytes

    def __repr__(self) -> str:
        return "ServerCertificate()"


class Authority:
    """Signs certificates. Immutable, so threads share it."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self._key = key
        self._certificate = certificate

    @classmethod
    def open(cls, transaction: Transaction, keyring: Keyring) -> Authority:
        """Read the authority of this database, or make it. Takes a write transaction."""
        table = schema.sealed
        stored = transaction.connection.execute(
            select(table.c.value).where(table.c.name == SEALED_NAME)
        ).scalar()
        if stored is not None:
            pem = keyring.unseal(SEALED_NAME, stored)
            key = serialization.load_pem_private_key(pem, None)
            assert isinstance(key, ec.EllipticCurvePrivateKey)
            return cls(key, x509.load_pem_x509_certificate(pem))
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _self_signed(key, transaction.now_s)
        pem = _key_pem(key) + certificate.public_bytes(serialization.Encoding.PEM)
        transaction.connection.execute(
            insert(table).values(name=SEALED_NAME, value=keyring.seal(SEALED_NAME, pem))
        )
        return cls(key, certificate)

    @property
    def root_pem(self) -> bytes:
        """What devices pin, and what the mTLS listener trusts."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def sign_device(self, request_der: bytes, device: Device, now_s: int) -> list[bytes]:
        """Answer a device's PKCS#10 request; the chain as DER, without the root.

        Of the request only the key is taken: the name is what the server knows."""
        key = _requested_key(request_der)
        builder = self._builder(key, now_s, DEVICE_DAYS).subject_name(
            x509.Name(
                [
                    x509.NameAttribute(NameOID.ORGANIZATION_NAME, device.tenant_id),
                    x509.NameAttribute(NameOID.COMMON_NAME, device.device_id[:64]),
                ]
            )
        )
        names = [x509.UniformResourceIdentifier(f"{DEVICE_URI}{device.pk}")]
        usage = ExtendedKeyUsageOID.CLIENT_AUTH
        return [self._finish(builder, names, usage).public_bytes(serialization.Encoding.DER)]

    def sign_server(self, hosts: Sequence[str], now_s: int) -> ServerCertificate:
        """Make a certificate for this server under some host names or addresses."""
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = []
        for host in hosts:
            try:
                names.append(x509.IPAddress(ipaddress.ip_address(host)))
            except ValueError:
                names.append(x509.DNSName(host))
        builder = self._builder(key.public_key(), now_s, SERVER_DAYS).subject_name(
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0][:64])])
        )
        certificate = self._finish(builder, names, ExtendedKeyUsageOID.SERVER_AUTH)
        return ServerCertificate(
            certificate.public_bytes(serialization.Encoding.PEM), _key_pem(key)
        )

    def _builder(
        self,
        key: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey,
        now_s: int,
        days: int,
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.fromtimestamp(now_s, datetime.UTC)
        return (
            x509.CertificateBuilder()
            .issuer_name(self._certificate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATED)
            .not_valid_after(now + datetime.timedelta(days=days))
        )

    def _finish(
        self,
        builder: x509.CertificateBuilder,
        names: Sequence[x509.GeneralName],
        usage: x509.ObjectIdentifier,
    ) -> x509.Certificate:
        return (
            builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )


def device_pk_of(names: Iterable[bytes]) -> int | None:
    """Return the device number among a verified certificate's alternative names."""
    for name in names:
        text = name.decode("ascii", "replace")
        if text.startswith(DEVICE_URI) and text[len(DEVICE_URI) :].isdecimal():
            return int(text[len(DEVICE_URI) :])
    return None


def _requested_key(
    request_der: bytes,
) -> ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey:
    if len(request_der) > MAX_REQUEST_BYTES:
        raise _bad_request("it is too large")
    try:
        request = x509.load_der_x509_csr(request_der)
        key = request.public_key()
        signed = request.is_signature_valid
    except (ValueError, UnsupportedAlgorithm, InvalidSignature):
        raise _bad_request("it cannot be read as DER") from None
    if not signed:
        raise _bad_request("its signature does not belong to its key")
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in ("secp256r1", "secp384r1"):
        return key
    if isinstance(key, rsa.RSAPublicKey) and 2048 <= key.key_size <= 4096:
        return key
    raise _bad_request("its key is neither P-256, P-384, Ed25519 nor RSA of 2048 to 4096 bits")


def _bad_request(problem: str) -> Refused:
    return Refused(
        RefusalCode.CERTIFICATE_REQUEST,
        f"the certificate request is refused: {problem}",
        remedy="send a PKCS#10 request in DER, signed with its own P-256 key",
        field="certificate_request",
    )


def _self_signed(key: ec.EllipticCurvePrivateKey, now_s: int) -> x509.Certificate:
    now = datetime.datetime.fromtimestamp(now_s, datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "wantastic-server root")])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + datetime.timedelta(days=AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
