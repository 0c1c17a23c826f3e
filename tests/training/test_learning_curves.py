import re

from kubeloop.training.learning_curves import render_learning_curves

LINES = [
    {"epoch": 1.0, "train_loss": 0.9, "val_accuracy": 0.5, "examples_per_second": 100.0},
    {"epoch": 2.0, "train_loss": 0.4, "val_accuracy": 0.8, "examples_per_second": 110.0},
    {"best_epoch": 2.0, "val_accuracy": 0.8},
]


def read_headings(page: str) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", page)


def test_losses_scores_and_speed_are_drawn_apart() -> None:
    page = render_learning_curves("job", LINES, facts={"run": "r-1"})

    assert read_headings(page) == ["Loss", "Scores", "Speed", "Last line"]
    assert "best epoch" in page
    assert "r-1" in page


def test_a_program_that_prints_no_epochs_is_told_what_is_missing() -> None:
    page = render_learning_curves("job", [{"val_accuracy": 0.8}], facts={})

    assert read_headings(page) == ["No curves", "Last line"]
    assert "no line with epoch=" in page
