"""What each trial reported over time, from Katib's DB manager."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from kubeloop.errors import KubeloopError
from kubeloop.katib.clients import Client
from kubeloop.katib.results import ExperimentResult
from kubeloop.sdk_errors import translate_errors

_TIMEOUT_SECONDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """The objective's values by trial, in the order of their reports."""

    values: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    problem: str = ""
    """Why there are none."""


def read_curves(result: ExperimentResult, *, client: Client, address: str = "") -> Curves:
    """Read every trial's reports of the objective.

    Args:
        result: The experiment.
        client: Katib's client.
        address: HOST:PORT of the DB manager; empty: the one that Katib's SDK knows.
    """
    where = {"db_manager_address": address} if address else {}
    values: dict[str, tuple[float, ...]] = {}
    for trial in result.trials:
        try:
            with translate_errors(f"read the metrics of Trial {result.namespace}/{trial.name}"):
                logs = client.get_trial_metrics(
                    trial.name, namespace=result.namespace, timeout=_TIMEOUT_SECONDS, **where
                )
        except (KubeloopError, RuntimeError) as error:  # the SDK's, for all that gRPC can say
            return Curves(values=values, problem=str(error).splitlines()[0])
        found = (_parse(log.metric.value) for log in logs if _is_objective(log, result))
        values[trial.name] = tuple(value for value in found if value is not None)
    return Curves(values=values)


def _is_objective(log: object, result: ExperimentResult) -> bool:
    metric = log.metric  # type: ignore[attr-defined]  # a generated message
    return bool(metric.name == result.objective_metric)


def _parse(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
