"""Checks before a submission that Katib's collector will find the metrics in what a program prints.

Without it a wrong name costs a whole trial, or three, before Katib calls them MetricsUnavailable.

Source: katib v0.19 `file-metricscollector.go`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches

from kubeloop.errors import InputError

DEFAULT_FORMAT = r"([\w|-]+)\s*=\s*([+-]?\d*(\.\d+)?([Ee][+-]?\d+)?)"
"""What Katib looks for where an experiment has no format of its own."""


def check_metric_lines(
    sample: str, *, metrics: Sequence[str], formats: Sequence[str] = (), program: str = "program"
) -> None:
    """Check that each metric is found, with a number, in a sample of a program's output.

    Args:
        sample: One line or several, as the program prints them.
        metrics: The objective and the additional metrics.
        formats: Regular expressions with two groups, name and value; empty: Katib's own.
        program: What the message calls the program.

    Raises:
        InputError: One is not found; the message has what is, and the sample.
    """
    found = dict(_find(sample, formats or (DEFAULT_FORMAT,)))
    for metric in metrics:
        if metric not in found:
            close = get_close_matches(metric, found, n=1)
            hint = f" Did you mean {close[0]}?" if close else ""
            names = ", ".join(found) or "no metric"
            raise InputError(
                f"Metric {metric!r} is not among what the {program} prints: {names}.{hint} It"
                f" prints lines such as: {sample.strip()}"
            )
        if not _is_number(found[metric]):
            raise InputError(
                f"Metric {metric!r} is printed as {found[metric]!r}, which is no number; the"
                f" {program} prints lines such as: {sample.strip()}"
            )


def _find(sample: str, formats: Sequence[str]) -> Iterator[tuple[str, str]]:
    for expression in formats:
        for match in re.finditer(expression, sample):
            yield match[1].strip(), match[2].strip()


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
