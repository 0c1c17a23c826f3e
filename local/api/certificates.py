"""The API server's certificate: kubectl sends a kubeconfig's token over TLS only.

A throw-away authority signs one certificate for the loopback names and is forgotten, so that
nothing else can ever be signed in its name. Clients trust it through the kubeconfig.
"""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

_VALID = timedelta(days=3650)
_RENEW_BEFORE = timedelta(days=30)
_SKEW = timedelta(hours=1)  # a clock that was corrected backwards

_NAMES: list[x509.GeneralName] = [
    x509.DNSName("localhost"),
    x509.DNSName("kubernetes.default.svc"),
    x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
    x509.IPAddress(ipaddress.ip_address("::1")),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """Files in PEM."""

    authority: Path
    """What clients must trust."""

    chain: Path
    """What the server shows."""

    key: Path
    """The server's private key, readable by its owner only."""


def prepare_certificate(folder: Path, *, now: datetime | None = None) -> Certificate:
    """The certificate in `folder`, made if it is missing, unreadable or about to expire.

    Args:
        folder: Where the files are; created if missing.
        now: The time to judge by; the present when None.
    """
    files = Certificate(
        authority=folder / "ca.crt", chain=folder / "api.crt", key=folder / "api.key"
    )
    now = now or datetime.now(UTC)
    if not _is_usable(files, now):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _issue(files, now)
    return files


def _is_usable(files: Certificate, now: datetime) -> bool:
    try:
        authority = x509.load_pem_x509_certificate(files.authority.read_bytes())
        leaf = x509.load_pem_x509_certificate(files.chain.read_bytes())
        key = serialization.load_pem_private_key(files.key.read_bytes(), password=None)
        leaf.verify_directly_issued_by(authority)
    except (OSError, ValueError, TypeError, InvalidSignature):
        return False
    return key.public_key() == leaf.public_key() and leaf.not_valid_after_utc > now + _RENEW_BEFORE


def _issue(files: Certificate, now: datetime) -> None:
    authority_key = ec.generate_private_key(ec.SECP256R1())
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = _name("kubeloop authority")
    authority_id = x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key())
    authority = (
        _builder(issuer, issuer, authority_key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(authority_id, critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    leaf = (
        _builder(_name("kubeloop API server"), issuer, key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
        .add_extension(x509.SubjectAlternativeName(_NAMES), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(authority_id),
            critical=False,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    _write(files.key, _render_key(key), mode=0o600)
    _write(files.chain, leaf.public_bytes(serialization.Encoding.PEM), mode=0o644)
    _write(files.authority, authority.public_bytes(serialization.Encoding.PEM), mode=0o644)


def _render_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + _VALID)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _write(path: Path, content: bytes, *, mode: int) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
