"""The certificate that clients of the API trust."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from kubeloop.local.api.certificates import prepare_certificate


def test_the_key_is_its_owners_alone(tmp_path: Path) -> None:
    certificate = prepare_certificate(tmp_path / "certificates")
    assert certificate.key.stat().st_mode & 0o777 == 0o600
    assert {path.name for path in (tmp_path / "certificates").iterdir()} == {
        "api.crt",
        "api.key",
        "ca.crt",
    }


def test_a_certificate_is_kept_over_restarts(tmp_path: Path) -> None:
    first = prepare_certificate(tmp_path).chain.read_bytes()
    assert prepare_certificate(tmp_path).chain.read_bytes() == first


def test_a_damaged_or_foreign_certificate_is_made_anew(tmp_path: Path) -> None:
    certificate = prepare_certificate(tmp_path)
    first = certificate.chain.read_bytes()
    certificate.key.write_bytes(b"damaged")
    second = prepare_certificate(tmp_path).chain.read_bytes()
    assert second != first
    other = prepare_certificate(tmp_path / "other")
    certificate.authority.write_bytes(other.authority.read_bytes())
    assert prepare_certificate(tmp_path).chain.read_bytes() != second


def test_a_certificate_is_renewed_before_it_expires(tmp_path: Path) -> None:
    first = prepare_certificate(tmp_path).chain.read_bytes()
    later = datetime.now(UTC) + timedelta(days=3640)
    assert prepare_certificate(tmp_path, now=later).chain.read_bytes() != first
