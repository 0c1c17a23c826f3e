"""Problems that searches are measured on: two functions, and a table of real trainings.

Every problem maps values of Katib parameters to a loss. The table holds the validation accuracy
after each epoch of a small convolutional network on scikit-learn's digits, for every point of a
grid of hyperparameters, so that a search over it costs nothing and has a known best.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from kubeloop.katib.suggestion.messages import ParameterSpec, ParameterType
from kubeloop.testing.suggestion_contract import build_parameter

NUM_EPOCHS = 27
GRID: Mapping[str, Sequence[float]] = {
    "log_rate": tuple(range(-8, 1)),  # learning rate 10 ** (log_rate / 2)
    "momentum": (0.0, 0.3, 0.6, 0.9),
    "log_decay": (-5, -3, -1),  # weight decay 10 ** log_decay
    "log_channels": (2, 3, 4),  # channels 2 ** log_channels
}

Values = Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is searched, and how good a point of it is."""

    name: str
    parameters: tuple[ParameterSpec, ...]
    loss: Callable[[Values], float]
    least: float
    """The least loss there is."""
    num_trials: int
    """The budget of a search."""


def build_branin(*, num_trials: int = 50) -> Problem:
    """Two parameters, three equal minima."""
    return Problem(
        name="Branin",
        parameters=(
            build_parameter("x", ParameterType.DOUBLE, bounds=("-5", "10")),
            build_parameter("y", ParameterType.DOUBLE, bounds=("0", "15")),
        ),
        loss=compute_branin,
        least=0.397887,
        num_trials=num_trials,
    )


def compute_branin(values: Values) -> float:
    """Branin's function."""
    x, y = values["x"], values["y"]
    bowl = y - 5.1 / (4 * math.pi**2) * x**2 + 5 / math.pi * x - 6
    return bowl**2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x) + 10


_HEIGHTS = (1.0, 1.2, 3.0, 3.2)
_WIDTHS = (
    (10, 3, 17, 3.5, 1.7, 8),
    (0.05, 10, 17, 0.1, 8, 14),
    (3, 3.5, 1.7, 10, 17, 8),
    (17, 8, 0.05, 10, 0.1, 14),
)
_CENTERS = (
    (0.1312, 0.1696, 0.5569, 0.0124, 0.8283, 0.5886),
    (0.2329, 0.4135, 0.8307, 0.3736, 0.1004, 0.9991),
    (0.2348, 0.1451, 0.3522, 0.2883, 0.3047, 0.6650),
    (0.4047, 0.8828, 0.8732, 0.5743, 0.1091, 0.0381),
)


def build_hartmann(*, num_trials: int = 60) -> Problem:
    """Six parameters, six local minima."""
    names = [f"x{index}" for index in range(len(_CENTERS[0]))]
    return Problem(
        name="Hartmann-6",
        parameters=tuple(
            build_parameter(name, ParameterType.DOUBLE, bounds=("0", "1")) for name in names
        ),
        loss=compute_hartmann,
        least=-3.32237,
        num_trials=num_trials,
    )


def compute_hartmann(values: Values) -> float:
    """Hartmann's function of six parameters."""
    total = 0.0
    for height, widths, centers in zip(_HEIGHTS, _WIDTHS, _CENTERS, strict=True):
        distance = sum(
            width * (values[f"x{index}"] - center) ** 2
            for index, (width, center) in enumerate(zip(widths, centers, strict=True))
        )
        total -= height * math.exp(-distance)
    return total


class DigitsTable:
    """Validation accuracies after each epoch, for every point of `GRID`."""

    def __init__(self, curves: Mapping[str, Sequence[float]]) -> None:
        self._curves = curves

    @classmethod
    def open(cls, file: Path, *, num_processes: int = 2) -> DigitsTable:
        """Read the table, or train for it (minutes) and write it."""
        if not file.exists():
            points = list(itertools.product(*GRID.values()))
            context = get_context("spawn")
            with ProcessPoolExecutor(num_processes, mp_context=context) as pool:
                curves = list(pool.map(_train, points, chunksize=4))
            table = {_key(point): curve for point, curve in zip(points, curves, strict=True)}
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(table))
        return cls(json.loads(file.read_text()))

    @property
    def best(self) -> float:
        """The highest accuracy after the last epoch."""
        return max(curve[-1] for curve in self._curves.values())

    def curve(self, values: Values) -> Sequence[float]:
        """Accuracy after each epoch."""
        return self._curves[_key([values[name] for name in GRID])]

    def share_within(self, distance: float) -> float:
        """How many of all points come so near to the best."""
        near = [curve[-1] >= self.best - distance for curve in self._curves.values()]
        return sum(near) / len(near)

    def compute_loss(self, values: Values) -> float:
        """One minus the accuracy after the last epoch."""
        return 1 - self.curve(values)[-1]


def build_table_problem(table: DigitsTable, *, num_trials: int = 40) -> Problem:
    """The search of the table."""
    return Problem(
        name="digits table",
        parameters=build_table_parameters(),
        loss=table.compute_loss,
        least=1 - table.best,
        num_trials=num_trials,
    )


def build_table_parameters() -> tuple[ParameterSpec, ...]:
    """The axes of `GRID`."""
    parameters = []
    for name, axis in GRID.items():
        kind = ParameterType.INT if isinstance(axis[0], int) else ParameterType.DOUBLE
        step = round(axis[1] - axis[0], 6)
        parameters.append(
            build_parameter(name, kind, bounds=(str(axis[0]), str(axis[-1])), step=str(step))
        )
    return tuple(parameters)


def _key(point: Sequence[float]) -> str:
    return ",".join(f"{value:g}" for value in point)


def _train(point: Sequence[float]) -> list[float]:
    """Validation accuracy after each epoch; the same network and order of rows for each point."""
    import torch
    from sklearn.datasets import load_digits
    from torch import nn
    from torch.nn import functional

    torch.set_num_threads(1)
    log_rate, momentum, log_decay, log_channels = point
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    labels = torch.tensor(digits.target)
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(images), generator=generator)
    train, validation = order[: 2 * len(order) // 3], order[2 * len(order) // 3 :]
    torch.manual_seed(0)
    channels = 2 ** int(log_channels)
    network = nn.Sequential(
        nn.Conv2d(1, channels, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(channels, 2 * channels, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(8 * channels, 10),
    )  # fmt: skip
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=10 ** (log_rate / 2),
        momentum=momentum,
        weight_decay=10**log_decay,
    )
    curve = []
    for _ in range(NUM_EPOCHS):
        shuffled = train[torch.randperm(len(train), generator=generator)]
        for rows in torch.split(shuffled, 64):
            loss = functional.cross_entropy(network(images[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch's own
            optimizer.step()
        with torch.no_grad():
            guesses = network(images[validation]).argmax(1)
        curve.append(float((guesses == labels[validation]).float().mean()))
    return curve
