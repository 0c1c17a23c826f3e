"""Defaults and rules of an experiment's trial template.

Beyond Katib's rules, a template is refused when its job's kind is not run here, its primary
container does not exist, or a condition cannot be read: each would leave trials waiting for ever.

Source: katib v0.19 `experiment_defaults.go`, `validator.go` (validateTrialTemplate).
"""

from __future__ import annotations

from collections.abc import Iterator

from kubeloop.errors import InputError
from kubeloop.local.api.admission.base import ObjectReader
from kubeloop.local.api.admission.shapes import find_wrong_types
from kubeloop.local.api.refusals import FieldError, value_invalid, value_required
from kubeloop.local.api.resources import CONFIG_MAPS, JOBS, PYTORCH_JOBS
from kubeloop.local.client import Manifest
from kubeloop.local.operators.katib.gjson import parse_path
from kubeloop.local.operators.katib.templates import (
    PLACEHOLDER,
    is_meta_reference,
    parse_manifest,
    placeholder,
    read_template,
)

_PATH = "spec.trialTemplate"
_PARAMETERS = f"{_PATH}.trialParameters"
_STAND_IN = "test-value"
_TRAINING_KINDS = ("TFJob", "PyTorchJob", "XGBoostJob", "MPIJob")
_SERVED = (JOBS, PYTORCH_JOBS)
_NAME_RULE = "name and reference must be specified and name must not contain '{' or '}'"
_POD_TEMPLATE = {"spec": {"containers": [{"name": str}]}}
_JOB_SCHEMA = {
    "apiVersion": str,
    "kind": str,
    "metadata": {"name": str, "namespace": str, "labels": dict, "annotations": dict},
}


def default_template(template: Manifest) -> None:
    """Fill in conditions and primary pod labels for the kinds that Katib knows."""
    job = template.get("trialSpec")
    if not job or template.get("configMap"):
        return
    kind, api_version = job.get("kind"), str(job.get("apiVersion", ""))
    if kind == "Job" and api_version.startswith("batch/"):
        _fill(template, success="Complete", labels={})
    elif kind in _TRAINING_KINDS:
        _fill(template, success="Succeeded", labels={"training.kubeflow.org/job-role": "master"})
    elif kind == "TrainJob":
        labels = {
            "jobset.sigs.k8s.io/replicatedjob-name": "node",
            "batch.kubernetes.io/job-completion-index": "0",
        }
        _fill(template, success="Complete", labels=labels)


def find_template_faults(spec: Manifest, *, read: ObjectReader) -> Iterator[FieldError]:
    """The faults of the trial template of an experiment's spec."""
    template = spec.get("trialTemplate")
    if not template:
        yield value_required(_PATH, "must be specified")
        return
    if not template.get("primaryContainerName"):
        yield value_required(f"{_PATH}.primaryContainerName", "must be specified")
    yield from _find_condition_faults(template)
    source_fault = _find_source_fault(template)
    if source_fault is not None:
        yield source_fault
        return
    try:
        text = read_template(
            template, lambda namespace, name: read(CONFIG_MAPS, name, namespace=namespace)
        )
    except InputError as error:
        yield value_invalid(_PATH, "", f"unable to parse {_PATH}: {error}")
        return
    faults = [*_find_parameter_faults(spec, text)]
    yield from faults
    for parameter in template["trialParameters"]:
        text = text.replace(placeholder(parameter.get("name", "")), _STAND_IN)
    if left := sorted(set(PLACEHOLDER.findall(text))) if not faults else ():
        yield value_invalid(_PATH, "", f"parameters: {left} in {_PATH} not found in {_PARAMETERS}")
    yield from _find_job_faults(text, template)


def _fill(template: Manifest, *, success: str, labels: dict[str, str]) -> None:
    for field, condition in (("successCondition", success), ("failureCondition", "Failed")):
        if not template.get(field):
            template[field] = f'status.conditions.#(type=="{condition}")#|#(status=="True")#'
    if labels and not template.get("primaryPodLabels"):
        template["primaryPodLabels"] = labels


def _find_condition_faults(template: Manifest) -> Iterator[FieldError]:
    if not template.get("successCondition") or not template.get("failureCondition"):
        yield value_required(_PATH, "successCondition and failureCondition must be specified")
    for field in ("successCondition", "failureCondition"):
        condition = template.get(field)
        if not condition:
            continue
        try:
            parse_path(condition)
        except InputError as error:
            yield value_invalid(f"{_PATH}.{field}", condition, str(error))


def _find_source_fault(template: Manifest) -> FieldError | None:
    job, config_map = template.get("trialSpec"), template.get("configMap")
    if not template.get("trialParameters"):
        return value_required(_PARAMETERS, "must be specified")
    if job is None and config_map is None:
        return value_required(
            f"{_PATH}.TrialSource",
            f"{_PATH}.trialSpec or {_PATH}.configMap must be specified",
        )
    if job is not None and config_map is not None:
        return value_required(
            _PATH, f"only one of {_PATH}.trialSpec or {_PATH}.configMap can be specified"
        )
    fields = ("configMapName", "configMapNamespace", "templatePath")
    if config_map is not None and not all(config_map.get(field) for field in fields):
        return value_required(
            f"{_PATH}.configMap",
            "configMapName, configMapNamespace and templatePath must be specified",
        )
    return None


def _find_parameter_faults(spec: Manifest, text: str) -> Iterator[FieldError]:
    searched = {parameter.get("name") for parameter in spec.get("parameters") or ()}
    names: set[str] = set()
    references: set[str] = set()
    for index, parameter in enumerate(spec["trialTemplate"]["trialParameters"]):
        where = f"{_PARAMETERS}[{index}]"
        name, reference = parameter.get("name") or "", parameter.get("reference") or ""
        if not name or not reference or "{" in name or "}" in name:
            yield value_invalid(
                where,
                "",
                "name and reference must be specified and name must not contain '{' or '}'",
            )
            continue
        for field, value, seen in (("name", name, names), ("reference", reference, references)):
            if value in seen:
                yield value_invalid(
                    f"{where}.{field}",
                    value,
                    f"parameter {field} {value} can't be duplicated in {_PARAMETERS}",
                )
            seen.add(value)
        if searched and not is_meta_reference(reference) and reference not in searched:
            yield value_invalid(
                f"{where}.reference",
                reference,
                f"parameter reference {reference} does not exist in spec.parameters: "
                f"{sorted(map(str, searched))}",
            )
        if placeholder(name) not in text:
            yield value_invalid(
                f"{where}.name",
                name,
                f"parameter name: {name} in spec.trialParameters not found in {_PATH}: {text}",
            )


def _find_job_faults(text: str, template: Manifest) -> Iterator[FieldError]:
    try:
        job = parse_manifest(text)
    except InputError:
        yield value_invalid(_PATH, "", f"unable to convert {_PATH}: {text} to unstructured")
        return
    if wrong := [*_find_wrong_shapes(job)]:
        yield from wrong
        return
    metadata = job.get("metadata") or {}
    if metadata.get("name") or metadata.get("namespace"):
        yield value_invalid(
            _PATH, "", f"metadata.name and metadata.namespace in {_PATH} must be omitted"
        )
    api_version, kind = job.get("apiVersion"), job.get("kind")
    if not api_version or not kind:
        yield value_required(_PATH, f"APIVersion and Kind in {_PATH} must be specified")
        return
    if (api_version, kind) not in [(served.api_version, served.kind) for served in _SERVED]:
        listed = ", ".join(f"{served.kind} ({served.api_version})" for served in _SERVED)
        yield value_invalid(
            _PATH,
            "",
            f"invalid {_PATH}: {kind} ({api_version}) is not run by the embedded control plane; "
            f"use one of {listed}",
        )
        return
    names, primary = _container_names(job), template.get("primaryContainerName")
    if primary and primary not in names:
        yield value_invalid(
            f"{_PATH}.primaryContainerName",
            primary,
            f"the template has no container of this name, only {sorted(names)}",
        )


def _find_wrong_shapes(job: Manifest) -> Iterator[FieldError]:
    spec = job.get("spec")
    replicas = spec.get("pytorchReplicaSpecs") if isinstance(spec, dict) else None
    types = replicas if isinstance(replicas, dict) else {}
    spec_schema = {
        "template": _POD_TEMPLATE,
        "pytorchReplicaSpecs": {key: {"template": _POD_TEMPLATE} for key in types},
    }
    yield from find_wrong_types(f"{_PATH}.trialSpec", job, {**_JOB_SCHEMA, "spec": spec_schema})


def _container_names(job: Manifest) -> set[str]:
    spec = job.get("spec") or {}
    replicas = spec.get("pytorchReplicaSpecs") or {}
    templates = [(replica or {}).get("template") for replica in replicas.values()]
    return {
        str(container.get("name"))
        for template in [spec.get("template"), *templates]
        for container in ((template or {}).get("spec") or {}).get("containers") or ()
    }
