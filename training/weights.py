"""Start from somebody's weights: a file of tensors, read as data and never as code."""

from __future__ import annotations

import pickle
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from kubeloop.datasets.stores import open_object
from kubeloop.errors import InputError


def load_weights(module: nn.Module, uri: str) -> None:
    """Load what a file has for a module, all but a classifier of other classes.

    Args:
        module: Its last layer keeps its random weights where the file's has another number of
            classes.
        uri: A `state_dict` that `torch.save` wrote, such as torchvision's own files.

    Raises:
        InputError: The file holds more than tensors, or is of another architecture.
    """
    found = _read_tensors(uri)
    wanted = module.state_dict()
    head = _find_head(module)
    fitting = {
        name: value
        for name, value in found.items()
        if name in wanted and value.shape == wanted[name].shape
    }
    missing = [name for name in wanted if name not in fitting and name not in head]
    unknown = [name for name in found if name not in wanted]
    if missing or unknown:
        example = (missing or unknown)[0]
        raise InputError(
            f"The weights {uri!r} are of another architecture: {len(missing)} tensors are missing"
            f" or of another shape and {len(unknown)} unknown, such as {example!r}; give the"
            " architecture that they were trained with."
        )
    module.load_state_dict({**wanted, **fitting})


def _find_head(module: nn.Module) -> frozenset[str]:
    """Names of the last linear layer's or convolution's tensors."""
    layers = [
        name for name, part in module.named_modules() if isinstance(part, nn.Linear | nn.Conv2d)
    ]
    last = layers[-1] if layers else ""
    return frozenset({f"{last}.weight", f"{last}.bias"})


def _read_tensors(uri: str) -> dict[str, Tensor]:
    store, key = open_object(uri)
    with tempfile.TemporaryDirectory(prefix="kubeloop-weights-") as folder:
        path = Path(folder, "weights")
        store.download(key, path)
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, ValueError) as error:
            cause = str(error).partition("\n")[0]
            raise InputError(
                f"The weights {uri!r} cannot be read as a file of tensors: {cause}"
            ) from error
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise InputError(
            f"The weights {uri!r} must be a state_dict, tensors by name, as torch.save writes it."
        )
    return content
