"""Finding and steering runs that exist: by a short name, through the official KFP client."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from kubeloop.errors import InputError
from kubeloop.pipelines.runs import KfpClient, Run, parse_run, translated_errors

_FULL_ID_LENGTH = 36
_PAGE_SIZE = 100
_IS_EQUAL, _IS_SUBSTRING = 1, 9  # operations of the API's filters


def find_run(client: KfpClient, text: str) -> str:
    """The id of the run that `text` means: a run id, the start of one, or a display name.

    Of several runs of one display name it is the newest.

    Raises:
        InputError: No run fits, or several do.
    """
    if len(text) == _FULL_ID_LENGTH and text.count("-") == 4:  # a UUID
        return text
    by_id = _search(client, key="run_id", operation=_IS_SUBSTRING, text=text.lower())
    found = [run for run in by_id if run.run_id.startswith(text.lower())]
    if not found:
        found = _search(client, key="display_name", operation=_IS_EQUAL, text=text)[:1]
    if len(found) == 1:
        return found[0].run_id
    if not found:
        msg = f"No run has the id or name {text!r}; `kubeloop runs` lists them."
        raise InputError(msg)
    several = ", ".join(f"{run.run_id} ({run.name})" for run in found[:5])
    msg = f"{text!r} is the start of {len(found)} run ids; give more of it: {several}."
    raise InputError(msg)


def _search(client: KfpClient, *, key: str, operation: int, text: str) -> list[Run]:
    predicate = {"operation": operation, "key": key, "stringValue": text}
    with translated_errors(f"find run {text}"):
        response = client.list_runs(
            page_size=_PAGE_SIZE,
            sort_by="created_at desc",
            filter=json.dumps({"predicates": [predicate]}),
        )
    return [parse_run(run) for run in response.runs or []]


def archive(client: KfpClient, run_id: str) -> None:
    """Take a run out of the lists of the KFP UI."""
    with translated_errors(f"archive run {run_id}"):
        client.archive_run(run_id)


def unarchive(client: KfpClient, run_id: str) -> None:
    """Bring an archived run back."""
    with translated_errors(f"unarchive run {run_id}"):
        client.unarchive_run(run_id)


def delete(client: KfpClient, run_id: str) -> None:
    """Delete a run and its record."""
    with translated_errors(f"delete run {run_id}"):
        client.delete_run(run_id)


def retry(client: KfpClient, run_id: str) -> None:
    """Run the tasks of a failed run again that did not succeed."""
    with translated_errors(f"retry run {run_id}"):
        _generated(client).run_service_retry_run(run_id)


def read_run(client: KfpClient, run_id: str) -> Any:  # Any: kfp_server_api's V2beta1Run
    """A run as the generated client carries it, with its pipeline."""
    with translated_errors(f"read run {run_id}"):
        return client.get_run(run_id)


def read_pipeline(client: KfpClient, run_id: str) -> dict[str, Any]:
    """The pipeline that a run runs, as the API carries it: the plain spec, or both documents."""
    run = read_run(client, run_id)
    if run.pipeline_spec:
        return dict(run.pipeline_spec)
    reference = run.pipeline_version_reference
    if reference is None:
        msg = f"Run {run_id} says nothing of its pipeline."
        raise InputError(msg)
    with translated_errors(f"read the pipeline of run {run_id}"):
        version = client.get_pipeline_version(reference.pipeline_id, reference.pipeline_version_id)
    return dict(version.pipeline_spec)


def clone(
    client: KfpClient,
    run_id: str,
    *,
    choose_parameters: Callable[[dict[str, Any], Mapping[str, Any]], Mapping[str, Any]],
    run_name: str = "",
) -> str:
    """Create a run of the same pipeline, in the same experiment.

    Args:
        client: From `connect`.
        run_id: The run to repeat.
        choose_parameters: Gets the pipeline and the parameters of that run, and gives those of
            the new one.
        run_name: Display name; empty: that of the run with "Clone of" before it.

    Returns:
        The id of the new run.
    """
    from kfp_server_api import V2beta1Run, V2beta1RuntimeConfig

    old = read_run(client, run_id)
    config = old.runtime_config
    parameters = choose_parameters(
        read_pipeline(client, run_id), (config.parameters if config else None) or {}
    )
    body = V2beta1Run(
        display_name=run_name or f"Clone of {old.display_name}",
        experiment_id=old.experiment_id,
        pipeline_spec=old.pipeline_spec,
        pipeline_version_reference=old.pipeline_version_reference,
        runtime_config=V2beta1RuntimeConfig(
            parameters=dict(parameters), pipeline_root=config.pipeline_root if config else None
        ),
        service_account=old.service_account,
    )
    with translated_errors(f"clone run {run_id}"):
        # NB: by place; the argument has another name in newer clients.
        return str(_generated(client).run_service_create_run(body).run_id)


def _generated(client: KfpClient) -> Any:  # Any: kfp_server_api's RunServiceApi
    """The generated client inside KFP's, for calls that the latter does not have."""
    return client._run_api  # noqa: SLF001


def read_server_version(client: KfpClient) -> str:
    """The version of the API server, as it tells it; empty where it does not."""
    with translated_errors("read the version of KFP"):
        # NB: the generated message of a health check leaves out what newer servers add.
        response = client._healthz_api.api_client.call_api(  # noqa: SLF001
            "/apis/v2beta1/healthz",
            "GET",
            response_type="object",
            auth_settings=["Bearer"],
            _return_http_data_only=True,
        )
    return str((response or {}).get("tag_name", ""))
