"""Makes an exported program fast to call, without changing what it computes.

Exported programs are run as they were traced: every batch norm by itself, every weight looked up
through the module tree, every input checked again. For a small model that costs more than its
arithmetic. Folding batch norms into the convolutions before them and calling the traced code with
flat tensors takes a small network to less than half its time. The result is compared with the
original before it is used.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, fx, nn

logger = logging.getLogger(__name__)

Program = Callable[..., Any]  # tensors to a tensor, or to a tuple of tensors

_TOLERANCE = 1e-4
_CONV_ARGUMENTS = 3  # input, weight, bias; the rest does not matter here
_BATCH_NORM_ARGUMENTS = 9


def speed_up(module: Program, samples: Sequence[tuple[Tensor, ...]]) -> Program:
    """A function that computes what `module` computes, faster where that is possible.

    Args:
        module: A program as `ModelPackage.load_model` returns it.
        samples: Inputs on which both must agree.

    Returns:
        The faster function, or `module` itself where it is no traced graph or the two differ.
    """
    if not isinstance(module, fx.GraphModule):
        return module
    try:
        fast = _compile(module)
        difference = max(_compare(module, fast, sample) for sample in samples)
    except (RuntimeError, AttributeError, TypeError, ValueError, IndexError, KeyError) as error:
        logger.warning("program kept as it is", extra={"cause": repr(error)})
        return module
    if not difference <= _TOLERANCE:
        logger.warning("program kept as it is", extra={"difference": difference})
        return module
    return fast


def _compare(module: nn.Module, fast: Program, sample: tuple[Tensor, ...]) -> float:
    with torch.inference_mode():
        expected, actual = module(*sample), fast(*sample)
    if isinstance(expected, Tensor):
        expected, actual = (expected,), (actual,)
    pairs = zip(expected, actual, strict=True)
    return max(float((one.double() - other.double()).abs().max()) for one, other in pairs)


def _compile(module: fx.GraphModule) -> Program:
    graph = fx.Graph()
    output = graph.graph_copy(module.graph, {})
    graph.output(output)
    graph.set_codegen(module.graph._codegen)  # noqa: SLF001  # how inputs and outputs are packed
    tensors: dict[str, Any] = {
        str(node.target): _find_attribute(module, str(node.target))
        for node in graph.nodes
        if node.op == "get_attr"
    }
    _drop_checks(graph)
    for node in list(graph.nodes):
        if node.target is torch.ops.aten.batch_norm.default:
            _fold(graph, node, tensors)
    graph.eliminate_dead_code()
    return _bind(module, graph, tensors)


def _find_attribute(module: nn.Module, path: str) -> Any:  # a tensor, or a constant
    found: Any = module
    for name in path.split("."):
        found = getattr(found, name)
    return found


def _drop_checks(graph: fx.Graph) -> None:
    """Input checks are the server's; it has made them when it calls."""
    for node in reversed(list(graph.nodes)):
        is_guard = node.op == "call_module" and node.target == "_guards_fn"
        is_check = node.target is torch.ops.aten._assert_tensor_metadata.default  # noqa: SLF001
        if (is_guard or is_check) and not node.users:
            graph.erase_node(node)


def _fold(graph: fx.Graph, norm: fx.Node, tensors: dict[str, Any]) -> None:
    """Put a batch norm into the convolution that alone feeds it."""
    conv = norm.args[0]
    if len(norm.args) != _BATCH_NORM_ARGUMENTS or not isinstance(conv, fx.Node):
        return
    if conv.target is not torch.ops.aten.conv2d.default or len(conv.users) != 1:
        return
    _, scale, shift, mean, variance, is_training, _, epsilon, _ = norm.args
    given = [*conv.args, None][:_CONV_ARGUMENTS]
    kernel, bias = _value(given[1], tensors), _value(given[2], tensors)
    found = [_value(argument, tensors) for argument in (scale, shift, mean, variance)]
    norms = [value.detach().double() for value in found if value is not None]
    if is_training or kernel is None or len(norms) != len(found):
        return
    gamma, beta, center, spread = norms
    factor = gamma / torch.sqrt(spread + float(str(epsilon)))
    moved = -center if bias is None else bias.detach().double() - center
    new_kernel = (kernel.detach().double() * factor.reshape(-1, 1, 1, 1)).to(kernel.dtype)
    new_bias = (moved * factor + beta).to(kernel.dtype)
    names = f"_folded_{norm.name}_kernel", f"_folded_{norm.name}_bias"
    tensors[names[0]] = new_kernel.contiguous(memory_format=torch.channels_last)
    tensors[names[1]] = new_bias
    with graph.inserting_before(conv):
        folded = [graph.create_node("get_attr", name) for name in names]
    conv.args = (conv.args[0], *folded, *conv.args[_CONV_ARGUMENTS:])
    norm.replace_all_uses_with(conv)
    graph.erase_node(norm)


def _value(node: Any, tensors: dict[str, Any]) -> Tensor | None:  # node: any argument
    if not isinstance(node, fx.Node) or node.op != "get_attr":
        return None
    value = tensors[str(node.target)]
    return value if isinstance(value, Tensor) else None


def _bind(module: fx.GraphModule, graph: fx.Graph, tensors: dict[str, Any]) -> Program:
    """Call the graph's code on a plain object, so that no module machinery runs."""
    holder = SimpleNamespace(
        _in_spec=getattr(module, "_in_spec", None), _out_spec=getattr(module, "_out_spec", None)
    )
    root = nn.Module()
    for index, node in enumerate(node for node in graph.nodes if node.op == "get_attr"):
        value, name = tensors[str(node.target)], f"t{index}"
        value = value.detach() if isinstance(value, Tensor) else value
        setattr(holder, name, value)
        setattr(root, name, value)
        node.target = name
    run = type(fx.GraphModule(root, graph)).forward
    return lambda *inputs: run(holder, *inputs)
