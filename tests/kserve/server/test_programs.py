from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kubeloop.kserve.server import programs
from kubeloop.kserve.server.programs import speed_up

SAMPLES = ((torch.rand(1, 3, 8, 8),), (torch.rand(4, 3, 9, 7),))


class Network(nn.Module):
    """Convolutions and batch norms in the ways that networks join them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, bias=False)
        self.second = nn.Conv2d(4, 4, 3, bias=True, groups=2, padding=1)
        self.shared = nn.Conv2d(4, 4, 1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(4))
        for norm in self.norms:
            assert isinstance(norm, nn.BatchNorm2d)
            nn.init.uniform_(norm.weight, 0.5, 2)
            nn.init.uniform_(norm.bias, -1, 1)
            assert norm.running_mean is not None
            assert norm.running_var is not None
            nn.init.uniform_(norm.running_mean, -1, 1)
            nn.init.uniform_(norm.running_var, 0.5, 2)

    def forward(self, images: Tensor) -> Tensor:
        images = self.norms[0](self.first(images)).relu()
        images = self.norms[1](self.second(images))
        shared = self.shared(images)
        both = self.norms[2](shared) + shared  # not to be folded: used twice
        result: Tensor = self.norms[3](both.relu()).mean((2, 3)).softmax(1)
        return result


def export(network: nn.Module) -> torch.fx.GraphModule:
    sizes = dict.fromkeys((0, 2, 3), torch.export.Dim.AUTO)
    program = torch.export.export(network.eval(), SAMPLES[1], dynamic_shapes=(sizes,))
    module = program.module()
    assert isinstance(module, torch.fx.GraphModule)
    return module


def count_norms(program: Any) -> int:
    """How many batch norms are computed in one call."""
    with torch.profiler.profile() as profile, torch.inference_mode():
        program(*SAMPLES[0])
    calls = Counter({event.key: event.count for event in profile.key_averages()})
    return calls["aten::batch_norm"]


def test_fast_program_computes_the_same_on_inputs_that_it_was_not_compared_on() -> None:
    torch.manual_seed(0)
    module = export(Network())

    fast = speed_up(module, SAMPLES)

    other = torch.rand(7, 3, 12, 10)
    with torch.inference_mode():
        assert torch.allclose(fast(other), module(other), atol=1e-5)


def test_batch_norms_are_folded_only_where_one_convolution_feeds_them() -> None:
    torch.manual_seed(0)
    module = export(Network())

    fast = speed_up(module, SAMPLES)

    assert fast is not module
    assert count_norms(module) == 4
    assert count_norms(fast) == 2


def test_original_is_left_as_it_was() -> None:
    module = export(Network())
    before = module.code

    speed_up(module, SAMPLES)

    assert module.code == before


def test_program_that_would_differ_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    module = export(Network())
    monkeypatch.setattr(programs, "_compare", lambda *_: float("nan"))

    assert speed_up(module, SAMPLES) is module


def test_module_that_is_no_graph_is_kept() -> None:
    network = Network().eval()

    assert speed_up(network, SAMPLES) is network


def test_program_of_several_inputs_is_called_with_all_of_them() -> None:
    class Scale(nn.Module):
        def forward(self, numbers: Tensor, factors: Tensor) -> Tensor:
            return numbers * factors

    ones, twos = torch.ones(3), torch.full((3,), 2.0)
    module = torch.export.export(Scale(), (ones, twos)).module()

    fast = speed_up(module, [(ones, twos)])

    assert fast is not module
    assert fast(twos, twos).tolist() == [4.0, 4.0, 4.0]
