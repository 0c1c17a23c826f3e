"""The edge to Katib's official client: where its errors become ours.

KatibClient flattens every API error; the original one, with the status code, is still its context.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kubeloop.errors import InputError, MissingDependencyError, PermanentError, TransientError

Client = Any  # kubeflow.katib.KatibClient, which has no types

EXPERIMENT_LABEL = "katib.kubeflow.org/experiment"
"""Label of an experiment's trials and of their pods."""

_NOT_FOUND = 404
_CONFLICT = 409
_REFUSED = (400, 422)
_RETRIED = (408, 429, 500, 502, 503, 504)


class ApiFailureError(PermanentError):
    """The Kubernetes API refused; `status` is its HTTP status code."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class RefusedError(ApiFailureError, InputError):
    """The Kubernetes API, or a webhook behind it, refused what was asked for."""


def connect(
    *, namespace: str = "default", config_file: str | None = None, context: str | None = None
) -> Client:
    """Open Katib's client on a kubeconfig; without one, on the cluster that we run in.

    Raises:
        MissingDependencyError: Katib's SDK is not installed.
    """
    try:
        from kubeflow.katib import KatibClient
    except ImportError as error:
        raise MissingDependencyError(
            "Experiments need Katib's SDK: pip install 'kubeloop[katib]'."
        ) from error
    return KatibClient(config_file=config_file, context=context, namespace=namespace)


def close(client: Client) -> None:
    """Close the client's connections and threads."""
    api_client = client.custom_api.api_client
    pools = api_client.rest_client.pool_manager.pools
    for key in list(pools.keys()):
        pools[key].close()
    api_client.close()


@contextmanager
def translate_errors(what: str) -> Iterator[None]:
    """Translate the client's errors; `what` completes "Failed to …".

    Raises:
        RefusedError: The API says that the object is not acceptable (400, 422).
        ApiFailureError: The API refuses for another reason.
        TransientError: The API cannot be reached, or is overloaded.
    """
    from kubernetes.client.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except (InputError, PermanentError, TransientError):
        raise
    except Exception as error:
        origin = error if isinstance(error, ApiException | HTTPError) else error.__context__
        if isinstance(origin, ApiException):
            raise _translate(origin, what) from error
        if isinstance(origin, HTTPError | TimeoutError) or isinstance(error, TimeoutError):
            raise TransientError(
                f"Failed to {what}: the Kubernetes API does not answer ({origin or error})."
            ) from error
        raise


def find_experiment(client: Client, name: str, *, namespace: str) -> Any:  # V1beta1Experiment
    """The experiment; None when there is none."""
    try:
        with translate_errors(f"read Experiment {namespace}/{name}"):
            return client.get_experiment(name, namespace=namespace)
    except ApiFailureError as failure:
        if failure.status == _NOT_FOUND:
            return None
        raise


def create_experiment(client: Client, experiment: Any) -> bool:  # V1beta1Experiment
    """Create an experiment; says whether it is new."""
    metadata = experiment.metadata
    try:
        with translate_errors(f"create Experiment {metadata.namespace}/{metadata.name}"):
            client.create_experiment(experiment, namespace=metadata.namespace)
    except ApiFailureError as failure:
        if failure.status == _CONFLICT:
            return False
        raise
    return True


def delete_experiment(client: Client, name: str, *, namespace: str) -> bool:
    """Delete an experiment with its trials; says whether there was one."""
    try:
        with translate_errors(f"delete Experiment {namespace}/{name}"):
            client.delete_experiment(name, namespace=namespace)
    except ApiFailureError as failure:
        if failure.status == _NOT_FOUND:
            return False
        raise
    return True


def list_trials(client: Client, experiment_name: str, *, namespace: str) -> list[Any]:
    """The trials of an experiment, as the SDK's V1beta1Trial."""
    with translate_errors(f"list the trials of Experiment {namespace}/{experiment_name}"):
        return list(client.list_trials(experiment_name=experiment_name, namespace=namespace))


def find_suggestion(client: Client, name: str, *, namespace: str) -> Any:  # V1beta1Suggestion
    """The suggestion of an experiment; None when there is none."""
    try:
        with translate_errors(f"read Suggestion {namespace}/{name}"):
            return client.get_suggestion(name, namespace=namespace)
    except ApiFailureError as failure:
        if failure.status == _NOT_FOUND:
            return None
        raise


def list_pods(client: Client, experiment_name: str, *, namespace: str) -> list[Any]:
    """The pods of an experiment's trials, as V1Pod."""
    selector = f"{EXPERIMENT_LABEL}={experiment_name}"
    with translate_errors(f"list the pods of Experiment {namespace}/{experiment_name}"):
        return list(client.core_api.list_namespaced_pod(namespace, label_selector=selector).items)


def _translate(error: Any, what: str) -> Exception:  # ApiException
    status = int(error.status or 0)
    message = f"Failed to {what}: {_read_message(error)}"
    if status in _RETRIED or status == 0:
        return TransientError(message)
    if status in _REFUSED:
        return RefusedError(message, status=status)
    return ApiFailureError(message, status=status)


def _read_message(error: Any) -> str:  # ApiException
    try:
        return str(json.loads(error.body or "")["message"])
    except (ValueError, KeyError, TypeError):
        return str(error.body or error.reason or error)
