"""Kubernetes quantities: `500m`, `2`, `1.5Gi`, `12e6`."""

from __future__ import annotations

import re
from decimal import Decimal

from kubeloop.errors import InputError

_QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:([numkMGTPE]|[KMGTPE]i)|[eE]([+-]?\d+))?")
_SUFFIXES = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "": Decimal(1),
    "k": Decimal(10**3),
    "M": Decimal(10**6),
    "G": Decimal(10**9),
    "T": Decimal(10**12),
    "P": Decimal(10**15),
    "E": Decimal(10**18),
    "Ki": Decimal(2**10),
    "Mi": Decimal(2**20),
    "Gi": Decimal(2**30),
    "Ti": Decimal(2**40),
    "Pi": Decimal(2**50),
    "Ei": Decimal(2**60),
}


def parse_quantity(quantity: str | float) -> Decimal:
    """The number that a quantity stands for, in its base unit (cores, bytes, pieces).

    Raises:
        InputError: It is no quantity.
    """
    found = _QUANTITY.fullmatch(str(quantity))
    if found is None:
        raise InputError(
            f"{quantity!r} is no Kubernetes quantity; accepted are numbers such as 2, 0.5, 500m, "
            "1G, 1.5Gi, 12e6."
        )
    number, suffix, exponent = found.groups()
    return Decimal(number) * _SUFFIXES[suffix or ""] * Decimal(10) ** int(exponent or 0)
