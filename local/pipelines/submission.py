"""From a request to run a pipeline to the record of a run, refusing what cannot start.

Runs come from clients and from recurring runs, and are checked alike. Parameters are checked here
and not in the middle of the run: a wrong name or type is the most common mistake, and costs least
when it is answered at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kubeloop.local.pipelines.engine.executor import safe_name
from kubeloop.local.pipelines.engine.object_stores import parse_location
from kubeloop.local.pipelines.engine.recording import change_state
from kubeloop.local.pipelines.messages import as_message, text
from kubeloop.local.pipelines.rpc_errors import invalid, not_found, precondition
from kubeloop.local.pipelines.schedules.macros import MacroValues, fill_macros
from kubeloop.local.pipelines.service import Service
from kubeloop.local.pipelines.spec import ir
from kubeloop.local.pipelines.spec.documents import PipelineDocument, document_from_json
from kubeloop.local.pipelines.spec.parameters import find_parameter_faults
from kubeloop.local.pipelines.spec.parsing import parse_pipeline
from kubeloop.local.pipelines.spec.uris import is_local, local_path
from kubeloop.local.pipelines.spec.values import JsonValue, canonical
from kubeloop.local.pipelines.storage.records import (
    Experiment,
    Run,
    RuntimeState,
    StorageState,
    new_id,
)
from kubeloop.local.pipelines.storage.tables import Query

_SOURCES = ("pipeline_spec", "pipeline_version_reference", "pipeline_version_id")
_REFERENCE_FIELDS = ("pipeline_id", "pipeline_version_id")
_AZURE = "Azure's storage"
_ELSEWHERE = {"gs": "Google's storage"} | dict.fromkeys(
    ("abfs", "abfss", "az", "azblob", "azure", "wasb", "wasbs"), _AZURE
)
_S3_OF_GOOGLE = (
    " (s3:// with the endpoint storage.googleapis.com and an HMAC key reaches a bucket of Google's"
    " too)"
)
_CONFIG_FIELDS = ("parameters", "pipeline_root")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The pipeline to run, and the version it was taken from."""

    document: PipelineDocument
    pipeline_id: str = ""
    pipeline_version_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeConfig:
    """`runtime_config` of a run, as given."""

    parameters: Mapping[str, JsonValue]
    pipeline_root: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """A run to be made."""

    display_name: str
    source: Source
    config: RuntimeConfig
    experiment_id: str = ""
    """Empty: the default experiment."""
    description: str = ""
    service_account: str = ""
    recurring_run_id: str = ""
    scheduled_at: float | None = None
    """The tick of the recurring run; None: now."""
    index: int | None = None
    """The how-manieth run of the recurring run it is."""
    run_id: str = field(default_factory=new_id)


class Submission:
    """Makes runs of what clients and recurring runs ask for."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._store = service.store

    def read_source(self, message: Mapping[str, Any]) -> Source:
        """Find the pipeline that a `Run` or `RecurringRun` names.

        Raises:
            RpcError: It names none, several, or one that does not exist.
        """
        given = [name for name in _SOURCES if name in message]
        if len(given) > 1:
            raise invalid(f"Give one of {' and '.join(given)}, not several.")
        if "pipeline_spec" in message:
            return Source(document=document_from_json(message["pipeline_spec"]))
        reference = as_message(
            message.get("pipeline_version_reference", {}),
            kind="PipelineVersionReference",
            fields=_REFERENCE_FIELDS,
        )
        version_id = text(reference, "pipeline_version_id") or text(message, "pipeline_version_id")
        pipeline_id = text(reference, "pipeline_id")
        if not version_id and not pipeline_id:
            raise invalid("Give a pipeline_spec or a pipeline_version_reference: what to run.")
        return self.find_source(pipeline_id, version_id)

    def find_source(self, pipeline_id: str, version_id: str) -> Source:
        """Find a pipeline's version, its latest where `version_id` is empty."""
        versions = self._store.versions
        if version_id:
            version = versions.get(version_id)
            if version is None:
                raise not_found("Pipeline version", version_id)
            if pipeline_id not in ("", version.pipeline_id):
                raise invalid(
                    f"Pipeline version {version_id!r} belongs to pipeline "
                    f"{version.pipeline_id!r}, not to {pipeline_id!r}."
                )
        else:
            own = Query(where="pipeline_id = ?", values=(pipeline_id,))
            latest = versions.select(replace(own, order="created_at DESC, rowid DESC", limit=1))
            if not latest:
                raise not_found("Pipeline with a version", pipeline_id)
            version = latest[0]
        return Source(
            document=document_from_json(version.spec),
            pipeline_id=version.pipeline_id,
            pipeline_version_id=version.pipeline_version_id,
        )

    def find_experiment(self, identifier: str) -> Experiment:
        """The experiment to run in; the default one where none is named.

        Raises:
            RpcError: It does not exist, or is archived.
        """
        if not identifier:
            return self._store.default_experiment(
                namespace=self._service.namespace, now=self._service.clock()
            )
        experiment = self._store.experiments.get(identifier)
        if experiment is None:
            raise not_found("Experiment", identifier)
        if experiment.storage_state is StorageState.ARCHIVED:
            raise precondition(
                f"Experiment {experiment.display_name!r} is archived; unarchive it first."
            )
        return experiment

    def check(self, source: Source, config: RuntimeConfig) -> None:
        """Check that a pipeline can run with a configuration.

        Raises:
            InputError: The pipeline cannot run.
            RpcError: A parameter or the root is not acceptable.
        """
        pipeline = parse_pipeline(source.document)
        check_parameters(pipeline, config.parameters)
        self._choose_root(pipeline, config, run_id="")

    def create(self, request: RunRequest) -> Run:
        """Store a new run, for the engine to pick up.

        Raises:
            InputError: The pipeline cannot run.
            RpcError: The experiment, a parameter or the root is not acceptable.
        """
        pipeline = parse_pipeline(request.source.document)
        experiment = self.find_experiment(request.experiment_id)
        now = self._service.clock()
        scheduled_at = now if request.scheduled_at is None else request.scheduled_at
        macros = MacroValues(
            run_id=request.run_id, now=now, scheduled_at=scheduled_at, index=request.index
        )
        given = {
            name: fill_macros(item, macros) for name, item in request.config.parameters.items()
        }
        run = Run(
            run_id=request.run_id,
            experiment_id=experiment.experiment_id,
            display_name=request.display_name,
            description=request.description,
            created_at=now,
            scheduled_at=scheduled_at,
            namespace=self._service.namespace,
            spec=request.source.document.to_json(),
            parameters=check_parameters(pipeline, given),
            pipeline_name=pipeline.name,
            pipeline_root=request.config.pipeline_root,
            root=self._choose_root(pipeline, request.config, run_id=request.run_id),
            service_account=request.service_account,
            pipeline_id=request.source.pipeline_id,
            pipeline_version_id=request.source.pipeline_version_id,
            recurring_run_id=request.recurring_run_id,
        )
        run = change_state(run, RuntimeState.PENDING, now=now)
        with self._store.transaction():
            self._store.experiments.put(replace(experiment, last_run_created_at=now))
            self._store.runs.put(run)
        return run

    def _choose_root(self, pipeline: ir.Pipeline, config: RuntimeConfig, *, run_id: str) -> str:
        return choose_root(
            pipeline,
            given=config.pipeline_root,
            default=self._service.pipeline_root,
            run_id=run_id,
        )


def read_config(message: Mapping[str, Any]) -> RuntimeConfig:
    """Read the `runtime_config` of a `Run` or `RecurringRun`.

    Raises:
        RpcError: It is malformed.
    """
    config = as_message(
        message.get("runtime_config", {}), kind="RuntimeConfig", fields=_CONFIG_FIELDS
    )
    given = config.get("parameters") or {}
    if not isinstance(given, dict):
        raise invalid(f"runtime_config.parameters is a JSON object, not {given!r}.")
    return RuntimeConfig(parameters=given, pipeline_root=text(config, "pipeline_root"))


def check_parameters(pipeline: ir.Pipeline, given: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Check a run's parameters against what the pipeline declares.

    Raises:
        RpcError: Parameters are unknown, of the wrong type, or missing.
    """
    if faults := find_parameter_faults(pipeline, given):
        raise invalid("\n".join(fault.message for fault in faults))
    return {name: canonical(value) for name, value in given.items()}


def choose_root(pipeline: ir.Pipeline, *, given: str, default: Path, run_id: str) -> str:
    """The folder for a run's outputs: `{root}/{pipeline name}/{run id}`.

    Raises:
        RpcError: The client asks for a root that is neither a path nor in an S3 object store.
    """
    root = str(default)
    if given:
        if not is_local(given) and not parse_location(given):
            raise invalid(_explain_root(given, default=root))
        root = local_path(given) if is_local(given) else given
    elif pipeline.default_root and is_local(pipeline.default_root):
        root = local_path(pipeline.default_root)
    return f"{root.rstrip('/')}/{safe_name(pipeline.name)}/{run_id}"


def _explain_root(given: str, *, default: str) -> str:
    """Why a pipeline root cannot be used, and what to do instead."""
    scheme = given.partition("://")[0].lower()
    accepted = (
        f"give an absolute path, s3://BUCKET/KEY, minio://BUCKET/KEY, or none for {default!r}"
    )
    if scheme not in _ELSEWHERE:
        return f"pipeline_root {given!r} cannot be used; {accepted}."
    return (
        f"pipeline_root {given!r} cannot be used: the embedded control plane does not reach"
        f" {_ELSEWHERE[scheme]}. Here, {accepted}{_S3_OF_GOOGLE if scheme == 'gs' else ''};"
        " on a cluster (--context) the root works as it is."
    )
