"""The sample of a program's output names what the program really prints."""

import pytest

from kubeloop.datasets import Commit
from kubeloop.training.metric_lines import parse_metrics
from kubeloop.training.programs.image import main
from kubeloop.training.sample_lines import SAMPLE_LINES


def test_the_image_program_prints_the_metrics_of_its_sample(
    commit: Commit, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--dataset", commit.uri, "--epochs", "1", "--batch_size", "14"]) == 0

    lines = [parse_metrics(line) for line in capsys.readouterr().out.splitlines()]
    assert parse_metrics(SAMPLE_LINES["image"]).keys() in [line.keys() for line in lines]
