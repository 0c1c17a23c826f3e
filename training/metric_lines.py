"""Metrics as programs print them and as Katib's collector reads them: `name=value` in a line."""

from __future__ import annotations

import re

_METRIC = re.compile(r"(?<![\w|-])([\w|-]+)\s*=\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[Ee][+-]?\d+)?)")


def parse_metrics(line: str) -> dict[str, float]:
    """Read the `name=value` pairs of a line, as Katib's collector does."""
    return {name: float(value) for name, value in _METRIC.findall(line)}
