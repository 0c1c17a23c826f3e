"""Writes an exported program as ONNX, and an ONNX file in int8.

Two corrections of what torch.onnx writes are made here. `embedding_bag` becomes a loop over rows,
of which ONNX Runtime refuses some and is slow with the rest; ours is a scatter. And an index of 32
bits is passed on to an operator that takes 64.

Source: ONNX Runtime, "Quantize ONNX models" (static for convolutions, dynamic for the rest; weights
by channel; unsigned activations, which are the fast ones on x86).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from kubeloop.errors import InputError
from kubeloop.optional_imports import import_from_extra

_WEIGHTED = frozenset({"Conv", "Gemm", "MatMul"})
_WHY = "ONNX variants of a model need onnx, onnxscript and ONNX Runtime"

Arrays = Sequence[Any]  # numpy arrays, one for each input of the program


def export_onnx(program: ExportedProgram, path: Path) -> None:
    """Write a program as an ONNX file, the same bytes for the same program.

    Raises:
        InputError: It has operators that ONNX has no words for.
        MissingDependencyError: The extra is not installed.
    """
    with import_from_extra("onnx", why=_WHY):
        import onnx
        import onnxscript  # noqa: F401  # what torch.onnx needs
    operators = torch.ops.aten.embedding_bag
    bags: dict[Callable[..., Any], Callable[..., Any]] = {
        operators.default: _sum_bags,
        operators.padding_idx: _sum_bags,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch and onnxscript about themselves
        try:
            exported = torch.onnx.export(
                program, dynamo=True, verbose=False, custom_translation_table=bags
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise InputError(f"The model cannot be written as ONNX: {error}") from error
        assert exported is not None
        model = exported.model_proto
    _widen_indices(model.graph)
    _strip(model)
    path.write_bytes(model.SerializeToString(deterministic=True))
    onnx.checker.check_model(str(path))


def quantize(source: Path, target: Path, *, calibration: Iterable[Arrays] | None = None) -> None:
    """Write an ONNX file with weights of 8 bits, and products of 8 bits.

    Args:
        source: An ONNX file.
        target: Where the quantised one goes.
        calibration: Inputs of which the ranges of activations are taken, batch by batch; None: they
            are taken from each input anew, as it comes.

    Raises:
        InputError: ONNX Runtime cannot quantise it.
        MissingDependencyError: The extra is not installed.
    """
    with import_from_extra("onnx", why=_WHY):
        import onnx
        from onnxruntime import quantization
    model = onnx.load(source)
    # NB: the range is that of 7 bits. Sums of products of 8 bits overflow on processors without
    # VNNI, which would answer otherwise than the one that the variant was checked on.
    weights = {
        "weight_type": quantization.QuantType.QInt8,
        "per_channel": True,
        "reduce_range": True,
    }
    # NB: else ONNX Runtime logs advice to fold constants and norms, which torch.onnx has done.
    model.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
    try:
        if calibration is None:
            types = ["MatMul", "Gemm", "Gather"]
            quantization.quantize_dynamic(model, target, op_types_to_quantize=types, **weights)
        else:
            names = [value.name for value in model.graph.input]
            quantization.quantize_static(
                model,
                target,
                _build_reader(names, calibration),
                quant_format=quantization.QuantFormat.QDQ,
                activation_type=quantization.QuantType.QUInt8,
                nodes_to_quantize=_find_body(model.graph),
                **weights,
            )
    except Exception as error:
        raise InputError(f"The model cannot be quantised: {error}") from error
    quantized = onnx.load(target)
    _strip(quantized)
    target.write_bytes(quantized.SerializeToString(deterministic=True))


def _find_body(graph: Any) -> list[str]:  # protobuf, as below
    """The nodes from the first to the last that has weights.

    What prepares the input before them, and what makes probabilities of their scores, is cheap and
    stays exact.
    """
    weighted = [index for index, node in enumerate(graph.node) if node.op_type in _WEIGHTED]
    if not weighted:
        raise InputError("it has no convolution and no matrix product.")
    return [node.name for node in graph.node[weighted[0] : weighted[-1] + 1]]


def _build_reader(
    names: Sequence[str], batches: Iterable[Arrays]
) -> Any:  # a CalibrationDataReader
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # no types
        def __init__(self) -> None:
            self._batches: Iterator[Arrays] = iter(batches)

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self._batches, None)
            return None if batch is None else dict(zip(names, batch, strict=True))

    return Reader()


def _widen_indices(graph: Any) -> None:
    from onnx import TensorProto, helper

    for position in reversed(range(len(graph.node))):
        node = graph.node[position]
        if node.op_type == "GatherND":
            wide = f"{node.name}_indices"
            cast = helper.make_node(
                "Cast", [node.input[1]], [wide], name=f"{wide}_cast", to=TensorProto.INT64
            )
            node.input[1] = wide
            graph.node.insert(position, cast)


def _strip(model: Any) -> None:
    """Drop what was written for people, and shapes that quantisation would trip over."""
    model.ClearField("metadata_props")
    for message in (model.graph, *model.graph.node, *model.functions):
        message.ClearField("doc_string")
        message.ClearField("metadata_props")
    model.graph.ClearField("value_info")


def _sum_bags(
    weight: Any,  # of onnxscript, which traces this function: a value of the graph
    indices: Any,
    offsets: Any,
    scale_grad_by_freq: bool = False,  # noqa: FBT001, FBT002  # torch's signature
    mode: int = 0,
    sparse: bool = False,  # noqa: FBT001, FBT002
    per_sample_weights: Any = None,
    include_last_offset: bool = False,  # noqa: FBT001, FBT002
    padding_idx: int | None = None,
) -> tuple[Any, Any, Any, Any]:
    """`embedding_bag` with sums and means: rows are added to the bag that they are in."""
    from onnx import TensorProto
    from onnxscript import opset20 as op

    del scale_grad_by_freq, sparse  # of the gradient
    if mode not in (0, 1) or include_last_offset:
        raise InputError("embedding_bag is known to sum and to average, without a last offset.")
    integer = TensorProto.INT64
    indices, offsets = op.Cast(indices, to=integer), op.Cast(offsets, to=integer)
    zero, one = op.Constant(value_ints=[0]), op.Constant(value_ints=[1])
    nothing = op.Constant(value_floats=[0.0])
    shares = op.Expand(op.Constant(value_floats=[1.0]), op.Shape(indices))
    if padding_idx is not None:
        padding = op.Constant(value_ints=[padding_idx])
        shares = op.Cast(op.Not(op.Equal(indices, padding)), to=TensorProto.FLOAT)
    factors = shares if per_sample_weights is None else op.Mul(per_sample_weights, shares)
    rows = op.Mul(op.Gather(weight, indices), op.Unsqueeze(factors, one))

    num_indices, num_bags = op.Shape(indices), op.Shape(offsets)
    # A bag may be empty and start where the next one does, even behind the last index.
    starts = op.ScatterElements(
        op.Expand(zero, op.Add(num_indices, one)),
        offsets,
        op.Expand(one, num_bags),
        axis=0,
        reduction="add",
    )
    counted = op.CumSum(starts, op.Constant(value_int=0))
    bags = op.Slice(op.Sub(counted, one), zero, num_indices)

    places = op.Unsqueeze(bags, one)
    shape = op.Concat(num_bags, op.Shape(weight, start=1, end=2), axis=0)
    result = op.ScatterND(op.Expand(nothing, shape), places, rows, reduction="add")
    if mode == 1:
        counts = op.ScatterND(op.Expand(nothing, num_bags), places, shares, reduction="add")
        least = op.Max(counts, op.Constant(value_floats=[1.0]))
        result = op.Div(result, op.Unsqueeze(least, one))
    return result, bags, num_bags, num_bags
