"""Quantities are numbers in their base unit."""

from __future__ import annotations

from decimal import Decimal

import pytest

from kubeloop.errors import InputError
from kubeloop.local.quantities import parse_quantity


@pytest.mark.parametrize(
    ("quantity", "expected"),
    [
        ("2", 2),
        (2, 2),
        ("500m", Decimal("0.5")),
        ("1.5Gi", 1.5 * 2**30),
        ("1G", 10**9),
        ("12e6", 12_000_000),
        ("1E", 10**18),
        (".5", Decimal("0.5")),
        ("100n", Decimal("1e-7")),
    ],
)
def test_quantities_are_read(quantity: str | float, expected: Decimal) -> None:
    assert parse_quantity(quantity) == expected


@pytest.mark.parametrize("quantity", ["", "much", "1 Gi", "1gi", "1e", "--1"])
def test_other_texts_are_refused(quantity: str) -> None:
    with pytest.raises(InputError, match="is no Kubernetes quantity"):
        parse_quantity(quantity)
