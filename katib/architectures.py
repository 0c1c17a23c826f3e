"""The space of an architecture search, and Katib's `nasConfig`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kubeflow.katib import V1beta1GraphConfig, V1beta1NasConfig, V1beta1Operation

from kubeloop.katib.search_space import SearchSpace, build_parameters
from kubeloop.katib.suggestion import darts, enas

ASSIGNED_NAMES: Mapping[str, tuple[str, ...]] = {
    "enas": (enas.ARCHITECTURE, enas.NN_CONFIG),
    "darts": darts.ASSIGNED_NAMES,
}
"""What each algorithm tells a trial: write `${trialParameters.architecture}` and so on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchitectureSpace:
    """Networks of so many layers, each of which is one of some operations."""

    num_layers: int
    """Layers of a network, for `darts` cells."""
    operations: Mapping[str, SearchSpace]
    """By name of the operation, such as `convolution`, its parameters, such as `filter_size`."""
    input_sizes: tuple[int, ...] = ()
    """Height, width and channels of the input; `enas` needs them."""
    output_sizes: tuple[int, ...] = ()
    """Number of classes; `enas` needs it."""


def build_nas_config(space: ArchitectureSpace) -> V1beta1NasConfig:
    """Katib's configuration of an architecture search."""
    return V1beta1NasConfig(
        graph_config=V1beta1GraphConfig(
            num_layers=space.num_layers,
            input_sizes=list(space.input_sizes) or None,
            output_sizes=list(space.output_sizes) or None,
        ),
        operations=[
            V1beta1Operation(operation_type=kind, parameters=build_parameters(parameters))
            for kind, parameters in space.operations.items()
        ],
    )
