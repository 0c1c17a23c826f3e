"""Runs InferenceServices in KServe's RawDeployment mode: a Deployment and a Service a predictor.

The gateway takes the place of the ingress, so the URL is the gateway's. Transformers, explainers
and the serverless mode are refused with a condition that says so.

Source: kserve pkg/controller/v1beta1/inferenceservice/controller.go.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, ClassVar, Literal

from kubeloop.errors import AlreadyExistsError, NotFoundError
from kubeloop.local.api.admission.serving import MODE_ANNOTATION, RAW
from kubeloop.local.api.resources import (
    CLUSTER_SERVING_RUNTIMES,
    DEPLOYMENTS,
    INFERENCE_SERVICES,
    PODS,
    SECRETS,
    SERVICE_ACCOUNTS,
    SERVICES,
    SERVING_RUNTIMES,
    Resource,
)
from kubeloop.local.client import Client, Manifest
from kubeloop.local.operators.conditions import Clock, conditions_of, find_condition, utc_now
from kubeloop.local.operators.controller import (
    Reconciler,
    Request,
    Result,
    controller_owner,
)
from kubeloop.local.operators.events import record_event
from kubeloop.local.operators.inferenceservice_status import build_problem_status, build_status
from kubeloop.local.operators.pod_states import is_being_deleted, is_terminal
from kubeloop.local.operators.predictors import (
    INFERENCE_SERVICE_LABEL,
    app_label,
    build_deployment,
    build_service,
)
from kubeloop.local.operators.rollouts import HASH_LABEL, hash_template
from kubeloop.local.operators.serving_runtimes import (
    PredictorProblemError,
    check_named_runtime,
    choose_runtime,
)
from kubeloop.local.operators.storage_injection import render_storage_env

FINALIZER = "inferenceservice.finalizers"

_DESIRED_ANNOTATION = "kubeloop.dev/desired-digest"
_COMPONENT = "v1beta1Controllers"


class InferenceServiceReconciler(Reconciler):
    """Drives InferenceServices."""

    resource: ClassVar[Resource] = INFERENCE_SERVICES
    owns: ClassVar[tuple[Resource, ...]] = (
        DEPLOYMENTS,
        SERVICES,
        PODS,
        SERVING_RUNTIMES,
        CLUSTER_SERVING_RUNTIMES,
    )

    def __init__(self, client: Client, *, gateway_url: str = "", clock: Clock = utc_now) -> None:
        """Drive the InferenceServices of a plane.

        Args:
            client: The plane's API.
            gateway_url: Base URL of the gateway; empty writes the URLs of KServe's ingress.
            clock: Time of conditions and events.
        """
        self._client = client
        self._gateway_url = gateway_url.rstrip("/")
        self._clock = clock
        self._blocked: set[Request] = set()

    def map_event(self, resource: Resource, manifest: Manifest) -> list[Request]:
        """A changed runtime wakes those that could not be run; a pod wakes its service."""
        if resource in (SERVING_RUNTIMES, CLUSTER_SERVING_RUNTIMES):
            return list(self._blocked)
        if resource is PODS:
            metadata = manifest["metadata"]
            name = (metadata.get("labels") or {}).get(INFERENCE_SERVICE_LABEL)
            return [Request(namespace=metadata["namespace"], name=name)] if name else []
        return super().map_event(resource, manifest)

    async def reconcile(self, request: Request) -> Result:
        """Bring one InferenceService forward by one pass."""
        self._blocked.discard(request)
        try:
            service = await self._client.get(
                INFERENCE_SERVICES, request.name, namespace=request.namespace
            )
        except NotFoundError:
            return Result()
        if is_being_deleted(service):
            await self._write_finalizers(service, present=False)
            return Result()
        service = await self._write_finalizers(service, present=True)
        try:
            status = await self._run(service)
        except PredictorProblemError as problem:
            self._blocked.add(request)
            status = build_problem_status(service, problem, now=self._clock())
            await self._announce_problem(service, problem)
        await self._save_status(service, status)
        return Result()

    async def _run(self, service: Manifest) -> Manifest:
        _refuse_unserved(service)
        runtime = await self._find_runtime(service)
        env = await self._find_storage_env(service)
        deployment = build_deployment(service, runtime, storage_env=env)
        front = build_service(service, deployment)
        deployment = await self._apply(DEPLOYMENTS, deployment)
        await self._apply(SERVICES, front)
        return build_status(
            service,
            deployment=deployment,
            pods=await self._list_pods(service, deployment),
            url=self._build_url(service),
            now=self._clock(),
        )

    def _build_url(self, service: Manifest) -> str:
        namespace, name = service["metadata"]["namespace"], service["metadata"]["name"]
        if self._gateway_url:
            return f"{self._gateway_url}/serving/{namespace}/{name}"
        return f"http://{name}-{namespace}.example.com"

    async def _find_runtime(self, service: Manifest) -> Manifest | None:
        namespace = service["metadata"]["namespace"]
        model = service["spec"]["predictor"].get("model")
        if model is None:
            return None
        if name := model.get("runtime"):
            return check_named_runtime(model, await self._get_runtime(name, namespace))
        namespaced = await self._client.list(SERVING_RUNTIMES, namespace=namespace)
        cluster_wide = await self._client.list(CLUSTER_SERVING_RUNTIMES)
        return choose_runtime(model, namespaced=namespaced.items, cluster_wide=cluster_wide.items)

    async def _get_runtime(self, name: str, namespace: str) -> Manifest | None:
        try:
            return await self._client.get(SERVING_RUNTIMES, name, namespace=namespace)
        except NotFoundError:
            pass
        try:
            return await self._client.get(CLUSTER_SERVING_RUNTIMES, name)
        except NotFoundError:
            return None

    async def _find_storage_env(self, service: Manifest) -> list[Manifest]:
        """Credentials of the storage initializer: those of the pod's service account."""
        namespace = service["metadata"]["namespace"]
        account = service["spec"]["predictor"].get("serviceAccountName") or "default"
        try:
            found = await self._client.get(SERVICE_ACCOUNTS, account, namespace=namespace)
        except NotFoundError:
            return []
        secrets = []
        for reference in found.get("secrets") or []:
            try:
                secrets.append(
                    await self._client.get(SECRETS, reference["name"], namespace=namespace)
                )
            except NotFoundError:
                continue
        return list(render_storage_env(secrets))

    async def _apply(self, resource: Resource, desired: Manifest) -> Manifest:
        """Create an object, or make the one of its name equal; a change by hand is undone."""
        metadata = desired["metadata"]
        metadata["annotations"][_DESIRED_ANNOTATION] = _digest(desired)
        try:
            current = await self._client.get(
                resource, metadata["name"], namespace=metadata["namespace"]
            )
        except NotFoundError:
            try:
                return await self._client.create(desired)
            except AlreadyExistsError:
                current = await self._client.get(
                    resource, metadata["name"], namespace=metadata["namespace"]
                )
        owner = controller_owner(current)
        if owner is None or owner["uid"] != metadata["ownerReferences"][0]["uid"]:
            raise PredictorProblemError(
                f"{resource.kind} {metadata['namespace']}/{metadata['name']} exists and belongs to"
                " something else; delete it or rename the InferenceService",
                reason="InvalidPredictorSpec",
            )
        if _covers(current, desired):
            return current
        annotations = current["metadata"].get("annotations") or {}
        current["metadata"]["annotations"] = {**annotations, **metadata["annotations"]}
        current["metadata"]["labels"] = metadata["labels"]
        current["spec"] = {**_kept_spec(resource, current), **desired["spec"]}
        return await self._client.replace(current)

    async def _list_pods(self, service: Manifest, deployment: Manifest) -> list[Manifest]:
        """The predictor's pods that are alive, those of the present template first."""
        found = await self._client.list(
            PODS,
            namespace=service["metadata"]["namespace"],
            label_selector=f"app={app_label(service)}",
        )
        alive = [pod for pod in found.items if not is_being_deleted(pod) and not is_terminal(pod)]
        template_hash = hash_template(deployment["spec"]["template"])
        return sorted(
            alive, key=lambda pod: pod["metadata"]["labels"].get(HASH_LABEL) != template_hash
        )

    async def _write_finalizers(self, service: Manifest, *, present: bool) -> Manifest:
        finalizers: list[str] = service["metadata"].get("finalizers") or []
        if (FINALIZER in finalizers) == present:
            return service
        kept = [name for name in finalizers if name != FINALIZER]
        metadata = service["metadata"]
        return await self._client.patch(
            INFERENCE_SERVICES,
            metadata["name"],
            namespace=metadata["namespace"],
            body={
                "metadata": {
                    "finalizers": [*kept, FINALIZER] if present else kept,
                    "resourceVersion": metadata["resourceVersion"],
                }
            },
        )

    async def _announce_problem(self, service: Manifest, problem: PredictorProblemError) -> None:
        info = ((service.get("status") or {}).get("modelStatus") or {}).get("lastFailureInfo") or {}
        if info.get("message") != str(problem):
            await self._record(
                service, "Warning", reason="InternalError", message=f"{problem.reason}: {problem}"
            )

    async def _save_status(self, service: Manifest, status: Manifest) -> None:
        if status == service.get("status"):
            return
        was = (find_condition(conditions_of(service), "Ready") or {}).get("status")
        service["status"] = status
        await self._client.replace_status(service)
        ready = find_condition(status["conditions"], "Ready") or {}
        name = service["metadata"]["name"]
        if was != "True" and ready["status"] == "True":
            await self._record(
                service,
                "Normal",
                reason="InferenceServiceReady",
                message=f"InferenceService [{name}] is Ready",
            )
        elif was == "True" and ready["status"] == "False":
            await self._record(
                service,
                "Warning",
                reason="InferenceServiceNotReady",
                message=f"InferenceService [{name}] is no longer Ready because of:"
                f" {ready.get('reason', '')} {ready.get('message', '')}",
            )

    async def _record(
        self,
        service: Manifest,
        severity: Literal["Normal", "Warning"],
        *,
        reason: str,
        message: str,
    ) -> None:
        await record_event(
            self._client,
            service,
            type=severity,
            reason=reason,
            message=message,
            component=_COMPONENT,
            now=self._clock(),
        )


def _refuse_unserved(service: Manifest) -> None:
    """Say what this plane does not run, instead of running something else."""
    mode = (service["metadata"].get("annotations") or {}).get(MODE_ANNOTATION, RAW)
    if mode != RAW:
        raise PredictorProblemError(
            f"deployment mode {mode} is not served by the embedded control plane; use {RAW}",
            reason="InvalidPredictorSpec",
        )
    for component in ("transformer", "explainer"):
        if service["spec"].get(component):
            raise PredictorProblemError(
                f"{component} is not served by the embedded control plane",
                reason="InvalidPredictorSpec",
            )
    if "workerSpec" in service["spec"]["predictor"]:
        raise PredictorProblemError(
            "workerSpec is not served by the embedded control plane: it has one node",
            reason="InvalidPredictorSpec",
        )


def _digest(desired: Manifest) -> str:
    return hashlib.sha256(json.dumps(desired, sort_keys=True).encode()).hexdigest()[:16]


def _covers(current: Any, desired: Any) -> bool:  # any JSON
    """Whether `current` says everything that `desired` says; it may say more."""
    if isinstance(desired, dict):
        return isinstance(current, dict) and all(
            _covers(current.get(key), value) for key, value in desired.items()
        )
    if isinstance(desired, list):
        return (
            isinstance(current, list)
            and len(current) == len(desired)
            and all(map(_covers, current, desired))
        )
    return bool(current == desired)


def _kept_spec(resource: Resource, current: Manifest) -> Manifest:
    """What the API server gave a Service for good."""
    if resource is not SERVICES:
        return {}
    given = ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "type")
    return {key: current["spec"][key] for key in given if key in current["spec"]}
