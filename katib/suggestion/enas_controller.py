"""The controller of ENAS: an LSTM that chooses operations and connections, layer by layer.

At each layer it first chooses the operation, then, attending to what it thought at earlier layers,
which of them are inputs too. It imports torch, and is imported when the first suggestion is made.

Source: Pham et al., Efficient Neural Architecture Search via Parameter Sharing, 2018, section 2.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kubeloop.katib.suggestion.settings import Settings
from kubeloop.optional_imports import import_from_extra

with import_from_extra("torch", why="ENAS needs torch"):
    import torch
    from torch import Tensor, nn

Architecture = list[list[int]]

_INITIAL_RANGE = 0.1
_MAX_STEPS = 500


@dataclass(slots=True, kw_only=True)
class _Walk:
    """A batch of architectures on their way through the layers."""

    chosen: list[Tensor]
    """For each layer, batch x (1 + earlier layers)."""
    log_probability: Tensor
    entropy: Tensor
    skip_penalty: Tensor


class Controller(nn.Module):
    """A policy over architectures."""

    def __init__(
        self, *, num_layers: int, num_operations: int, settings: Settings, seed: int
    ) -> None:
        super().__init__()
        self._num_layers = num_layers
        self._settings = settings
        size = settings.integer("controller_hidden_size")
        self._cell = nn.LSTMCell(size, size)
        self._start = nn.Parameter(torch.empty(1, size))
        self._operations = nn.Embedding(num_operations, size)
        self._choose_operation = nn.Linear(size, num_operations, bias=False)
        self._attend_earlier = nn.Linear(size, size, bias=False)
        self._attend_now = nn.Linear(size, size, bias=False)
        self._attend = nn.Linear(size, 1, bias=False)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.uniform_(-_INITIAL_RANGE, _INITIAL_RANGE, generator=generator)

    @torch.no_grad()
    def sample(self, seed: int) -> Architecture:
        """An architecture."""
        walk = self._walk(1, generator=torch.Generator().manual_seed(seed))
        return [[int(number) for number in choice[0]] for choice in walk.chosen]

    def train_on(self, results: Sequence[tuple[Architecture, float]]) -> None:
        """Learn which architectures were better than the others.

        Args:
            results: Architectures with their rewards, in the order in which they came in.
        """
        if not results:
            return
        given = [
            torch.tensor([architecture[layer] for architecture, _ in results])
            for layer in range(self._num_layers)
        ]
        advantages = self._weigh([reward for _, reward in results])
        rate = self._settings.number("controller_learning_rate")
        optimizer = torch.optim.Adam(self.parameters(), lr=rate)
        num_steps = self._settings.integer("controller_train_steps") * len(results)
        for _ in range(min(num_steps, _MAX_STEPS)):
            walk = self._walk(len(results), given=given)
            loss = -(advantages * walk.log_probability).mean()
            if self._settings.has("controller_entropy_weight"):
                weight = self._settings.number("controller_entropy_weight")
                loss = loss - weight * walk.entropy.mean()
            if self._settings.has("controller_skip_weight"):
                weight = self._settings.number("controller_skip_weight")
                loss = loss + weight * walk.skip_penalty.mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch's own
            optimizer.step()

    def _weigh(self, rewards: Sequence[float]) -> Tensor:
        """Rewards against the baseline of those before, which starts at the first."""
        decay = self._settings.number("controller_baseline_decay")
        baseline, advantages = rewards[0], []
        for reward in rewards:
            advantages.append(reward - baseline)
            baseline += (1 - decay) * (reward - baseline)
        return torch.tensor(advantages)

    def _walk(
        self,
        num: int,
        *,
        given: Sequence[Tensor] | None = None,
        generator: torch.Generator | None = None,
    ) -> _Walk:
        """Go through the layers, choosing by the policy or as given."""
        size = self._settings.integer("controller_hidden_size")
        state = (torch.zeros(num, size), torch.zeros(num, size))
        inputs = self._start.expand(num, size)
        walk = _Walk(
            chosen=[],
            log_probability=torch.zeros(num),
            entropy=torch.zeros(num),
            skip_penalty=torch.zeros(num),
        )
        thoughts: list[Tensor] = []
        for layer in range(self._num_layers):
            state = self._cell(inputs, state)
            logits = self._temper(self._choose_operation(state[0]))
            operation = given[layer][:, 0] if given else _draw(logits, generator)
            self._count(walk, logits, operation)
            choice = [operation[:, None]]
            state = self._cell(self._operations(operation), state)
            if layer:
                earlier = torch.stack(thoughts, dim=1)
                wanted = given[layer] if given else None
                skips = self._connect(walk, state[0], earlier, wanted, generator)
                choice.append(skips)
                weights = skips.float()
                total = (weights[:, :, None] * earlier).sum(1)
                inputs = total / (1 + weights.sum(1, keepdim=True))
            else:
                inputs = self._start.expand(num, size)
            thoughts.append(state[0])
            walk.chosen.append(torch.cat(choice, dim=1))
        return walk

    def _connect(
        self,
        walk: _Walk,
        now: Tensor,
        earlier: Tensor,
        given: Tensor | None,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Which earlier layers are inputs: batch x earlier layers, of 0 and 1."""
        attention = torch.tanh(self._attend_now(now)[:, None] + self._attend_earlier(earlier))
        score = self._attend(attention)
        logits = self._temper(torch.cat([-score, score], dim=-1))
        skips = given[:, 1:] if given is not None else _draw(logits, generator)
        self._count(walk, logits, skips)
        target = self._settings.number("controller_skip_target")
        wanted = torch.tensor([1 - target, target]).clamp_min(1e-6)
        probability = logits.softmax(-1)
        divergence = (probability * (probability / wanted).log()).sum((1, 2))
        walk.skip_penalty = walk.skip_penalty + divergence / self._num_layers
        return skips

    def _temper(self, logits: Tensor) -> Tensor:
        """Keep the policy from settling too early."""
        if self._settings.has("controller_temperature"):
            logits = logits / self._settings.number("controller_temperature")
        if self._settings.has("controller_tanh_const"):
            logits = self._settings.number("controller_tanh_const") * logits.tanh()
        return logits

    @staticmethod
    def _count(walk: _Walk, logits: Tensor, chosen: Tensor) -> None:
        """Add up what was chosen: batch, or batch x choices."""
        log_probabilities = logits.log_softmax(-1)
        taken = log_probabilities.gather(-1, chosen[..., None])[..., 0]
        entropy = -(log_probabilities.exp() * log_probabilities).sum(-1)
        walk.log_probability = walk.log_probability + taken.reshape(len(taken), -1).sum(1)
        walk.entropy = walk.entropy + entropy.reshape(len(entropy), -1).sum(1)


def _draw(logits: Tensor, generator: torch.Generator | None) -> Tensor:
    """One choice for each row of the last dimension."""
    probabilities = logits.softmax(-1)
    rows = probabilities.reshape(-1, probabilities.shape[-1])
    return torch.multinomial(rows, 1, generator=generator).reshape(probabilities.shape[:-1])
