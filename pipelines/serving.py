"""The end that our pipelines share: a model is judged; one that passes becomes an endpoint.

Called while a pipeline is compiled; the tasks become tasks of that pipeline.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kfp import dsl, kubernetes

from kubeloop.components.champion import find_champion
from kubeloop.components.deploy import deploy_model
from kubeloop.components.evaluate import evaluate_model
from kubeloop.components.probe import probe_endpoint
from kubeloop.datasets.stores import OBJECT_STORE_SECRET, OBJECT_STORE_VARIABLES
from kubeloop.pipelines.report_lineage import report_lineage

Channel = Any  # an output or a parameter: a KFP channel, or the value itself


def add_evaluation(
    *,
    dataset: Channel,
    train: dsl.PipelineTask,
    variant: Channel,
    endpoint_name: Channel,
    min_gain: Channel,
) -> list[dsl.PipelineTask]:
    """Add what a gate asks: how good the model is, by itself and beside the one served today.

    What is judged is the variant that would be served.

    Returns:
        The tasks, that of `evaluate_model` last.
    """
    # It waits for the model: another run may deploy one while this one trains.
    champion = find_champion(
        endpoint=endpoint_name,
        model=train.outputs["model"],
        run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
    )
    champion.set_caching_options(False)
    evaluate = evaluate_model(
        dataset=dataset,
        model=train.outputs["model"],
        variant=variant,
        champion=champion.outputs["model_uri"],
        min_gain=min_gain,
    )
    return [champion, evaluate]


def add_serving(
    *,
    dataset: Channel,
    model: Channel,
    variant: Channel,
    endpoint_name: Channel,
    num_probes: Channel,
    service_account: Channel,
) -> list[dsl.PipelineTask]:
    """Add deploy → probe → picture of the lineage, none of which comes from the cache.

    Returns:
        The tasks that read or write the object store.
    """
    deploy = deploy_model(
        model=model,
        name=endpoint_name,
        variant=variant,
        service_account=service_account,
        run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
    )
    # An endpoint may have been changed or deleted since.
    deploy.set_caching_options(False)
    probe = probe_endpoint(
        dataset=dataset,
        endpoint=deploy.outputs["endpoint"],
        num_examples=num_probes,
        run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
    )
    probe.set_caching_options(False)
    report = report_lineage(run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER).after(probe)
    report.set_caching_options(False)
    return [deploy, probe]


def give_object_store(tasks: Iterable[dsl.PipelineTask]) -> None:
    """Give tasks the address and the credentials of the object store, where there is one."""
    for task in tasks:
        kubernetes.use_secret_as_env(
            task, OBJECT_STORE_SECRET, {name: name for name in OBJECT_STORE_VARIABLES}
        )
