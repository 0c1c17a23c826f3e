"""Runs `.onnx` files as functions of tensors, with ONNX Runtime on the CPU.

An ONNX file is data: a graph of operators that the runtime knows. What could reach beyond it, a
tensor whose bytes lie in another file, is refused. Only this module imports `onnxruntime` to run.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kubeloop.errors import InputError
from kubeloop.optional_imports import import_from_extra


class OnnxProgram:
    """A program that answers as the exported one does: tensors in, a tensor or a tuple out."""

    def __init__(self, path: Path) -> None:
        """Load a file; it computes on as many threads as torch does.

        Raises:
            InputError: It is no ONNX file, or refers to others.
            MissingDependencyError: ONNX Runtime is not installed.
        """
        with import_from_extra("onnx", why="ONNX variants of a model need ONNX Runtime"):
            import onnxruntime
        data = path.read_bytes()
        _refuse_other_files(data, name=path.name)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            self._session = onnxruntime.InferenceSession(
                data, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise InputError(f"{path.name} cannot be run by ONNX Runtime: {error}") from error
        self._names = [value.name for value in self._session.get_inputs()]

    def __call__(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Compute.

        Raises:
            RuntimeError: The inputs do not fit.
        """
        arrays = {name: given.numpy() for name, given in zip(self._names, inputs, strict=True)}
        try:
            computed = self._session.run(None, arrays)
        except Exception as error:  # of any class: ONNX Runtime's own have no common one
            raise RuntimeError(str(error)) from error
        outputs = tuple(torch.from_numpy(array) for array in computed)
        return outputs[0] if len(outputs) == 1 else outputs


def _refuse_other_files(data: bytes, *, name: str) -> None:
    import onnx

    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:
        raise InputError(f"{name} is not an ONNX file: {error}.") from error
    for tensor in _find_tensors(model):
        if tensor.external_data or tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise InputError(
                f"{name} takes {tensor.name!r} from another file; all of it must be inside."
            )


def _find_tensors(message: Any) -> Iterator[Any]:  # protobuf messages, which have no types here
    """Every tensor in a model, those of subgraphs and functions too."""
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for item in value if isinstance(value, list) or hasattr(value, "add") else (value,):
            if field.message_type.name == "TensorProto":
                yield item
            else:
                yield from _find_tensors(item)
