"""Which ServingRuntime runs a model.

Pure functions of the model's spec and the runtimes there are.

Source: kserve pkg/apis/serving/v1beta1/predictor_model.go,
pkg/apis/serving/v1alpha1/servingruntime_types.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kubeloop.local.client import Manifest

_PROTOCOLS = ("v1", "v2", "grpc-v1", "grpc-v2")


class PredictorProblemError(Exception):
    """The InferenceService cannot be run as it is; becomes its `lastFailureInfo`."""

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


def check_named_runtime(model: Manifest, runtime: Manifest | None) -> Manifest:
    """The runtime that the model names, if it can run it.

    Raises:
        PredictorProblemError: It is missing, disabled, or lacks the protocol or the format.
    """
    if runtime is None:
        raise PredictorProblemError(
            "Waiting for runtime to become available", reason="RuntimeNotRecognized"
        )
    spec = runtime["spec"]
    if spec.get("disabled"):
        raise PredictorProblemError("Specified runtime is disabled", reason="RuntimeDisabled")
    if not _speaks(spec, model.get("protocolVersion") or ""):
        raise PredictorProblemError(
            "Specified runtime does not support specified protocol version",
            reason="NoSupportingRuntime",
        )
    if not _supports(spec, model, only_auto_select=False):
        raise PredictorProblemError(
            "Specified runtime does not support specified framework/version",
            reason="NoSupportingRuntime",
        )
    return runtime


def choose_runtime(
    model: Manifest, *, namespaced: Sequence[Manifest], cluster_wide: Sequence[Manifest]
) -> Manifest:
    """The best runtime for a model that names none; those of the namespace come first.

    Raises:
        PredictorProblemError: Nothing fits.
    """
    for runtimes in (namespaced, cluster_wide):
        fitting = [runtime for runtime in _sort(runtimes) if _fits(runtime["spec"], model)]
        fitting.sort(key=lambda runtime: -_priority(runtime["spec"], model))
        if fitting:
            return fitting[0]
    raise PredictorProblemError(
        "No runtime found to support specified framework/version", reason="NoSupportingRuntime"
    )


def _fits(spec: Manifest, model: Manifest) -> bool:
    return (
        not spec.get("disabled")
        and not spec.get("multiModel")
        and "workerSpec" not in spec
        and _supports(spec, model, only_auto_select=True)
        and _speaks(spec, model.get("protocolVersion") or "v1")
    )


def _speaks(spec: Manifest, protocol: str) -> bool:
    spoken = spec.get("protocolVersions") or []
    return not protocol or not spoken or protocol in spoken


def _supports(spec: Manifest, model: Manifest, *, only_auto_select: bool) -> bool:
    wanted = model.get("modelFormat") or {}
    return any(
        entry["name"] == wanted.get("name")
        and wanted.get("version") in (None, "", entry.get("version"))
        for entry in spec.get("supportedModelFormats") or []
        if entry.get("autoSelect") or not only_auto_select
    )


def _priority(spec: Manifest, model: Manifest) -> int:
    name = (model.get("modelFormat") or {}).get("name")
    priorities = (
        entry.get("priority")
        for entry in spec.get("supportedModelFormats") or []
        if entry["name"] == name
    )
    return next((priority for priority in priorities if priority is not None), 0)


def _sort(runtimes: Iterable[Manifest]) -> list[Manifest]:
    """By the oldest protocol spoken, then newest first, then by name."""
    by_name = sorted(runtimes, key=lambda runtime: str(runtime["metadata"]["name"]))
    by_age = sorted(
        by_name,
        key=lambda runtime: str(runtime["metadata"].get("creationTimestamp", "")),
        reverse=True,
    )
    return sorted(by_age, key=lambda runtime: _oldest_protocol(runtime["spec"]))


def _oldest_protocol(spec: Manifest) -> int:
    spoken = [name for name in spec.get("protocolVersions") or [] if name in _PROTOCOLS]
    return min((_PROTOCOLS.index(name) + 1 for name in spoken), default=0)
