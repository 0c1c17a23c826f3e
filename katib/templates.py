"""Makes trial templates out of jobs: values of hyperparameters become `${trialParameters.x}`."""

from __future__ import annotations

import copy
import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from kubeflow.katib import V1beta1TrialParameterSpec

from kubeloop.errors import InputError

Manifest = dict[str, Any]  # raw JSON of one object

TRIAL_NAME = "${trialParameters.trialName}"
"""Stands for the trial's name in a job, for instance in the URI of the trial's model."""

_TRIAL_NAME_PARAMETER = "trialName"
_TRIAL_NAME_REFERENCE = "${trialSpec.Name}"
_PLACEHOLDER = re.compile(r"\$\{trialParameters\.(.+?)\}")
_SPECIAL = re.compile(r'(\$\{trialParameters\..+?\})|([\\"$`])')
"""A placeholder, or what has a meaning within double quotes."""
_DEFAULT_CONTAINERS = {"PyTorchJob": "pytorch"}
_PRIMARY_PODS = {"PyTorchJob": ("spec", "pytorchReplicaSpecs", "Master"), "Job": ("spec",)}
_SCRIPTS = (["sh", "-c"], ["bash", "-c"])


def placeholder(name: str) -> str:
    """What stands for a hyperparameter in a job."""
    return f"${{trialParameters.{name}}}"


def build_trial_spec(job: object, names: Iterable[str]) -> Manifest:
    """The template of a trial's job.

    Args:
        job: A manifest, or a typed model of a Kubernetes SDK. Where a container's command or args
            pass `--name value` or `--name=value` for a searched name, the value is replaced; a
            `${trialParameters.name}` that is there already stays.
        names: The searched hyperparameters.

    Raises:
        InputError: The job takes no such hyperparameter, or waits for one that is not searched.
    """
    template = copy.deepcopy(render(job))
    metadata = template.get("metadata") or {}
    template["metadata"] = {k: v for k, v in metadata.items() if k not in ("name", "namespace")}
    template.pop("status", None)
    names = list(names)
    for name in names:
        if placeholder(name) in json.dumps(template):
            continue
        if not sum(_replace(arguments, name) for arguments in _find_arguments(template)):
            raise InputError(
                f"search_space.{name} is not taken by the trial's job: pass --{name} VALUE in a "
                f"container's args, or write {placeholder(name)} where its value belongs."
            )
    unknown = set(_PLACEHOLDER.findall(json.dumps(template))) - {*names, _TRIAL_NAME_PARAMETER}
    if unknown:
        raise InputError(
            f"The trial's job waits for {', '.join(sorted(unknown))}, which is not in "
            f"search_space; known are: {', '.join(names)}."
        )
    return template


def build_trial_parameters(
    template: Manifest, names: Iterable[str]
) -> list[V1beta1TrialParameterSpec]:
    """What Katib puts in place of each placeholder."""
    parameters = [V1beta1TrialParameterSpec(name=name, reference=name) for name in names]
    if TRIAL_NAME in json.dumps(template):
        parameters.append(
            V1beta1TrialParameterSpec(name=_TRIAL_NAME_PARAMETER, reference=_TRIAL_NAME_REFERENCE)
        )
    return parameters


def find_primary_container(template: Manifest, *, wanted: str = "") -> str:
    """The container whose output holds the metrics.

    Args:
        template: The template.
        wanted: Its name; empty: the only one, or the usual of the kind.

    Raises:
        InputError: There is none of that name, or which one is not clear.
    """
    names = sorted({str(container.get("name")) for container in _find_containers(template)})
    if wanted in names:
        return wanted
    usual = _DEFAULT_CONTAINERS.get(str(template.get("kind")))
    if usual in names and not wanted:
        return str(usual)
    if len(names) != 1 or wanted:
        raise InputError(
            f"primary_container must name the container that prints the metrics"
            f"{f', not {wanted!r}' if wanted else ''}; the trial's job has "
            f"{', '.join(names) or 'none'}."
        )
    return names[0]


def quote_for_shell(template: Manifest, *, container: str, texts: Iterable[str]) -> None:
    """Quote the words of the primary container's command, which Katib hands to a shell.

    Katib does so in pods whose metrics it collects: of a PyTorchJob only in the master.

    Args:
        template: The template, which is changed.
        container: The primary container.
        texts: Parameters whose values may have blanks or other characters of the shell's.
    """
    place: Any = template
    if template.get("kind") in _PRIMARY_PODS:
        for key in _PRIMARY_PODS[str(template["kind"])]:
            place = place.get(key) or {}
    held = tuple(map(placeholder, texts))
    for found in _find_containers(place):
        if found.get("name") != container or (found.get("command") or [])[:2] in _SCRIPTS:
            continue
        for key in ("command", "args"):
            if isinstance(found.get(key), list):
                found[key] = [_quote(str(word), held) for word in found[key]]


def _quote(word: str, held: tuple[str, ...]) -> str:
    """A word for the shell: single quotes around what is fixed, double ones around values."""
    if any(each in word for each in held):
        escaped = _SPECIAL.sub(lambda found: found[1] or f"\\{found[2]}", word)
        return f'"{escaped}"'
    without_values = _PLACEHOLDER.sub("x", word)
    return word if shlex.quote(without_values) == without_values else shlex.quote(word)


def render(job: object) -> Manifest:
    """A manifest of the caller's own from a manifest or a typed model.

    Raises:
        InputError: It is neither.
    """
    if isinstance(job, Mapping):
        manifest: Any = json.loads(json.dumps(job))
    else:
        from kubernetes.client import ApiClient

        manifest = ApiClient().sanitize_for_serialization(job)
    is_object = isinstance(manifest, dict) and manifest.get("kind") and manifest.get("apiVersion")
    if not is_object:
        raise InputError(
            f"job must be a Kubernetes object, as a manifest or a typed model, not {job!r}."
        )
    return dict(manifest)


def _find_containers(node: object) -> Iterator[Manifest]:
    if isinstance(node, list):
        for item in node:
            yield from _find_containers(item)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key == "containers" and isinstance(value, list):
                yield from (item for item in value if isinstance(item, dict))
            else:
                yield from _find_containers(value)


def _find_arguments(template: Manifest) -> Iterator[list[Any]]:
    for container in _find_containers(template):
        for key in ("command", "args"):
            if isinstance(container.get(key), list):
                yield container[key]


def _replace(arguments: list[Any], name: str) -> int:
    """Replace the value of a flag wherever it is; says how often it was there."""
    flags = {f"--{name}", f"--{name.replace('_', '-')}"}
    num_found = 0
    for index, argument in enumerate(arguments):
        flag, equals, _ = str(argument).partition("=")
        if flag not in flags:
            continue
        if equals:
            arguments[index] = f"{flag}={placeholder(name)}"
        elif index + 1 < len(arguments):
            arguments[index + 1] = placeholder(name)
        else:
            continue
        num_found += 1
    return num_found
