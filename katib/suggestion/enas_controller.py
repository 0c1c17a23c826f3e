"""The controller of ENAS: an LSTM that chooses operations and connections, layer by layer.

At each layer it first chooses the operation, then, attending to what it thought at earlier layers,
which of them are inputs too. The network is so small that the calls of a deep learning library
would take ten times as long as its numbers, so that steps and gradients are NumPy's.

Source: Pham et al., Efficient Neural Architecture Search via Parameter Sharing, 2018, section 2.3.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]

Architecture = tuple[tuple[int, ...], ...]
"""For each layer its operation, and for each earlier layer whether it is an input too (0 or 1)."""
Result = tuple[Architecture, float]
"""An architecture and its reward."""

_INITIAL_RANGE = 0.1
_MAX_BATCH = 8
_DECAYS = (0.9, 0.999)
_EPSILON = 1e-8


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyConfig:
    """The settings of a controller; None: that part is left out."""

    num_layers: int
    num_operations: int
    seed: int
    """Decides the first weights."""
    hidden_size: int = 64
    temperature: float | None = 5.0
    """Divides all logits, so that the policy does not settle too early."""
    tanh_const: float | None = 2.25
    """Bounds all logits, for the same."""
    entropy_weight: float | None = 1e-5
    baseline_decay: float = 0.999
    learning_rate: float = 5e-5
    skip_target: float = 0.4
    """Share of the connections that a network should have."""
    skip_weight: float | None = 0.8
    train_steps: int = 50
    """Steps for every result that comes in."""


class Weights(NamedTuple):
    """The parts of the vector of all weights."""

    start: Array
    operations: Array
    cell: Array
    bias: Array
    choose: Array
    attend_now: Array
    attend_earlier: Array
    attend: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Architectures to learn from, as arrays."""

    operations: NDArray[np.int64]
    """Layers x batch."""
    skips: Array
    """Layers x earlier layers x batch; 1 where there is a connection."""
    advantages: Array

    def draw(self, generator: np.random.Generator) -> Batch:
        """Some of them, as a step on all takes longer with every trial."""
        num = len(self.advantages)
        if num <= _MAX_BATCH:
            return self
        drawn = generator.choice(num, _MAX_BATCH, replace=False)
        return Batch(
            operations=self.operations[:, drawn],
            skips=self.skips[:, :, drawn],
            advantages=self.advantages[drawn],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Controller:
    """A policy over architectures, and how far its optimiser is; learning makes another one."""

    config: PolicyConfig
    vector: Array
    moments: tuple[Array, Array]
    num_steps: int = 0

    @classmethod
    def build(cls, config: PolicyConfig) -> Controller:
        """One that has learned nothing."""
        size = sum(math.prod(shape) for shape in _shapes(config))
        generator = np.random.default_rng(config.seed)
        drawn = generator.uniform(-_INITIAL_RANGE, _INITIAL_RANGE, size)
        vector, zeros = drawn.astype(np.float32), np.zeros(size, dtype=np.float32)
        return cls(config=config, vector=vector, moments=(zeros, zeros))

    def sample(self, generator: random.Random) -> Architecture:
        """An architecture."""
        config, weights = self.config, split(self.config, self.vector)
        walk = _Walk(weights, config, batch_size=1)
        chosen: list[tuple[int, ...]] = []
        for layer in range(config.num_layers):
            logits = _temper(config, walk.think_of_operation() @ weights.choose)[0]
            operation = _draw(np.exp(logits - logits.max()), generator)
            thought = walk.think_of_connections(np.array([operation]))
            earlier = np.array(walk.thoughts[:layer]).reshape(layer, config.hidden_size)
            attention = np.tanh(thought @ weights.attend_now + earlier @ weights.attend_earlier)
            likely = _sigmoid(2 * _temper(config, attention @ weights.attend))
            skips = [int(generator.random() < probability) for probability in likely]
            walk.connect(np.array(skips, dtype=np.float32)[:, None])
            chosen.append((operation, *skips))
        return tuple(chosen)

    def learn(self, results: Sequence[Result]) -> Controller:
        """The controller after the last of the results has come in.

        Args:
            results: All so far, in the order in which they came in.
        """
        config = self.config
        everything = collect(config, results)
        generator = np.random.default_rng([config.seed, len(results)])
        vector, (first, second) = self.vector.copy(), map(np.copy, self.moments)
        for step in range(self.num_steps + 1, self.num_steps + 1 + config.train_steps):
            _, gradient = evaluate(config, vector, everything.draw(generator))
            first += (1 - _DECAYS[0]) * (gradient - first)
            second += (1 - _DECAYS[1]) * (gradient * gradient - second)
            # Adam's rate and scale
            rate = config.learning_rate / (1 - _DECAYS[0] ** step)
            scale = 1 / math.sqrt(1 - _DECAYS[1] ** step)
            vector -= rate * first / (scale * np.sqrt(second) + _EPSILON)
        return Controller(
            config=config,
            vector=vector,
            moments=(first, second),
            num_steps=self.num_steps + config.train_steps,
        )


def collect(config: PolicyConfig, results: Sequence[Result]) -> Batch:
    """All results, each against the baseline of those before it, which starts at the first."""
    baseline, advantages = results[0][1], []
    for _, reward in results:
        advantages.append(reward - baseline)
        baseline += (1 - config.baseline_decay) * (reward - baseline)
    skips = np.zeros((config.num_layers, config.num_layers, len(results)), dtype=np.float32)
    for index, (architecture, _) in enumerate(results):
        for layer, (_, *connected) in enumerate(architecture):
            skips[layer, :layer, index] = connected
    return Batch(
        operations=np.array([[layer[0] for layer in each] for each, _ in results]).T,
        skips=skips,
        advantages=np.array(advantages, dtype=np.float32),
    )


def evaluate(config: PolicyConfig, vector: Array, batch: Batch) -> tuple[float, Array]:
    """What learning lowers (REINFORCE, with a bonus for entropy and the wanted connections)."""
    weights, gradient = split(config, vector), np.zeros_like(vector)
    slopes = split(config, gradient)
    walk = _Walk(weights, config, batch_size=len(batch.advantages))
    for operations, skips in zip(batch.operations, batch.skips, strict=True):
        walk.think_of_operation()
        walk.think_of_connections(operations)
        walk.connect(skips[: walk.num_layers - 1])
    hidden, thoughts = np.array(walk.hidden), np.array(walk.thoughts)
    loss_1, hidden_slopes = _rate_operations(config, weights, slopes, batch, hidden)
    loss_2, thought_slopes = _rate_connections(config, weights, slopes, batch, thoughts)
    walk.go_back(slopes, batch, hidden_slopes, thought_slopes)
    return loss_1 + loss_2, gradient


def split(config: PolicyConfig, vector: Array) -> Weights:
    """Views into the vector of all weights, or that of their slopes."""
    parts, end = [], 0
    for shape in _shapes(config):
        start, end = end, end + math.prod(shape)
        parts.append(vector[start:end].reshape(shape))
    return Weights(*parts)


def _shapes(config: PolicyConfig) -> tuple[tuple[int, ...], ...]:
    size, num = config.hidden_size, config.num_operations
    return (
        (size,), (num, size), (2 * size, 4 * size), (4 * size,), (size, num),
        (size, size), (size, size), (size,),
    )  # fmt: skip


@dataclass(slots=True)
class _Walk:
    """A batch of architectures on its way through the layers, two steps of the LSTM each."""

    weights: Weights
    config: PolicyConfig
    batch_size: int
    hidden: list[Array] = field(default_factory=list)
    """Before the operation of each layer is chosen: batch x size."""
    thoughts: list[Array] = field(default_factory=list)
    """Before its connections are chosen."""
    shares: list[Array] = field(default_factory=list)
    """Of each earlier layer in a layer's output: earlier layers x batch x 1."""
    steps: list[tuple[Array, ...]] = field(default_factory=list)
    state: tuple[Array, Array] = field(init=False)
    inputs: Array = field(init=False)

    def __post_init__(self) -> None:
        size = (self.batch_size, self.config.hidden_size)
        zeros = np.zeros(size, dtype=self.weights.start.dtype)
        self.state, self.inputs = (zeros, zeros), self._start()

    @property
    def num_layers(self) -> int:
        return len(self.thoughts)

    def think_of_operation(self) -> Array:
        self.hidden.append(self._step(self.inputs))
        return self.hidden[-1]

    def think_of_connections(self, operations: NDArray[np.int64]) -> Array:
        self.thoughts.append(self._step(self.weights.operations[operations]))
        return self.thoughts[-1]

    def connect(self, skips: Array) -> None:
        """Args: skips: earlier layers x batch."""
        self.shares.append((skips / (1 + skips.sum(0)))[:, :, None])
        if self.num_layers == 1:
            self.inputs = self._start()
        else:
            self.inputs = (self.shares[-1] * np.array(self.thoughts[:-1])).sum(0)

    def go_back(
        self, slopes: Weights, batch: Batch, hidden_slopes: Array, thought_slopes: Array
    ) -> None:
        """Add the slopes that go through the LSTM, from the last step to the first."""
        size = self.config.hidden_size
        after, memory_after = np.zeros_like(self.state[0]), np.zeros_like(self.state[1])
        gate_slopes = []
        for layer in reversed(range(self.num_layers)):
            for is_second, given in ((1, thought_slopes[layer]), (0, hidden_slopes[layer])):
                _, memory, gates, new, bent = self.steps[2 * layer + is_second]
                into, keep, out = gates.reshape(-1, 3, size).swapaxes(0, 1)
                slope = after + given
                inner = memory_after + slope * out * (1 - bent**2)
                by_gates = np.concatenate([inner * new, inner * memory, slope * bent], axis=1)
                by_gates *= gates * (1 - gates)
                by_new = inner * into * (1 - new**2)
                gate_slopes.append(np.concatenate([by_gates, by_new], axis=1))
                memory_after = inner * keep
                both = gate_slopes[-1] @ self.weights.cell.T
                inputs, after = both[:, :size], both[:, size:]
                if is_second:
                    np.add.at(slopes.operations, batch.operations[layer], inputs)
                elif layer > 1:
                    thought_slopes[: layer - 1] += self.shares[layer - 1] * inputs
                else:
                    slopes.start[:] += inputs.sum(0)
        together = np.concatenate(gate_slopes[::-1])
        slopes.cell[:] = np.concatenate([step[0] for step in self.steps]).T @ together
        slopes.bias[:] = together.sum(0)

    def _start(self) -> Array:
        return np.broadcast_to(self.weights.start, (self.batch_size, self.config.hidden_size))

    def _step(self, inputs: Array) -> Array:
        hidden, memory = self.state
        both = np.concatenate([inputs, hidden], axis=1)
        sums = both @ self.weights.cell + self.weights.bias
        size = self.config.hidden_size
        gates, new = _sigmoid(sums[:, : 3 * size]), np.tanh(sums[:, 3 * size :])
        into, keep, out = gates.reshape(-1, 3, size).swapaxes(0, 1)
        remembered = keep * memory + into * new
        bent = np.tanh(remembered)
        self.steps.append((both, memory, gates, new, bent))
        self.state = (out * bent, remembered)
        return self.state[0]


def _rate_operations(
    config: PolicyConfig, weights: Weights, slopes: Weights, batch: Batch, hidden: Array
) -> tuple[float, Array]:
    """The loss of the chosen operations, and its slopes by what was thought before."""
    num = len(batch.advantages)
    raw = hidden @ weights.choose
    logits = _temper(config, raw)
    logs = logits - logits.max(-1, keepdims=True)
    logs -= np.log(np.exp(logs).sum(-1, keepdims=True))
    likely = np.exp(logs)
    taken = np.eye(config.num_operations, dtype=raw.dtype)[batch.operations]
    advantages = batch.advantages[:, None]
    entropy = -(likely * logs).sum(-1, keepdims=True)
    bonus = config.entropy_weight or 0.0
    loss = -(advantages * taken * logs).sum() - bonus * entropy.sum()
    slope = -advantages * (taken - likely) + bonus * likely * (logs + entropy)
    slope = slope * _temper_slope(config, raw) / num
    slopes.choose[:] = np.tensordot(hidden, slope, axes=((0, 1), (0, 1)))
    return float(loss) / num, slope @ weights.choose.T


def _rate_connections(
    config: PolicyConfig, weights: Weights, slopes: Weights, batch: Batch, thoughts: Array
) -> tuple[float, Array]:
    """The loss of the chosen connections, and its slopes by what was thought before."""
    num = len(batch.advantages)
    now, earlier = thoughts @ weights.attend_now, thoughts @ weights.attend_earlier
    is_earlier = np.tri(config.num_layers, k=-1, dtype=bool)[:, :, None]
    attention = np.tanh(now[:, None] + earlier[None])  # layers x layers x batch x size
    raw = attention @ weights.attend
    odds = 2 * _temper(config, raw)
    likely = _sigmoid(odds)
    log_yes, log_no = -np.logaddexp(0, -odds), -np.logaddexp(0, odds)
    log_target = math.log(config.skip_target)
    log_rest = math.log(max(1 - config.skip_target, 1e-6))
    taken = batch.skips * log_yes + (1 - batch.skips) * log_no
    entropy = -likely * log_yes - (1 - likely) * log_no
    apart = -entropy - likely * log_target - (1 - likely) * log_rest
    bonus, price = config.entropy_weight or 0.0, (config.skip_weight or 0.0) / config.num_layers
    each = -batch.advantages * taken - bonus * entropy + price * apart
    spread = likely * (1 - likely)
    slope = -batch.advantages * (batch.skips - likely) + bonus * odds * spread
    slope += price * spread * (odds - log_target + log_rest)
    slope = is_earlier * slope * 2 * _temper_slope(config, raw) / num
    slopes.attend[:] = np.tensordot(slope, attention, axes=3)
    inner = slope[..., None] * weights.attend * (1 - attention**2)
    by_now, by_earlier = inner.sum(1), inner.sum(0)
    slopes.attend_now[:] = np.tensordot(thoughts, by_now, axes=((0, 1), (0, 1)))
    slopes.attend_earlier[:] = np.tensordot(thoughts, by_earlier, axes=((0, 1), (0, 1)))
    thought_slopes = by_now @ weights.attend_now.T + by_earlier @ weights.attend_earlier.T
    return float((is_earlier * each).sum()) / num, thought_slopes


def _temper(config: PolicyConfig, logits: Array) -> Array:
    """Keep the policy from settling too early."""
    if config.temperature is not None:
        logits = logits / config.temperature
    if config.tanh_const is not None:
        logits = config.tanh_const * np.tanh(logits)
    return logits


def _temper_slope(config: PolicyConfig, logits: Array) -> Array:
    slope = np.ones_like(logits)
    if config.temperature is not None:
        logits, slope = logits / config.temperature, slope / config.temperature
    if config.tanh_const is not None:
        slope = slope * config.tanh_const * (1 - np.tanh(logits) ** 2)
    return slope


def _sigmoid(values: Array) -> Array:
    halves: Array = np.tanh(0.5 * values)
    return 0.5 + 0.5 * halves


def _draw(weights: Array, generator: random.Random) -> int:
    """An index, as likely as its weight."""
    return generator.choices(range(len(weights)), weights=weights.tolist())[0]
