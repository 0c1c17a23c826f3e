"""Creates endpoints through KServe's official client, and waits until they really serve.

An InferenceService in RawDeployment mode says Ready while its old pods serve, whatever becomes of
the new ones. So the wait looks at the rollout itself: the Deployment's pod template carries the
digest of the configuration that was asked for, and all its pods are of that template.

Repeating a deployment is safe: the same configuration changes nothing and re-attaches to what runs.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kubeloop.errors import PermanentError, TransientError
from kubeloop.kserve.diagnosis import Diagnosis, diagnose, find_pod_failure
from kubeloop.kserve.endpoints import Endpoint, TransitionStatus, parse_endpoint
from kubeloop.kserve.inference_services import (
    CONFIGURATION_ANNOTATION,
    DeploymentMode,
    InferenceServiceConfig,
    build_inference_service,
)
from kubeloop.optional_imports import import_from_extra
from kubeloop.sdk_errors import (
    ApiFailureError,
    MissingObjectError,
    ObjectConflictError,
    translate_errors,
)

logger = logging.getLogger(__name__)

Client = Any  # kserve.KServeClient, which has no types

_NUM_ATTEMPTS = 5
_MAX_POLL_SECONDS = 1.0
_MAX_FAILED_STARTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentProgress:
    """What a waiting user is told; sent when it changes."""

    endpoint: Endpoint
    message: str
    elapsed_seconds: float


OnProgress = Callable[[DeploymentProgress], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitConfig:
    """How long a deployment may take, and how it is watched."""

    timeout_seconds: float = 600.0
    """Limit until the endpoint serves the model."""
    poll_seconds: float = 0.1
    """First pause between looks; it grows to one second while nothing changes."""
    invalid_grace_seconds: float = 5.0
    """How long a spec may be refused, such as for a runtime that is just being created."""
    blocked_grace_seconds: float = 30.0
    """How long a model may be reported as failed to load when its pods cannot be read."""


def connect(*, config_file: str | None = None, context: str | None = None) -> Client:
    """Open KServe's client.

    Args:
        config_file: A kubeconfig; None is the one that KUBECONFIG names now (the SDK looks when it
            is imported, which in a warm process is too early), else the cluster that we run in.
        context: A context of it; None is its current one.

    Raises:
        MissingDependencyError: KServe's SDK is not installed.
    """
    with import_from_extra("kserve", why="Endpoints need KServe's SDK"):
        from kserve import KServeClient
    return KServeClient(
        config_file=config_file or os.environ.get("KUBECONFIG") or None, context=context
    )


def deploy(
    config: InferenceServiceConfig,
    *,
    client: Client,
    wait: WaitConfig | None = None,
    on_progress: OnProgress | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Endpoint:
    """Create or update an endpoint and wait until all its pods serve this configuration.

    An endpoint that this call created is deleted when the call is interrupted; one that fails is
    left for inspection.

    Raises:
        PermanentError: The endpoint cannot become ready, or did not in time; the message carries
            the failing container's last log lines.
        TransientError: The Kubernetes API cannot be reached.
    """
    is_new = get(config.name, namespace=config.namespace, client=client) is None
    waiter = _Waiter(
        client=client,
        config=wait or WaitConfig(),
        on_progress=on_progress,
        clock=clock,
        sleep=sleep,
    )
    try:
        return waiter.run(apply(config, client=client))
    except (KeyboardInterrupt, SystemExit):
        # NB: also one in the midst of `apply`, whose answer is lost.
        if is_new:
            delete(config.name, namespace=config.namespace, client=client)
        raise


def apply(config: InferenceServiceConfig, *, client: Client) -> Endpoint:
    """Create the InferenceService, or make the existing one equal."""
    what = f"deploy InferenceService {config.namespace}/{config.name}"
    for _ in range(_NUM_ATTEMPTS):
        wanted = build_inference_service(config)
        try:
            with translate_errors(what):
                current = _find(config.name, namespace=config.namespace, client=client)
                if current is None:
                    return parse_endpoint(client.create(wanted, namespace=config.namespace))
                _keep_metadata(wanted.metadata, current["metadata"], config.run_labels)
                stored = client.replace(config.name, wanted, namespace=config.namespace)
                return parse_endpoint(stored)
        except ObjectConflictError:
            continue  # somebody else wrote between our read and our write
    raise TransientError(f"Failed to {what}: it kept changing while it was written.")


def get(name: str, *, namespace: str, client: Client) -> Endpoint | None:
    """Read an endpoint; None when there is none of that name."""
    with translate_errors(f"read InferenceService {namespace}/{name}"):
        manifest = _find(name, namespace=namespace, client=client)
    return None if manifest is None else parse_endpoint(manifest)


def list_endpoints(*, namespace: str, client: Client) -> list[Endpoint]:
    """All endpoints of a namespace, by name."""
    with translate_errors(f"list InferenceServices of {namespace}"):
        items = client.get(namespace=namespace)["items"]
    return sorted((parse_endpoint(item) for item in items), key=lambda endpoint: endpoint.name)


def delete(name: str, *, namespace: str, client: Client) -> bool:
    """Delete an endpoint; says whether there was one."""
    try:
        with translate_errors(f"delete InferenceService {namespace}/{name}"):
            client.delete(name, namespace=namespace)
    except MissingObjectError:
        return False
    return True


def _find(name: str, *, namespace: str, client: Client) -> dict[str, Any] | None:
    try:
        with translate_errors(f"read InferenceService {namespace}/{name}"):
            manifest: dict[str, Any] = client.get(name, namespace=namespace)
    except MissingObjectError:
        return None
    return manifest


def _keep_metadata(
    wanted: Any,  # V1ObjectMeta
    current: dict[str, Any],
    run_labels: Mapping[str, str],
) -> None:
    """Carry over what others wrote; ours wins where both say something.

    Without another configuration the endpoint stays the one that an earlier run deployed.
    """
    labels, annotations = current.get("labels") or {}, current.get("annotations") or {}
    ours = dict(wanted.labels or {})
    if annotations.get(CONFIGURATION_ANNOTATION) == wanted.annotations[CONFIGURATION_ANNOTATION]:
        ours |= {name: labels[name] for name in run_labels if name in labels}
    wanted.resource_version = current["resourceVersion"]
    wanted.labels = {**labels, **ours} or None
    wanted.annotations = {**annotations, **wanted.annotations}
    wanted.finalizers = current.get("finalizers")
    wanted.owner_references = current.get("ownerReferences")


class _Waiter:
    def __init__(
        self,
        *,
        client: Client,
        config: WaitConfig,
        on_progress: OnProgress | None,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self._client = client
        self._config = config
        self._on_progress = on_progress
        self._clock = clock
        self._sleep = sleep
        self._started = clock()
        self._said = ""
        self._since: dict[str, float] = {}

    def run(self, endpoint: Endpoint) -> Endpoint:
        digest = endpoint.annotations[CONFIGURATION_ANNOTATION]
        pause = self._config.poll_seconds
        while True:
            found = get(endpoint.name, namespace=endpoint.namespace, client=self._client)
            if found is None:
                raise PermanentError(
                    f"Failed to deploy InferenceService {endpoint.namespace}/{endpoint.name}:"
                    " it was deleted while it was awaited."
                )
            waiting_for = self._find_obstacle(found, digest)
            self._say(found, waiting_for or f"serving at {found.url}")
            if not waiting_for:
                return found
            self._give_up_if_hopeless(found, digest, waiting_for)
            self._sleep(pause)
            pause = min(pause * 1.1, _MAX_POLL_SECONDS)

    def _find_obstacle(self, endpoint: Endpoint, digest: str) -> str:
        """What the endpoint still waits for; empty when it serves this configuration."""
        if endpoint.deployment_mode == DeploymentMode.RAW:
            return self._find_rollout_obstacle(endpoint, digest) or _find_state_obstacle(endpoint)
        if endpoint.observed_generation < endpoint.generation:
            return "the controller to see the change"
        if endpoint.latest_created_revision != endpoint.latest_ready_revision:
            return f"revision {endpoint.latest_created_revision} to become ready"
        return _find_state_obstacle(endpoint)

    def _find_rollout_obstacle(self, endpoint: Endpoint, digest: str) -> str:
        name = f"{endpoint.name}-predictor"
        try:
            with translate_errors(f"read Deployment {endpoint.namespace}/{name}"):
                deployment = self._client.app_api.read_namespaced_deployment(
                    name, endpoint.namespace
                )
        except ApiFailureError as failure:
            # Without permission to look, the InferenceService's own word has to do.
            return "" if failure.status == 403 else "the deployment to be created"
        return _describe_rollout(deployment, digest)

    def _give_up_if_hopeless(self, endpoint: Endpoint, digest: str, waiting_for: str) -> None:
        config, transition = self._config, endpoint.transition
        failure = find_pod_failure(self._client, endpoint, digest)
        if failure is not None and failure.num_failures >= _MAX_FAILED_STARTS:
            raise self._failure(endpoint, digest, "its model server does not start")
        cannot_start = failure is not None and failure.exit_code is None
        if self._lasts("pod", cannot_start, config.blocked_grace_seconds):
            raise self._failure(endpoint, digest, "its model server cannot be started")
        is_invalid = transition is TransitionStatus.INVALID_SPEC
        if self._lasts("invalid", is_invalid, config.invalid_grace_seconds):
            raise self._failure(endpoint, digest, "KServe refuses its spec")
        is_blocked = transition is TransitionStatus.BLOCKED
        if self._lasts("blocked", is_blocked, config.blocked_grace_seconds):
            raise self._failure(endpoint, digest, "its model does not load")
        elapsed = self._clock() - self._started
        if elapsed > config.timeout_seconds:
            cause = f"not ready after {elapsed:.0f} s, still waiting for {waiting_for}"
            raise self._failure(endpoint, digest, cause)

    def _lasts(self, what: str, holds: bool, grace_seconds: float) -> bool:  # noqa: FBT001
        if not holds:
            self._since.pop(what, None)
            return False
        now = self._clock()
        return now - self._since.setdefault(what, now) >= grace_seconds

    def _failure(self, endpoint: Endpoint, digest: str, cause: str) -> PermanentError:
        diagnosis: Diagnosis = diagnose(self._client, endpoint, digest)
        return PermanentError(
            f"Failed to deploy InferenceService {endpoint.namespace}/{endpoint.name}:"
            f" {cause}: {diagnosis.summary}\n{diagnosis.render()}"
        )

    def _say(self, endpoint: Endpoint, message: str) -> None:
        if self._on_progress is None or message == self._said:
            return
        self._said = message
        elapsed = self._clock() - self._started
        self._on_progress(
            DeploymentProgress(endpoint=endpoint, message=message, elapsed_seconds=elapsed)
        )


def _find_state_obstacle(endpoint: Endpoint) -> str:
    if endpoint.is_ready and endpoint.url:
        return ""
    if endpoint.target_state in ("Pending", "Loading"):
        return f"the model to load ({endpoint.target_state})"
    return endpoint.message or "the controller to see it"


def _describe_rollout(deployment: Any, digest: str) -> str:  # deployment: V1Deployment
    annotations = deployment.spec.template.metadata.annotations or {}
    status, wanted = deployment.status, deployment.spec.replicas or 0
    if status is None:
        return "the rollout to begin"
    updated, total = status.updated_replicas or 0, status.replicas or 0
    if annotations.get(CONFIGURATION_ANNOTATION) != digest or (
        (status.observed_generation or 0) < deployment.metadata.generation
    ):
        return "the rollout to begin"
    if updated < wanted:
        return f"new pods ({updated} of {wanted} created)"
    if (status.available_replicas or 0) < wanted:
        return f"new pods to load the model ({status.available_replicas or 0} of {wanted} ready)"
    if total > updated:
        return f"the new pods to take over from the old ({total - updated} left)"
    return ""
