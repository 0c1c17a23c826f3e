"""Brings a model into a predictor's pod: KServe's storage initializer and its credentials.

Source: kserve pkg/webhook/admission/pod/storage_initializer_injector.go, pkg/credentials.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kubeloop.local.api.admission.serving import PREDICTOR_CONTAINER, TRANSFORMER_CONTAINER
from kubeloop.local.client import Manifest

SOURCE_ANNOTATION = "internal.serving.kserve.io/storage-initializer-sourceuri"
INITIALIZER = "storage-initializer"
MODEL_PATH = "/mnt/models"

_READ_ONLY_ANNOTATION = "storage.kserve.io/readonly"
_IMAGE = "kserve/storage-initializer:v0.15.2"
_MODEL_VOLUME = "kserve-provision-location"
_CLAIM_VOLUME = "kserve-pvc-source"
_CLAIM_SCHEME = "pvc://"
_SERVED = (PREDICTOR_CONTAINER, TRANSFORMER_CONTAINER)
_SECRET_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_SECRET_ANNOTATIONS = {
    "serving.kserve.io/s3-endpoint": "S3_ENDPOINT",
    "serving.kserve.io/s3-usehttps": "S3_USE_HTTPS",
    "serving.kserve.io/s3-region": "AWS_DEFAULT_REGION",
    "serving.kserve.io/s3-verifyssl": "S3_VERIFY_SSL",
    "serving.kserve.io/s3-useanoncredential": "awsAnonymousCredential",
    "serving.kserve.io/s3-usevirtualbucket": "S3_USER_VIRTUAL_BUCKET",
}


def inject_storage(template: Manifest, source: str, *, env: list[Manifest]) -> None:
    """Make a pod template fetch `source` before its containers start, in place.

    A claim (`pvc://claim/path`) is mounted where the model is expected; anything else is fetched
    by an init container.
    """
    annotations = template["metadata"].setdefault("annotations", {})
    annotations[SOURCE_ANNOTATION] = source
    read_only = annotations.get(_READ_ONLY_ANNOTATION) != "false"
    spec = template["spec"]
    if source.startswith(_CLAIM_SCHEME):
        volume, mount = _mount_claim(source, read_only=read_only)
    else:
        volume = {"name": _MODEL_VOLUME, "emptyDir": {}}
        mount = {"name": _MODEL_VOLUME, "mountPath": MODEL_PATH, "readOnly": read_only}
        spec.setdefault("initContainers", []).append(_build_initializer(source, env))
    spec.setdefault("volumes", []).append(volume)
    for container in spec["containers"]:
        if container["name"] in _SERVED:
            container.setdefault("volumeMounts", []).append(dict(mount))
            _point_at_model(container)


def render_storage_env(secrets: list[Manifest]) -> Iterator[dict[str, Any]]:
    """Environment of the initializer from the secrets of its service account."""
    for secret in secrets:
        keys = secret.get("data") or {}
        if "AWS_SECRET_ACCESS_KEY" not in keys:
            continue
        for key in _SECRET_KEYS:
            if key in keys:
                reference = {"name": secret["metadata"]["name"], "key": key}
                yield {"name": key, "valueFrom": {"secretKeyRef": reference}}
        annotations = secret["metadata"].get("annotations") or {}
        for annotation, name in _SECRET_ANNOTATIONS.items():
            if annotation in annotations:
                yield {"name": name, "value": annotations[annotation]}
        return


def _mount_claim(source: str, *, read_only: bool) -> tuple[Manifest, Manifest]:
    claim, _, path = source.removeprefix(_CLAIM_SCHEME).partition("/")
    volume = {"name": _CLAIM_VOLUME, "persistentVolumeClaim": {"claimName": claim}}
    mount = {"name": _CLAIM_VOLUME, "mountPath": MODEL_PATH, "readOnly": read_only}
    return volume, {**mount, "subPath": path} if path else mount


def _build_initializer(source: str, env: list[Manifest]) -> Manifest:
    return {
        "name": INITIALIZER,
        "image": _IMAGE,
        "args": [source, MODEL_PATH],
        "env": env,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": _MODEL_VOLUME, "mountPath": MODEL_PATH, "readOnly": False}],
        "resources": {
            "requests": {"cpu": "100m", "memory": "100Mi"},
            "limits": {"cpu": "1", "memory": "1Gi"},
        },
    }


def _point_at_model(container: Manifest) -> None:
    for variable in container.get("env") or []:
        if variable["name"] == "STORAGE_URI" and variable.get("value"):
            variable["value"] = MODEL_PATH
