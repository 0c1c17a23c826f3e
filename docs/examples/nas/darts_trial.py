"""The trial of a DARTS search: it searches by gradient, and prints the cells that it has found.

All operations of the search space run side by side in each cell, weighted by a softmax of numbers
(alphas) that are learnt on other images than the weights; each cell keeps the operations that are
weighted most. The gradient of the alphas is the paper's first-order one.

It needs torch and scikit-learn, whose digits it searches on, and knows nothing of kubeloop.

Source: Liu et al., DARTS: Differentiable Architecture Search, 2019.
"""

import argparse
import json
import re
from collections import namedtuple

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional

Genotype = namedtuple("Genotype", "normal normal_concat reduce reduce_concat")
NONE = "none"
NUM_KEPT = 2


def parse_json(text: str) -> list | dict | int:
    """Katib writes JSON in single quotes."""
    return json.loads(text.replace("'", '"'))


def load_halves(device: torch.device) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Images with labels, for the weights and for the alphas."""
    digits = load_digits()
    parts = train_test_split(
        torch.tensor(digits.images[:, None] / 16, dtype=torch.float32, device=device),
        torch.tensor(digits.target, device=device),
        test_size=0.5,
        random_state=0,
    )
    return tuple(parts[::2]), tuple(parts[1::2])


class Zero(nn.Module):
    """No connection."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, images: Tensor) -> Tensor:
        return images[:, :, :: self.stride, :: self.stride] * 0


def normalise(*layers: nn.Module, channels: int) -> nn.Module:
    return nn.Sequential(*layers, nn.BatchNorm2d(channels, affine=False))


def build_operation(primitive: str, channels: int, stride: int) -> nn.Module:
    """An operation by its name in the search space, such as `max_pooling_3x3`."""
    if primitive == NONE:
        return Zero(stride)
    if primitive == "skip_connection":
        if stride == 1:
            return nn.Identity()
        return normalise(nn.Conv2d(channels, channels, 1, stride, bias=False), channels=channels)
    match = re.fullmatch(r"(\w+)_(\d+)x\d+", primitive)
    kind, size = (match[1], int(match[2])) if match else (primitive, 0)
    half = size // 2
    if kind == "max_pooling":
        return normalise(nn.MaxPool2d(size, stride, half), channels=channels)
    if kind == "avg_pooling":
        pool = nn.AvgPool2d(size, stride, half, count_include_pad=False)
        return normalise(pool, channels=channels)
    if kind in ("separable_convolution", "dilated_convolution"):
        spread = 2 if kind == "dilated_convolution" else 1
        depthwise = nn.Conv2d(
            channels, channels, size, stride, half * spread, spread, channels, bias=False
        )
        pointwise = nn.Conv2d(channels, channels, 1, bias=False)
        return normalise(nn.ReLU(), depthwise, pointwise, channels=channels)
    raise ValueError(f"The search space has {primitive!r}, which this program cannot build.")


class Mixture(nn.Module):
    """All operations between two nodes."""

    def __init__(self, primitives: list[str], channels: int, stride: int) -> None:
        super().__init__()
        self.operations = nn.ModuleList(build_operation(p, channels, stride) for p in primitives)

    def forward(self, images: Tensor, weights: Tensor) -> Tensor:
        return sum(
            w * operation(images) for w, operation in zip(weights, self.operations, strict=True)
        )


def adapt(channels: int, to: int, stride: int = 1) -> nn.Module:
    layers = (nn.ReLU(), nn.Conv2d(channels, to, 1, stride, bias=False))
    return normalise(*layers, channels=to)


class Cell(nn.Module):
    """Nodes, each fed by all before it; the first two are the outputs of the last two cells."""

    def __init__(
        self,
        primitives: list[str],
        num_nodes: int,
        inputs: list[nn.Module],
        channels: int,
        *,
        reduces: bool,
    ) -> None:
        super().__init__()
        self.reduces = reduces
        self.inputs = nn.ModuleList(inputs)
        self.nodes = nn.ModuleList(
            nn.ModuleList(
                Mixture(primitives, channels, 2 if reduces and source < len(inputs) else 1)
                for source in range(len(inputs) + number)
            )
            for number in range(num_nodes)
        )

    def forward(self, before: tuple[Tensor, Tensor], alphas: list[Tensor]) -> Tensor:
        states = [adapter(state) for adapter, state in zip(self.inputs, before, strict=True)]
        for edges, alpha in zip(self.nodes, alphas, strict=True):
            weights = alpha.softmax(-1)
            states.append(sum(e(s, w) for e, s, w in zip(edges, states, weights, strict=True)))
        return torch.cat(states[len(self.inputs) :], dim=1)


class Supernet(nn.Module):
    """Every network of the search space at once.

    As in Katib's program, the cells at one and two thirds of the depth halve the image and double
    the channels; of two cells the second does, of one none.
    """

    def __init__(self, primitives: list[str], num_layers: int, settings: dict) -> None:
        super().__init__()
        self.primitives, num_nodes = [*primitives, NONE], int(settings["num_nodes"])
        channels = int(settings["init_channels"])
        stem_channels = channels * int(settings["stem_multiplier"])
        self.stem = normalise(nn.Conv2d(1, stem_channels, 3, padding=1), channels=stem_channels)
        reducing = {num_layers // 3, 2 * num_layers // 3} if num_layers > 2 else {1}
        self.cells = nn.ModuleList()
        widths, halves = (stem_channels, stem_channels), False
        for number in range(num_layers):
            reduces = number in reducing
            channels *= 2 if reduces else 1
            inputs = [adapt(widths[0], channels, 2 if halves else 1), adapt(widths[1], channels)]
            cell = Cell(self.primitives, num_nodes, inputs, channels, reduces=reduces)
            self.cells.append(cell)
            widths, halves = (widths[1], channels * num_nodes), reduces
        self.head = nn.Linear(widths[1], 10)
        self.alphas = {
            reduces: [
                (1e-3 * torch.randn(2 + number, len(self.primitives))).requires_grad_()
                for number in range(num_nodes)
            ]
            for reduces in (False, True)
        }

    def forward(self, images: Tensor) -> Tensor:
        before = (self.stem(images),) * 2
        for cell in self.cells:
            before = (before[1], cell(before, self.alphas[cell.reduces]))
        return self.head(before[1].mean((2, 3)))

    def read_genotype(self) -> Genotype:
        """By node, its two strongest sources with the strongest operation on each."""
        reduces = any(cell.reduces for cell in self.cells)
        kept = range(2, 2 + len(self.alphas[False]))
        return Genotype(
            normal=[self._choose(alpha) for alpha in self.alphas[False]],
            normal_concat=kept,
            reduce=[self._choose(alpha) for alpha in self.alphas[True]] if reduces else [],
            reduce_concat=kept,
        )

    def _choose(self, alpha: Tensor) -> list[tuple[str, int]]:
        strengths, operations = alpha[:, :-1].max(1)  # the last, none, is not chosen
        return [
            (self.primitives[operations[source]], int(source))
            for source in strengths.topk(NUM_KEPT).indices
        ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--algorithm-settings", type=parse_json, required=True)
    parser.add_argument("--search-space", type=parse_json, required=True)
    parser.add_argument("--num-layers", type=parse_json, required=True)
    arguments = parser.parse_args()
    print("Best-Genotype=" + str(search(arguments)).replace(" ", ""), flush=True)


def search(arguments: argparse.Namespace) -> Genotype:
    """Learn weights and alphas in turn; returns the genotype of the best epoch."""
    torch.manual_seed(0)
    settings = {name: float(v) for name, v in arguments.algorithm_settings.items() if v is not None}
    num_epochs = int(settings["num_epochs"])
    (images, labels), (val_images, val_labels) = load_halves(torch.device("cpu"))
    size = int(settings.get("batch_size", len(images)))
    model = Supernet(arguments.search_space, arguments.num_layers, settings)
    weights = torch.optim.SGD(
        model.parameters(),
        lr=settings["w_lr"],
        momentum=settings["w_momentum"],
        weight_decay=settings["w_weight_decay"],
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(weights, num_epochs, settings["w_lr_min"])
    alphas = torch.optim.Adam(
        [alpha for group in model.alphas.values() for alpha in group],
        lr=settings["alpha_lr"],
        betas=(0.5, 0.999),
        weight_decay=settings["alpha_weight_decay"],
    )
    best, best_accuracy = model.read_genotype(), 0.0
    for _ in range(num_epochs):
        model.train()
        batches = torch.randperm(len(images)).split(size)
        val_batches = torch.randperm(len(val_images)).split(size)
        for batch, val_batch in zip(batches, val_batches, strict=False):
            step(model, alphas, val_images[val_batch], val_labels[val_batch])
            step(model, weights, images[batch], labels[batch], clip=settings["w_grad_clip"])
        schedule.step()
        accuracy = measure_accuracy(model, val_images, val_labels)
        print(f"Validation-Accuracy={accuracy:.4f}", flush=True)
        if accuracy >= best_accuracy:
            best, best_accuracy = model.read_genotype(), accuracy
    return best


def step(
    model: Supernet,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    *,
    clip: float | None = None,
) -> None:
    """One step of what the optimizer is for."""
    loss = functional.cross_entropy(model(images), labels)
    optimizer.zero_grad()
    loss.backward()
    if clip is not None:
        nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()


@torch.no_grad()
def measure_accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    model.eval()
    return (model(images).argmax(1) == labels).float().mean().item()


if __name__ == "__main__":
    main()
