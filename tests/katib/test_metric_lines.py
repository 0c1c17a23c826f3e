"""Metrics are looked for in a sample of what a program prints, as Katib's collector would."""

from __future__ import annotations

import pytest

from kubeloop.errors import InputError
from kubeloop.katib.metric_lines import DEFAULT_FORMAT, check_metric_lines
from kubeloop.local.operators.katib.expressions import DEFAULT_FILTER
from kubeloop.training.jobs import PROGRAMS
from kubeloop.training.sample_lines import SAMPLE_LINES

LINE = "epoch=3 val_loss=0.5 val_accuracy=0.97"


@pytest.mark.parametrize("metric", ["val_loss", "val_accuracy", "epoch"])
def test_a_metric_that_is_printed_passes(metric: str) -> None:
    check_metric_lines(LINE, metrics=[metric])


def test_a_wrong_name_is_refused_with_what_is_printed_and_the_closest() -> None:
    with pytest.raises(InputError) as caught:
        check_metric_lines(LINE, metrics=["val_loss", "val_accurracy"], program="image program")

    assert str(caught.value) == (
        "Metric 'val_accurracy' is not among what the image program prints: epoch, val_loss, "
        "val_accuracy. Did you mean val_accuracy? It prints lines such as: " + LINE
    )


def test_a_format_that_does_not_fit_the_line_is_refused() -> None:
    check_metric_lines("loss: 0.5", metrics=["loss"], formats=[r"(\w+): ([\d.]+)"])
    with pytest.raises(InputError, match="prints: no metric"):
        check_metric_lines("loss: 0.5", metrics=["loss"])


def test_a_metric_without_a_number_is_refused() -> None:
    with pytest.raises(InputError, match="'loss' is printed as '', which is no number"):
        check_metric_lines("loss=high", metrics=["loss"])


def test_the_default_format_is_the_collectors() -> None:
    assert DEFAULT_FORMAT == DEFAULT_FILTER


def test_every_program_has_a_sample() -> None:
    assert set(SAMPLE_LINES) == set(PROGRAMS)
