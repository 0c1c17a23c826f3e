"""The controller of ENAS learns what it should, and is remembered rather than trained anew."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from kubeloop.katib.suggestion.enas import TrainedControllers
from kubeloop.katib.suggestion.enas_controller import (
    Controller,
    PolicyConfig,
    Result,
    collect,
    evaluate,
)


def build_results(policy: PolicyConfig, num: int) -> list[Result]:
    controller, random_rewards = Controller.build(policy), random.Random(1)
    return [
        (controller.sample(random.Random(number)), random_rewards.random()) for number in range(num)
    ]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": None, "tanh_const": None, "entropy_weight": None, "skip_weight": None},
        {"temperature": 2.0, "tanh_const": None, "entropy_weight": 0.3},
    ],
    ids=["all terms", "bare", "some terms"],
)
def test_slopes_are_those_of_the_loss(settings: dict[str, Any]) -> None:
    policy = PolicyConfig(num_layers=4, num_operations=3, hidden_size=4, seed=1, **settings)
    vector = 5 * Controller.build(policy).vector.astype(float)
    batch = collect(policy, build_results(policy, 5))

    _, slopes = evaluate(policy, vector, batch)

    steps = 1e-6 * np.eye(len(vector))
    differences = [
        (evaluate(policy, vector + step, batch)[0] - evaluate(policy, vector - step, batch)[0])
        for step in steps
    ]
    assert slopes == pytest.approx(np.array(differences) / 2e-6, abs=1e-8)


def test_a_policy_samples_as_likely_as_it_was_trained_to() -> None:
    policy = PolicyConfig(
        num_layers=2, num_operations=2, seed=1, learning_rate=0.03, skip_weight=None
    )
    good, bad = ((1,), (1, 1)), ((0,), (0, 0))

    controller = Controller.build(policy).learn([(bad, 0.0), (good, 1.0), (bad, 0.0)])

    sampled = [controller.sample(random.Random(number)) for number in range(100)]
    assert sampled.count(good) > 80


def test_a_remembered_controller_is_the_one_that_training_anew_gives() -> None:
    policy = PolicyConfig(num_layers=3, num_operations=4, hidden_size=8, seed=1, train_steps=2)
    results = build_results(policy, 12)
    remembering = TrainedControllers()
    for num in range(13):
        remembering.find(policy, results[:num])

    remembered = remembering.find(policy, results)

    assert np.array_equal(remembered.vector, TrainedControllers().find(policy, results).vector)
    assert remembering.find(policy, results[:11] + results[10:]).num_steps == 26


def test_only_what_is_new_is_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = PolicyConfig(num_layers=2, num_operations=2, hidden_size=8, seed=1, train_steps=1)
    results, remembering, trained_on = build_results(policy, 9), TrainedControllers(), []
    learn = Controller.learn

    def count(controller: Controller, known: list[Result]) -> Controller:
        trained_on.append(len(known))
        return learn(controller, known)

    monkeypatch.setattr(Controller, "learn", count)
    for num in (3, 5, 9, 9):
        remembering.find(policy, results[:num])

    assert trained_on == [1, 2, 3, 4, 5, 6, 7, 8, 9]
