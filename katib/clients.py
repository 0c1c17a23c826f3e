"""The edge to Katib's official client: errors become ours, and what is missing None."""

from __future__ import annotations

from typing import Any

from kubeloop.optional_imports import import_from_extra
from kubeloop.sdk_errors import MissingObjectError, ObjectConflictError, translate_errors

Client = Any  # kubeflow.katib.KatibClient, which has no types

EXPERIMENT_LABEL = "katib.kubeflow.org/experiment"
"""Label of an experiment's trials and of their pods."""


def connect(
    *, namespace: str = "default", config_file: str | None = None, context: str | None = None
) -> Client:
    """Open Katib's client on a kubeconfig; without one, on the cluster that we run in.

    Raises:
        MissingDependencyError: Katib's SDK is not installed.
    """
    with import_from_extra("katib", why="Experiments need Katib's SDK"):
        from kubeflow.katib import KatibClient
    return KatibClient(config_file=config_file, context=context, namespace=namespace)


def find_experiment(client: Client, name: str, *, namespace: str) -> Any:  # V1beta1Experiment
    """The experiment; None when there is none."""
    try:
        with translate_errors(f"read Experiment {namespace}/{name}"):
            return client.get_experiment(name, namespace=namespace)
    except MissingObjectError:
        return None


def list_experiments(client: Client, *, namespace: str) -> list[Any]:
    """All experiments, as the SDK's V1beta1Experiment."""
    with translate_errors(f"list the experiments of namespace {namespace}"):
        return list(client.list_experiments(namespace=namespace))


def raise_budget(client: Client, name: str, *, namespace: str, **counts: int) -> None:
    """Change an experiment's counts, such as `max_trial_count`.

    Raises:
        RefusedError: Katib does not let it, as for one that has ended and may not be resumed.
    """
    with translate_errors(f"change the budget of Experiment {namespace}/{name}"):
        client.edit_experiment_budget(name, namespace=namespace, **counts)


def create_experiment(client: Client, experiment: Any) -> bool:  # V1beta1Experiment
    """Create an experiment; says whether it is new."""
    metadata = experiment.metadata
    try:
        with translate_errors(f"create Experiment {metadata.namespace}/{metadata.name}"):
            client.create_experiment(experiment, namespace=metadata.namespace)
    except ObjectConflictError:
        return False
    return True


def delete_experiment(client: Client, name: str, *, namespace: str) -> bool:
    """Delete an experiment with its trials; says whether there was one."""
    try:
        with translate_errors(f"delete Experiment {namespace}/{name}"):
            client.delete_experiment(name, namespace=namespace)
    except MissingObjectError:
        return False
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
    except MissingObjectError:
        return None


def list_pods(client: Client, experiment_name: str, *, namespace: str) -> list[Any]:
    """The pods of an experiment's trials, as V1Pod."""
    selector = f"{EXPERIMENT_LABEL}={experiment_name}"
    with translate_errors(f"list the pods of Experiment {namespace}/{experiment_name}"):
        return list(client.core_api.list_namespaced_pod(namespace, label_selector=selector).items)
