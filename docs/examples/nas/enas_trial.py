"""A trial of an ENAS search: build the network that Katib describes, train it, say how good it is.

It needs torch and scikit-learn, whose digits it trains on, and knows nothing of kubeloop. The texts
it is given are those that Katib gives its own ENAS programs.
"""

import argparse
import json
import math

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional

BATCH_SIZE = 64


def parse_json(text: str) -> list | dict:
    """Katib writes JSON in single quotes."""
    return json.loads(text.replace("'", '"'))


def load_data(device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images to train and validate on, then the labels of both."""
    digits = load_digits()
    parts = train_test_split(
        digits.images[:, None] / 16, digits.target, test_size=0.3, random_state=0
    )
    images, labels = parts[:2], parts[2:]
    return (
        *(torch.tensor(part, dtype=torch.float32, device=device) for part in images),
        *(torch.tensor(part, device=device) for part in labels),
    )


def build_operation(kind: str, options: dict, channels: int) -> tuple[nn.Module, int]:
    """One layer's operation, and the number of channels that it returns."""
    if kind == "reduction":
        pool = nn.MaxPool2d if options["reduction_type"] == "max_pooling" else nn.AvgPool2d
        return pool(int(options["pool_size"]), ceil_mode=True), channels
    size, stride = int(options["filter_size"]), int(options.get("stride", 1))
    if kind == "convolution":
        num_filters = int(options["num_filter"])
        layers = [nn.Conv2d(channels, num_filters, size, stride, padding=size // 2)]
    elif kind in ("separable_convolution", "depthwise_convolution"):
        deep = num_filters = channels * int(options.get("depth_multiplier", 1))
        layers = [nn.Conv2d(channels, deep, size, stride, padding=size // 2, groups=channels)]
        if kind == "separable_convolution":
            num_filters = int(options["num_filter"])
            layers.append(nn.Conv2d(deep, num_filters, 1))
    else:
        raise ValueError(f"The network has an operation {kind!r}, which this program cannot build.")
    return nn.Sequential(*layers, nn.BatchNorm2d(num_filters), nn.ReLU()), num_filters


class Child(nn.Module):
    """The network of one trial.

    Each layer takes the output of the one before it and, as its row of the architecture says, of
    those before that one, the image being the first: `[2, 1, 0]` is operation 2 on the output of
    the second layer and the image.
    """

    def __init__(self, architecture: list[list[int]], config: dict) -> None:
        super().__init__()
        num_channels = [config["input_sizes"][-1]]
        self.sources = []
        self.layers = nn.ModuleList()
        for number, (operation, *skips) in enumerate(architecture):
            self.sources.append([number, *(i for i, is_taken in enumerate(skips) if is_taken)])
            chosen = config["embedding"][str(operation)]
            channels = sum(num_channels[source] for source in self.sources[-1])
            layer, channels = build_operation(chosen["opt_type"], chosen["opt_params"], channels)
            self.layers.append(layer)
            num_channels.append(channels)
        num_classes = config["output_sizes"][-1]
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(num_channels[-1], num_classes))

    def forward(self, images: Tensor) -> Tensor:
        outputs = [images]
        for layer, sources in zip(self.layers, self.sources, strict=True):
            inputs = [outputs[source] for source in sources]
            size = min(part.shape[-1] for part in inputs)
            inputs = [functional.adaptive_avg_pool2d(part, size) for part in inputs]
            outputs.append(layer(torch.cat(inputs, dim=1)))
        return self.head(outputs[-1].mean((2, 3)))


def train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    images: Tensor,
    labels: Tensor,
) -> float:
    """Train once on everything; returns the mean loss."""
    model.train()
    losses = []
    for batch in torch.randperm(len(images)).to(images.device).split(BATCH_SIZE):
        loss = functional.cross_entropy(model(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return sum(losses) / len(losses)


@torch.no_grad()
def measure_accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    model.eval()
    return (model(images).argmax(1) == labels).float().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--architecture", type=parse_json, required=True)
    parser.add_argument("--nn_config", type=parse_json, required=True)
    parser.add_argument("--num_epochs", type=int, default=5)
    arguments = parser.parse_args()

    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    images, val_images, labels, val_labels = load_data(device)
    model = Child(arguments.architecture, arguments.nn_config).to(device)
    num_steps = arguments.num_epochs * math.ceil(len(images) / BATCH_SIZE)
    optimizer = torch.optim.AdamW(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=num_steps)
    for epoch in range(arguments.num_epochs):
        loss = train_epoch(model, optimizer, schedule, images, labels)
        accuracy = measure_accuracy(model, val_images, val_labels)
        print(f"epoch={epoch + 1} Training-Loss={loss:.4f}", flush=True)
        print(f"Validation-Accuracy={accuracy:.4f}", flush=True)


if __name__ == "__main__":
    main()
