import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kubeloop.datasets.stores import FileStore
from kubeloop.errors import InputError, PermanentError
from kubeloop.testing.processes import Machine
from kubeloop.testing.training_processes import start_two_workers
from kubeloop.testing.twin_training import Blobs, train_twin
from kubeloop.training.distributed import World, read_world
from kubeloop.training.loop import TrainingLoop
from kubeloop.training.loop_config import LoopConfig, Optimizer, Precision, Schedule
from kubeloop.training.metric_lines import parse_metrics
from kubeloop.training.optimization import scale_learning_rate
from kubeloop.training.selection import Scores
from kubeloop.training.stopping import StoppedError, StopSignal

pytestmark = pytest.mark.pinned  # nothing here depends on the Kubeflow SDKs

CONFIG = LoopConfig(learning_rate=0.02, batch_size=8, epochs=4, seed=3)


def build_module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(2, 16), nn.BatchNorm1d(16), nn.Dropout(0.2), nn.ReLU(), nn.Linear(16, 2)
    )


def build_loop(
    module: nn.Module,
    lines: list[str],
    *,
    config: LoopConfig = CONFIG,
    report: Callable[[str], None] | None = None,
    train: Blobs | None = None,
    validation: Blobs | None = None,
    **settings: Any,
) -> TrainingLoop:
    return TrainingLoop(
        module,
        config,
        world=World(),
        train=train or Blobs(50),
        validation=validation or Blobs(21),
        report=report or lines.append,
        **settings,
    )


def losses(lines: list[str]) -> list[float]:
    found = [parse_metrics(line) for line in lines]
    return [metrics["train_loss"] for metrics in found if "train_loss" in metrics]


def test_a_validation_loss_that_is_not_a_number_is_spoken_of() -> None:
    broken, lines = Blobs(21), list[str]()
    broken.points[7] = float("nan")

    build_loop(build_module(), lines, validation=broken).run()

    assert [line for line in lines if "cannot be" in line] == [
        f"Epoch {epoch} cannot be the best one: on the validation data its loss is nan; lower"
        " learning_rate (now 0.02)."
        for epoch in (1, 2, 3, 4)
    ]


def test_training_learns() -> None:
    lines: list[str] = []

    scores = build_loop(build_module(), lines, config=LoopConfig(epochs=15, batch_size=8)).run()

    assert scores.accuracy == 1.0
    assert losses(lines)[-1] < losses(lines)[0]


def test_each_epoch_prints_one_line_of_metrics() -> None:
    lines: list[str] = []

    scores = build_loop(build_module(), lines).run()

    *metrics, last = [parse_metrics(line) for line in lines]
    assert [entry["epoch"] for entry in metrics] == [1, 2, 3, 4]
    assert metrics[-1].keys() == {
        *("epoch", "train_loss", "val_loss", "val_accuracy", "examples_per_second", "eta_seconds")
    }
    assert last.keys() == {"best_epoch", "val_loss", "val_accuracy"}
    assert metrics[int(last["best_epoch"]) - 1]["val_accuracy"] == last["val_accuracy"]
    assert last["val_accuracy"] == pytest.approx(scores.accuracy, abs=1e-6)
    assert last["val_loss"] == pytest.approx(scores.loss, abs=1e-6)


def test_the_same_seed_gives_the_same_run() -> None:
    runs: list[list[float]] = []
    weights: list[Tensor] = []
    for config in (CONFIG, CONFIG, LoopConfig(learning_rate=0.02, batch_size=8, epochs=4, seed=4)):
        lines: list[str] = []
        module = build_module()
        build_loop(module, lines, config=config).run()
        runs.append(losses(lines))
        weights.append(torch.cat([p.detach().flatten() for p in module.parameters()]))

    assert runs[0] == runs[1]
    assert torch.equal(weights[0], weights[1])
    assert runs[0] != runs[2]


class StopAfter(StopSignal):
    """Asks to stop after some questions."""

    def __init__(self, num_steps: int) -> None:
        self._left = num_steps

    @property
    def is_set(self) -> bool:
        self._left -= 1
        return self._left < 0

    @is_set.setter
    def is_set(self, value: bool) -> None:
        pass


@pytest.mark.parametrize("num_steps", [0, 1, 5, 6, 11, 23])
def test_a_stopped_run_resumes_bit_by_bit(tmp_path: Path, num_steps: int) -> None:
    whole_lines: list[str] = []
    whole = build_module()
    build_loop(whole, whole_lines).run()

    store = FileStore(tmp_path / "checkpoints")
    lines: list[str] = []
    with pytest.raises(StoppedError, match=f"Stopped after {num_steps + 1} steps"):
        build_loop(build_module(), lines, checkpoints=store, stop=StopAfter(num_steps)).run()
    assert f"{num_steps + 1:012d}.json" in store.list()
    resumed = build_module()
    torch.manual_seed(99)
    build_loop(resumed, lines, checkpoints=store).run()

    assert losses(lines) == losses(whole_lines)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_model_is_scored_with_statistics_that_fit_its_weights() -> None:
    module = build_module()
    lines: list[str] = []
    build_loop(module, lines, config=LoopConfig(learning_rate=0.5, epochs=2, batch_size=10)).run()
    norm = module[1]  # type: ignore[index]  # a Sequential
    inputs = Blobs(50).points

    module.eval()
    with torch.inference_mode():
        hidden = module[0](inputs)  # type: ignore[index]  # a Sequential

    assert torch.allclose(norm.running_mean, hidden.mean(0), atol=0.5)
    assert norm.momentum == 0.1


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "checkpoints")
    module = build_module()
    scores = build_loop(module, [], checkpoints=store).run()

    lines: list[str] = []
    again: Scores = build_loop(build_module(), lines, checkpoints=store).run()

    assert again == scores
    assert losses(lines) == []


def test_a_checkpoint_of_other_hyperparameters_is_refused(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "checkpoints")
    build_loop(build_module(), [], checkpoints=store).run()

    with pytest.raises(InputError, match="from a run with batch_size 8, not 16"):
        build_loop(
            build_module(),
            [],
            config=LoopConfig(learning_rate=0.02, batch_size=16, epochs=4, seed=3),
            checkpoints=store,
        ).run()
    with pytest.raises(InputError, match="dataset_version_hash None, not 'b'"):
        build_loop(
            build_module(), [], checkpoints=store, identity={"dataset_version_hash": "b"}
        ).run()


def test_a_diverging_run_ends_with_a_clear_error(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "checkpoints")
    broken = Blobs(50)
    broken.points[7] = float("nan")

    with pytest.raises(PermanentError, match=r"diverged in epoch 1: .* lower learning_rate"):
        build_loop(build_module(), [], train=broken, checkpoints=store).run()
    assert list(store.list()) == []


@pytest.mark.parametrize("count", [2, 3, 7, 8, 9])
def test_few_examples_are_trained_on_too(count: int) -> None:
    lines: list[str] = []

    build_loop(build_module(), lines, train=Blobs(count), config=LoopConfig(epochs=1)).run()

    assert len(losses(lines)) == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"learning_rate": 0.0}, r"learning_rate must be above 0\.0 to 10\.0"),
        ({"learning_rate": float("nan")}, "learning_rate must be"),
        ({"learning_rate": float("inf")}, "learning_rate must be"),
        ({"batch_size": 0}, "batch_size must be from 1"),
        ({"epochs": 0}, "epochs must be from 1"),
        ({"weight_decay": -0.1}, r"weight_decay must be from 0\.0"),
        ({"label_smoothing": 1.0}, r"label_smoothing must be from 0\.0 to 0\.9"),
        ({"seed": -1}, "seed must be from 0"),
    ],
)
def test_hyperparameters_out_of_range_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        LoopConfig(**values)


def test_the_world_is_read_from_the_environment() -> None:
    assert read_world({}) == World(rank=0, size=1, local_rank=0)
    assert read_world({"RANK": "2", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}) == World(
        rank=2, size=4, local_rank=1
    )
    with pytest.raises(InputError, match="must be below WORLD_SIZE"):
        read_world({"RANK": "4", "WORLD_SIZE": "4"})
    with pytest.raises(InputError, match="whole numbers"):
        read_world({"RANK": "x"})


def test_two_workers_equal_one_with_twice_the_batch(torch_machine: Machine) -> None:
    alone: list[str] = []
    train_twin(16, world=World(), report=alone.append)

    workers = start_two_workers(torch_machine, program="kubeloop.testing.twin_training")

    assert [worker.end() for worker in workers] == [0, 0], [worker.output for worker in workers]
    together, other = (losses(worker.output.splitlines()) for worker in workers)
    assert together == pytest.approx(losses(alone), abs=2e-6)
    assert (len(together), other) == (4, [])


class Ticking:
    """A clock that moves by a second whenever it is read."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        self.seconds += 1.0
        return self.seconds


def test_progress_and_the_time_left_are_told_within_an_epoch() -> None:
    lines: list[str] = []

    build_loop(build_module(), lines, config=LoopConfig(batch_size=2), clock=Ticking()).run()

    assert any(
        re.fullmatch(r"Epoch 1 of 15: \d+ of 50 examples, .* left\.", line) for line in lines
    )


def test_a_run_that_gets_no_better_ends_early_with_its_best_epoch() -> None:
    lines: list[str] = []
    config = LoopConfig(batch_size=8, epochs=200, patience=3, schedule=Schedule.CONSTANT)

    scores = build_loop(build_module(), lines, config=config).run()

    last = parse_metrics(lines[-1])
    assert len(losses(lines)) == last["best_epoch"] + 3 < 200
    assert "the run ends early" in lines[-2]
    assert scores.accuracy == pytest.approx(
        max(parse_metrics(line).get("val_accuracy", 0.0) for line in lines), abs=1e-6
    )


def test_the_module_is_left_with_the_best_epochs_weights() -> None:
    module = build_module()
    loop = build_loop(module, [], config=LoopConfig(batch_size=8, epochs=6, learning_rate=1.0))

    assert loop.run() == loop.evaluate()


@pytest.mark.parametrize("optimizer", list(Optimizer))
@pytest.mark.parametrize("schedule", list(Schedule))
def test_every_optimizer_and_schedule_learns(optimizer: Optimizer, schedule: Schedule) -> None:
    lines: list[str] = []
    config = LoopConfig(batch_size=8, epochs=8, optimizer=optimizer, schedule=schedule, warm_up=0.1)

    assert build_loop(build_module(), lines, config=config).run().accuracy >= 0.9


def test_bf16_on_a_cpu_is_a_choice_and_fp16_is_refused() -> None:
    config = LoopConfig(batch_size=8, epochs=8, precision=Precision.BF16)

    assert build_loop(build_module(), [], config=config).run().accuracy >= 0.9
    with pytest.raises(InputError, match="precision fp16 needs a GPU"):
        build_loop(build_module(), [], config=LoopConfig(precision=Precision.FP16))


def test_the_learning_rate_rises_and_falls() -> None:
    config = LoopConfig(warm_up=0.2, schedule=Schedule.LINEAR)
    rates = [scale_learning_rate(n / 10, step=0.1, config=config) for n in range(10)]

    assert rates == pytest.approx([0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125])
