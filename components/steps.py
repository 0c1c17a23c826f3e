"""Who a step is: its run, its task, and where its pipeline keeps artifacts.

Steps that create something outside (a PyTorchJob, an Experiment, an endpoint) name it after their
run, task and inputs, so that a retried step finds what it created before, while a loop's iterations
stay apart. Neither KFP nor its SDK passes run and task to a function without making them an input,
which would defeat the cache; the planned URI of any output carries both, on every backend.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kubeloop.errors import InputError, KubeloopError
from kubeloop.interruption import exit_on_sigterm

if TYPE_CHECKING:
    from kubeloop.kserve.inference_services import ModelProvenance

RUNTIME_IMAGE = "kubeloop/runtime:0.1.0"
"""Image of every component: kubeloop with all extras (manifests/images/runtime)."""

RUN_LABEL = "pipeline/runid"
"""Label that KFP puts on a run's pods; ours go on what the steps create."""

TASK_LABEL = "kubeloop.dev/task"

_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_UUID = re.compile(r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A step of a run: who it is.

    `pipeline_root` is the URI below which the pipelines of this backend keep their artifacts.
    """

    pipeline_root: str
    pipeline: str
    run_id: str
    task: str

    @classmethod
    def from_output_uri(cls, uri: str) -> Step:
        """Read `{root}/{pipeline}/{run id}/{task}/{uuid}/{artifact}`.

        Raises:
            InputError: `uri` holds no run id, as outside of a pipeline run.

        Source: kubeflow/pipelines, backend/src/v2/metadata/client.go (GenerateOutputURI).
        """
        parts = uri.split("/")
        # KFP before 2.5 put no second uuid between task and artifact.
        for index in (-4, -3):
            if len(parts) > 1 - index and _UUID.match(parts[index]):
                return cls(
                    pipeline_root="/".join(parts[: index - 1]),
                    pipeline=parts[index - 1],
                    run_id=parts[index],
                    task=parts[index + 1],
                )
        msg = (
            f"The output URI {uri!r} holds no run id; kubeloop's components run as steps of a"
            " pipeline, where KFP plans it as {root}/{pipeline}/{run id}/{task}/{uuid}/{artifact}."
        )
        raise InputError(msg)

    def object_name(self, inputs: Mapping[str, object]) -> str:
        """A DNS-1035 name of at most 40 characters, equal for equal run, task and inputs."""
        text = json.dumps([self.run_id, self.task, inputs], sort_keys=True, default=str)
        digest = hashlib.sha256(text.encode()).hexdigest()[:10]
        task = re.sub(r"[^a-z0-9]+", "-", self.task.lower()).strip("-")[:29].strip("-")
        if not task[:1].isalpha():
            task = f"t{task}"[:29]
        return f"{task}-{digest}"

    @property
    def labels(self) -> dict[str, str]:
        """Labels for what the step creates."""
        return {RUN_LABEL: self.run_id, TASK_LABEL: self.task[:63]}

    def store(self, kind: str, override: str = "") -> str:
        """URI of the store for `kind` (datasets, models): `override`, or below the root."""
        return override or f"{self.pipeline_root}/kubeloop/{kind}"


@contextlib.contextmanager
def open_step(output_uri: str) -> Iterator[Step]:
    """Identify the running step, and give its end the form of `rendered_errors`.

    Args:
        output_uri: The planned URI of any of the step's outputs.
    """
    with rendered_errors():
        yield Step.from_output_uri(output_uri)


@contextlib.contextmanager
def rendered_errors() -> Iterator[None]:
    """Give the end of a step the form that KFP and users expect.

    SIGTERM, with which KFP ends the steps of a cancelled run, becomes `SystemExit`, so that the
    step cleans up. An error of ours ends the step with its message, without a traceback.
    """
    with exit_on_sigterm():
        try:
            yield
        except KubeloopError as error:
            print(render_failure(error), file=sys.stderr, flush=True)
            sys.exit(1)


def render_failure(error: KubeloopError) -> str:
    """The details of an error, and last the sentence that says it all.

    KFP, `kubeloop runs` and people look for the cause in the last line of a log.
    """
    sentence, _, details = str(error).partition("\n")
    return f"{details}\nError: {sentence}" if details else f"Error: {sentence}"


def find_namespace() -> str:
    """The namespace to create things in: the pod's own, else that of the kubeconfig context."""
    if _NAMESPACE_FILE.exists():
        return _NAMESPACE_FILE.read_text().strip()
    from kubernetes import config

    _, active = config.list_kube_config_contexts()
    return str(active["context"].get("namespace", "default"))


def restore_integers(values: Mapping[str, Any]) -> dict[str, Any]:  # Any: JSON
    """Undo what KFP does to whole numbers in a `dict` parameter.

    A protobuf Struct knows doubles only, so that 64 arrives as 64.0 on some backends.
    """
    return {
        name: int(value) if isinstance(value, float) and value.is_integer() else value
        for name, value in values.items()
    }


def build_provenance(metadata: Mapping[str, object], *, run_id: str) -> ModelProvenance:
    """Annotations of the endpoint that serves a model, from the Model artifact's metadata."""
    from kubeloop.components.provenance import ModelKey
    from kubeloop.kserve.inference_services import ModelProvenance

    return ModelProvenance(
        model_digest=str(metadata.get(ModelKey.DIGEST, "")),
        run_id=str(metadata.get(ModelKey.RUN_ID, "") or run_id),
        dataset_version=str(metadata.get(ModelKey.VERSION_HASH, "")),
        training_job=str(metadata.get(ModelKey.JOB, "")),
    )
