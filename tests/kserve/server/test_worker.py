import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np
import pytest

from kubeloop.kserve.server.errors import InferenceError, InvalidRequestError, NotReadyError
from kubeloop.kserve.server.metrics import ServerMetrics
from kubeloop.kserve.server.model import Arrays, Model
from kubeloop.kserve.server.worker import Worker, WorkerConfig


class Doubler(Model):
    """Doubles numbers, and notes the batches it was given; can be held up."""

    inputs = ()
    outputs = ()

    def __init__(self) -> None:
        self.batches: list[list[float]] = []
        self.may_go = threading.Event()
        self.may_go.set()

    def read_instances(self, instances: Sequence[Any]) -> Arrays:
        if "bad" in instances:
            raise InvalidRequestError("bad instance")
        return {"x": np.asarray(instances, dtype=np.float64)}

    def read_tensors(self, tensors: Arrays) -> Arrays:
        return tensors

    def compute(self, batch: Arrays) -> Arrays:
        self.may_go.wait(10)
        self.batches.append(batch["x"].reshape(-1).tolist())
        if np.isnan(batch["x"]).any():
            raise RuntimeError("not a number")
        return {"y": batch["x"] * 2}

    def render(self, outputs: Arrays) -> list[Any]:
        rendered: list[Any] = outputs["y"].tolist()
        return rendered


Scenario = Callable[[Doubler, Callable[[list[Any]], Awaitable[list[Any]]]], Awaitable[None]]


def run(scenario: Scenario, **limits: int) -> None:
    async def main() -> None:
        model = Doubler()
        worker = Worker(model, metrics=ServerMetrics().of_model("m"), config=WorkerConfig(**limits))

        async def ask(instances: list[Any]) -> list[Any]:
            return await worker.run(lambda: model.read_instances(instances), model.render)

        try:
            await scenario(model, ask)
        finally:
            model.may_go.set()
            await worker.drain()

    asyncio.run(main())


async def give_others_a_turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_requests_that_wait_are_computed_together_and_answered_apart() -> None:
    async def scenario(model: Doubler, ask: Callable[[list[Any]], Awaitable[list[Any]]]) -> None:
        model.may_go.clear()
        asked = [asyncio.ensure_future(ask([number, number + 0.5])) for number in range(4)]
        await give_others_a_turn()
        model.may_go.set()

        replies = await asyncio.gather(*asked)

        assert replies == [[2.0 * number, 2.0 * number + 1] for number in range(4)]
        assert model.batches == [[0, 0.5], [1, 1.5, 2, 2.5, 3, 3.5]]

    run(scenario)


def test_requests_of_other_shapes_are_computed_apart() -> None:
    async def scenario(model: Doubler, ask: Callable[[list[Any]], Awaitable[list[Any]]]) -> None:
        model.may_go.clear()
        asked = [asyncio.ensure_future(ask(item)) for item in ([0], [1], [[2, 3]])]
        await give_others_a_turn()
        model.may_go.set()

        assert await asyncio.gather(*asked) == [[0.0], [2.0], [[4.0, 6.0]]]
        assert model.batches == [[0], [1], [2, 3]]

    run(scenario)


def test_large_request_is_computed_in_pieces() -> None:
    async def scenario(model: Doubler, ask: Callable[[list[Any]], Awaitable[list[Any]]]) -> None:
        assert await ask(list(range(5))) == [0.0, 2.0, 4.0, 6.0, 8.0]
        assert model.batches == [[0, 1], [2, 3], [4]]

    run(scenario, max_batch_rows=2)


def test_bad_request_fails_alone() -> None:
    async def scenario(model: Doubler, ask: Callable[[list[Any]], Awaitable[list[Any]]]) -> None:
        model.may_go.clear()
        asked = [asyncio.ensure_future(ask(item)) for item in ([0], ["bad"], [2])]
        await give_others_a_turn()
        model.may_go.set()

        first, bad, last = await asyncio.gather(*asked, return_exceptions=True)

        assert (first, last) == ([0.0], [4.0])
        assert isinstance(bad, InvalidRequestError)

    run(scenario)


def test_failing_model_is_an_inference_error_and_does_not_end_the_worker() -> None:
    async def scenario(model: Doubler, ask: Callable[[list[Any]], Awaitable[list[Any]]]) -> None:
        with pytest.raises(InferenceError, match="RuntimeError : not a number"):
            await ask([float("nan")])

        assert await ask([1]) == [2.0]

    run(scenario)


def test_too_many_waiting_requests_are_turned_away() -> None:
    async def scenario(model: Doubler, ask: Callable[[list[Any]], Awaitable[list[Any]]]) -> None:
        model.may_go.clear()
        asked = [asyncio.ensure_future(ask([number])) for number in range(3)]
        await give_others_a_turn()

        with pytest.raises(NotReadyError, match="2 requests wait already"):
            await ask([9])
        model.may_go.set()
        assert await asyncio.gather(*asked) == [[0.0], [2.0], [4.0]]

    run(scenario, max_waiting=2)


def test_request_that_was_given_up_does_not_disturb_the_others() -> None:
    async def scenario(model: Doubler, ask: Callable[[list[Any]], Awaitable[list[Any]]]) -> None:
        model.may_go.clear()
        asked = [asyncio.ensure_future(ask([number])) for number in range(3)]
        await give_others_a_turn()
        asked[1].cancel()
        model.may_go.set()

        assert await asked[0] == [0.0]
        assert await asked[2] == [4.0]

    run(scenario)
