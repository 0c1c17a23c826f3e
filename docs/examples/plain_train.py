"""A plain PyTorch script: it trains on folders of images and knows nothing of kubeloop.

As a job's code it becomes tunable and servable: it takes its folders and hyperparameters as
arguments, prints metrics as `name=value`, goes on from its checkpoint where it finds one, and
exports its model with torch.export.
"""

import argparse
import json
import pathlib

import numpy as np
import torch
from PIL import Image
from torch import nn


def load(folder, labels):
    files = [
        (path, i) for i, label in enumerate(labels) for path in sorted((folder / label).iterdir())
    ]
    pixels = [np.asarray(Image.open(path).convert("L").resize((16, 16))) for path, _ in files]
    return torch.tensor(np.stack(pixels)).unsqueeze(3), torch.tensor([i for _, i in files])


class Classifier(nn.Module):
    """Takes bytes, batch x any height x any width x 1, and returns probabilities of classes."""

    def __init__(self, num_classes, hidden):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(256, hidden), nn.ReLU(), nn.Linear(hidden, num_classes)
        )

    def logits(self, images):
        planes = images.permute(0, 3, 1, 2).float() / 255
        return self.layers(nn.functional.interpolate(planes, (16, 16), mode="bilinear"))

    def forward(self, images):
        return self.logits(images).softmax(1)


parser = argparse.ArgumentParser()
parser.add_argument("--dataset", type=pathlib.Path)
parser.add_argument("--model", type=pathlib.Path)
parser.add_argument("--checkpoint", type=pathlib.Path)
parser.add_argument("--learning_rate", type=float, default=0.01)
parser.add_argument("--hidden", type=int, default=64)
parser.add_argument("--epochs", type=int, default=30)
parser.add_argument("--seed", type=int, default=0)
arguments = parser.parse_args()

torch.manual_seed(arguments.seed)
labels = json.loads((arguments.dataset / "dataset.json").read_text())["labels"]
images, targets = load(arguments.dataset / "train", labels)
val_images, val_targets = load(arguments.dataset / "validation", labels)
model = Classifier(len(labels), arguments.hidden)
optimizer = torch.optim.AdamW(model.parameters(), lr=arguments.learning_rate)
kept = arguments.checkpoint and arguments.checkpoint / "last.pt"
first_epoch = 0
if kept and kept.exists():
    first_epoch, model_state, optimizer_state = torch.load(kept)
    model.load_state_dict(model_state)
    optimizer.load_state_dict(optimizer_state)
for epoch in range(first_epoch, arguments.epochs):
    loss = nn.functional.cross_entropy(model.logits(images), targets)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    accuracy = (model(val_images).argmax(1) == val_targets).float().mean()
    print(f"epoch={epoch + 1} train_loss={loss:.4f} val_accuracy={accuracy:.4f}", flush=True)
    if kept:
        draft = kept.with_suffix(".new")
        torch.save((epoch + 1, model.state_dict(), optimizer.state_dict()), draft)
        draft.rename(kept)

if arguments.model:
    sizes = dict.fromkeys((0, 1, 2), torch.export.Dim.DYNAMIC)
    example = torch.zeros(2, 20, 24, 1, dtype=torch.uint8)
    program = torch.export.export(model.eval(), (example,), dynamic_shapes=(sizes,))
    torch.export.save(program, arguments.model / "model.pt2")
