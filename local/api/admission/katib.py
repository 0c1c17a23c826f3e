"""Katib's webhooks for Experiments: defaults are stored, and wrong experiments are refused.

A refusal is a plain 400 that lists every fault with its field; a field of the wrong type is refused
first. What the embedded plane cannot run (an algorithm, a collector, a job kind) is refused here
rather than left hanging. An update that leaves the spec alone is not looked at.

Source: katib v0.19 `experiment_defaults.go`, `webhook/v1beta1/experiment/validator/validator.go`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import ClassVar

from kubeloop.errors import ApiError, InputError
from kubeloop.katib.early_stopping import EARLY_STOPPING
from kubeloop.katib.suggestion import ALGORITHMS
from kubeloop.local.api.admission.base import Admission, ObjectReader
from kubeloop.local.api.admission.katib_collectors import default_collector, find_collector_faults
from kubeloop.local.api.admission.katib_templates import default_template, find_template_faults
from kubeloop.local.api.admission.shapes import find_wrong_types
from kubeloop.local.api.refusals import (
    FieldError,
    value_forbidden,
    value_invalid,
    value_required,
)
from kubeloop.local.api.resources import CONFIG_MAPS, EXPERIMENTS, NAMESPACES, Resource
from kubeloop.local.client import Manifest
from kubeloop.local.operators.conditions import conditions_of, is_condition_true
from kubeloop.local.operators.katib.experiment_status import is_resumable
from kubeloop.local.operators.katib.katib_config import (
    CONFIG_NAME,
    CONFIG_NAMESPACE,
    Endpoints,
    read_endpoints,
)
from kubeloop.local.operators.katib.terms import (
    FAILED,
    FROM_VOLUME,
    INJECTION_LABEL,
    LONG_RUNNING,
    NEVER,
    SUCCEEDED,
)

_WEBHOOK = "validator.experiment.katib.kubeflow.org"
_DEFAULT_PARALLEL_TRIALS = 3
_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_MAX_NAME_LENGTH = 40
_NAME_RULE = (
    "name must consist of lower case alphanumeric characters or '-', start with an alphabetic "
    "character, end with an alphanumeric character, and have at most 40 characters (e.g. 'my-name')"
)
_STRATEGIES = {"minimize": "min", "maximize": "max"}
_PARAMETER_TYPES = ("int", "double", "categorical", "discrete")
_DISTRIBUTIONS = ("uniform", "logUniform", "normal", "logNormal")
_BUDGET = ("parallelTrialCount", "maxTrialCount", "maxFailedTrialCount")
_SETTINGS = {"algorithmName": str, "algorithmSettings": [{"name": str, "value": str}]}
_PARAMETER = {
    "name": str,
    "parameterType": str,
    "feasibleSpace": {"min": str, "max": str, "step": str, "list": [str], "distribution": str},
}
_SCHEMA = {
    "objective": {
        "type": str,
        "goal": float,
        "objectiveMetricName": str,
        "additionalMetricNames": [str],
        "metricStrategies": [{"name": str, "value": str}],
    },
    "algorithm": _SETTINGS,
    "earlyStopping": _SETTINGS,
    "parallelTrialCount": int,
    "maxTrialCount": int,
    "maxFailedTrialCount": int,
    "resumePolicy": str,
    "parameters": [_PARAMETER],
    "nasConfig": {
        "graphConfig": {"numLayers": int, "inputSizes": [int], "outputSizes": [int]},
        "operations": [{"operationType": str, "parameters": [_PARAMETER]}],
    },
    "trialTemplate": {
        "retain": bool,
        "trialSpec": dict,
        "configMap": {"configMapName": str, "configMapNamespace": str, "templatePath": str},
        "trialParameters": [{"name": str, "description": str, "reference": str}],
        "primaryContainerName": str,
        "primaryPodLabels": dict,
        "successCondition": str,
        "failureCondition": str,
    },
    "metricsCollectorSpec": {
        "collector": {"kind": str, "customCollector": dict},
        "source": {
            "fileSystemPath": {"kind": str, "path": str, "format": str},
            "httpGet": dict,
            "filter": {"metricsFormat": [str]},
        },
    },
}


class ExperimentAdmission(Admission):
    """Defaults and validates Experiments."""

    resource: ClassVar[Resource] = EXPERIMENTS

    def __init__(self, read: ObjectReader) -> None:
        """Look up namespaces and trial templates with `read`."""
        self._read = read

    def default(self, manifest: Manifest) -> Manifest:
        """Fill in the spec, as far as it is well-formed."""
        if any(_find_wrong_shapes(manifest)):
            return manifest
        spec = manifest["spec"]
        if spec.get("parallelTrialCount") is None:
            spec["parallelTrialCount"] = _DEFAULT_PARALLEL_TRIALS
        spec["resumePolicy"] = spec.get("resumePolicy") or NEVER
        if spec.get("objective"):
            _default_strategies(spec["objective"])
        for parameter in spec.get("parameters") or ():
            if space := parameter.get("feasibleSpace"):
                space["distribution"] = space.get("distribution") or "uniform"
        if spec.get("trialTemplate"):
            default_template(spec["trialTemplate"])
        default_collector(spec)
        return manifest

    def validate(self, manifest: Manifest, old: Manifest | None) -> None:
        """Refuse an experiment that could not run, or a change that may not be made.

        Raises:
            ApiError: 400, with every fault.
        """
        if old is not None and manifest.get("spec") == old.get("spec"):
            return
        if wrong := [*_find_wrong_shapes(manifest)]:
            raise _refusal(wrong)
        self._check_namespace(manifest)
        faults = [*_find_own_faults(manifest)]
        if old is not None:
            faults += _find_change_faults(manifest, old)
        objective = [*_find_objective_faults(manifest["spec"].get("objective"))]
        faults += objective or self._find_rest(manifest["spec"])
        if faults:
            raise _refusal(faults)

    def _check_namespace(self, manifest: Manifest) -> None:
        name, namespace = manifest["metadata"]["name"], manifest["metadata"]["namespace"]
        found = self._read(NAMESPACES, namespace) or {"metadata": {}}
        if (found["metadata"].get("labels") or {}).get(INJECTION_LABEL) != "enabled":
            raise _denial(
                f'Cannot create the Experiment "{name}" in namespace "{namespace}": the namespace '
                f'lacks label "{INJECTION_LABEL}: enabled"'
            )

    def _find_rest(self, spec: Manifest) -> Iterable[FieldError]:
        config = self._read(CONFIG_MAPS, CONFIG_NAME, namespace=CONFIG_NAMESPACE)
        try:
            endpoints = read_endpoints(config)
        except InputError as error:
            yield value_invalid("spec.algorithm", spec.get("algorithm"), str(error))
            return
        yield from _find_algorithm_faults(spec.get("algorithm"), endpoints)
        yield from _find_early_stopping_faults(spec.get("earlyStopping"), endpoints)
        if spec["resumePolicy"] not in (NEVER, LONG_RUNNING, FROM_VOLUME):
            yield value_invalid(
                "spec.resumePolicy", spec["resumePolicy"], "invalid ResumePolicyType"
            )
        yield from find_template_faults(spec, read=self._read)
        yield from _find_space_faults(spec)
        yield from find_collector_faults(spec["metricsCollectorSpec"])


def _find_wrong_shapes(manifest: Manifest) -> Iterator[FieldError]:
    spec = manifest.get("spec")
    if spec is None:
        yield value_required("spec", "must be specified")
        return
    yield from find_wrong_types("spec", spec, _SCHEMA)


def _default_strategies(objective: Manifest) -> None:
    names = [objective.get("objectiveMetricName"), *(objective.get("additionalMetricNames") or [])]
    strategies = objective["metricStrategies"] = objective.get("metricStrategies") or []
    known = {strategy.get("name") for strategy in strategies}
    value = _STRATEGIES.get(objective.get("type", ""), "latest")
    strategies += [
        {"name": name, "value": value}
        for name in dict.fromkeys(names)
        if name and name not in known
    ]


def _find_own_faults(manifest: Manifest) -> Iterator[FieldError]:
    name, spec = manifest["metadata"]["name"], manifest["spec"]
    if len(name) > _MAX_NAME_LENGTH or not _NAME.fullmatch(name):
        yield value_invalid("metadata.name", name, _NAME_RULE)
    parallel, maximum, failed = (spec.get(count) for count in _BUDGET)
    if failed is not None and failed < 0:
        yield value_invalid("spec.maxFailedTrialCount", failed, "should not be less than 0")
    for count, value in (("maxTrialCount", maximum), ("parallelTrialCount", parallel)):
        if value is not None and value <= 0:
            yield value_invalid(f"spec.{count}", value, "must be greater than 0")
    for count, value in (("maxFailedTrialCount", failed), ("parallelTrialCount", parallel)):
        if value is not None and maximum is not None and value > maximum:
            yield value_invalid(
                f"spec.{count}", value, "should be less than or equal to spec.maxTrialCount"
            )


def _find_change_faults(manifest: Manifest, old: Manifest) -> Iterator[FieldError]:
    spec, old_spec = manifest["spec"], old["spec"]
    conditions = conditions_of(old)
    is_over = any(is_condition_true(conditions, end) for end in (SUCCEEDED, FAILED))
    if is_over and not is_resumable(old):
        yield value_invalid(
            "spec.resumePolicy",
            spec.get("resumePolicy"),
            "Experiment can be restarted if it is in succeeded state by reaching max trials and "
            f"spec.resumePolicy = {LONG_RUNNING} or spec.resumePolicy = {FROM_VOLUME}",
        )
    maximum = spec.get("maxTrialCount")
    if maximum is not None and maximum <= ((old.get("status") or {}).get("trials") or 0):
        yield value_invalid(
            "spec.maxTrialCount", maximum, "must be greater than status.trials count"
        )
    if _without_budget(spec) != _without_budget(old_spec):
        yield value_forbidden(
            "spec",
            "only spec.parallelTrialCount, spec.maxTrialCount and spec.maxFailedTrialCount are "
            "editable",
        )


def _without_budget(spec: Manifest) -> Manifest:
    return {key: value for key, value in spec.items() if key not in _BUDGET}


def _find_objective_faults(objective: Manifest | None) -> Iterator[FieldError]:
    path = "spec.objective"
    if not objective:
        yield value_required(path, "must be specified")
        return
    if objective.get("type") not in _STRATEGIES:
        yield value_invalid(
            f"{path}.type", objective.get("type", ""), "must be minimize or maximize"
        )
    name = objective.get("objectiveMetricName")
    if not name:
        yield value_required(f"{path}.objectiveMetricName", "must be specified")
    additional = objective.get("additionalMetricNames") or []
    if name in additional:
        yield value_invalid(
            f"{path}.additionalMetricNames",
            additional,
            "should not contain spec.objective.objectiveMetricName",
        )


def _find_algorithm_faults(
    algorithm: Manifest | None, endpoints: Endpoints
) -> Iterator[FieldError]:
    path = "spec.algorithm"
    if not algorithm:
        yield value_required(path, "must be specified")
        return
    name = algorithm.get("algorithmName") or ""
    if not name:
        yield value_required(f"{path}.algorithmName", "must be specified")
    known = {*ALGORITHMS, *endpoints.suggestions}
    if name not in known:
        yield value_invalid(
            f"{path}.algorithmName",
            name,
            f"unable to get Suggestion config data for algorithm {name}: known are "
            f"{', '.join(sorted(known))}",
        )


def _find_early_stopping_faults(
    early_stopping: Manifest | None, endpoints: Endpoints
) -> Iterator[FieldError]:
    path = "spec.earlyStopping"
    if early_stopping is None:
        return
    name = early_stopping.get("algorithmName") or ""
    if not name:
        yield value_required(f"{path}.algorithmName", "must be specified")
    known = {*EARLY_STOPPING, *endpoints.early_stoppings}
    if name not in known:
        yield value_invalid(
            f"{path}.algorithmName",
            name,
            f"unable to get EarlyStopping config data for algorithm {name}: known are "
            f"{', '.join(sorted(known))}",
        )


def _find_space_faults(spec: Manifest) -> Iterator[FieldError]:
    parameters, nas = spec.get("parameters") or [], spec.get("nasConfig")
    if not parameters and nas is None:
        yield value_required("spec", "spec.parameters or spec.nasConfig must be specified")
    if parameters and nas is not None:
        yield value_invalid(
            "spec", "", "only one of spec.parameters and spec.nasConfig can be specified"
        )
    for index, parameter in enumerate(parameters):
        yield from _find_parameter_faults(f"spec.parameters[{index}]", parameter)


def _find_parameter_faults(path: str, parameter: Manifest) -> Iterator[FieldError]:
    kind, space = parameter.get("parameterType") or "", parameter.get("feasibleSpace") or {}
    if kind not in _PARAMETER_TYPES:
        yield value_invalid(
            f"{path}.parameterType", kind, f"parameterType: {kind} is not supported"
        )
    distribution = space.get("distribution")
    if distribution and distribution not in _DISTRIBUTIONS:
        yield value_invalid(
            f"{path}.feasibleSpace.distribution",
            distribution,
            f"distribution: {distribution} is not supported",
        )
    if not any(space.values()):
        yield value_required(f"{path}.feasibleSpace", "feasibleSpace must be specified")
    elif kind in ("int", "double"):
        yield from _find_range_faults(f"{path}.feasibleSpace", kind, space)
    elif kind in ("categorical", "discrete"):
        yield from _find_list_faults(f"{path}.feasibleSpace", kind, space)


def _find_range_faults(path: str, kind: str, space: Manifest) -> Iterator[FieldError]:
    if space.get("list"):
        yield value_invalid(
            f"{path}.list",
            space["list"],
            f"feasibleSpace.list is not supported for parameterType: {kind}",
        )
    if not space.get("max") or not space.get("min"):
        yield value_required(
            f"{path}.max",
            f"feasibleSpace.max or feasibleSpace.min must be specified for parameterType: {kind}",
        )


def _find_list_faults(path: str, kind: str, space: Manifest) -> Iterator[FieldError]:
    if any(space.get(bound) for bound in ("max", "min", "step")):
        yield value_invalid(
            path,
            space,
            f"feasibleSpace .max, .min and .step is not supported for parameterType: {kind}",
        )
    if not space.get("list"):
        yield value_required(
            f"{path}.list", f"feasibleSpace.list must be specified for parameterType: {kind}"
        )


def _refusal(faults: Iterable[FieldError]) -> ApiError:
    texts = list(dict.fromkeys(f"{fault.field}: {fault.message}" for fault in faults))
    return _denial(texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]")


def _denial(text: str) -> ApiError:
    return ApiError(
        f'admission webhook "{_WEBHOOK}" denied the request: {text}',
        status=400,
        reason="BadRequest",
    )
