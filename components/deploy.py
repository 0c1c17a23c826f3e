"""A model package becomes an endpoint."""

from typing import NamedTuple

from kfp import dsl

from kubeloop.components.steps import RUNTIME_IMAGE


@dsl.component(base_image=RUNTIME_IMAGE, install_kfp_package=False)
def deploy_model(
    model: dsl.Input[dsl.Model],
    endpoint: dsl.Output[dsl.Artifact],
    name: str,
    variant: str = "",
    cpu: str = "1",
    memory: str = "2Gi",
    min_replicas: int = 1,
    service_account: str = "",
    timeout_seconds: float = 600.0,
    run_id: str = "",  # noqa: ARG001  # a part of what the cache looks for
) -> NamedTuple("Outputs", [("url", str)]):  # type: ignore[valid-type]  # KFP reads the functional form
    """Serve a model package as a KServe InferenceService and wait until it answers.

    Never to be cached: the endpoint may have been changed since; see `run_id`. Repeating it is
    safe: an endpoint that already serves this model is left alone.

    Args:
        model: The model package.
        endpoint: Name, namespace and URL of the endpoint, as JSON and as metadata.
        name: Name of the InferenceService; one that exists is updated.
        variant: Form of the model that is served, `onnx` or `int8`, where `train_model` was asked
            for it; empty: the original.
        cpu: CPU of the model server, as a Kubernetes quantity.
        memory: Memory of the model server, as a Kubernetes quantity.
        min_replicas: Pods at least.
        service_account: Whose credentials download the model; empty: the namespace's default.
        timeout_seconds: Time after which the step gives up.
        run_id: Give `dsl.PIPELINE_JOB_ID_PLACEHOLDER`, and no run takes the step from the cache,
            not even one that asks for caching everywhere.
    """
    import json
    from pathlib import Path

    from kubeloop.components.progress import print_line
    from kubeloop.components.steps import build_provenance, find_namespace, open_step
    from kubeloop.kserve.deployments import WaitConfig, connect, deploy
    from kubeloop.kserve.inference_services import InferenceServiceConfig

    with open_step(endpoint.uri) as step:
        config = InferenceServiceConfig(
            name=name,
            namespace=find_namespace(),
            model_uri=model.uri,
            variant=variant,
            cpu=cpu,
            memory=memory,
            min_replicas=min_replicas,
            service_account=service_account,
            run_labels=step.labels,
            provenance=build_provenance(model.metadata, run_id=step.run_id),
        )
        ready = deploy(
            config,
            client=connect(),
            wait=WaitConfig(timeout_seconds=timeout_seconds),
            on_progress=lambda progress: print_line(progress.message),
        )
    described = {"name": ready.name, "namespace": ready.namespace, "url": ready.url}
    Path(endpoint.path).write_text(json.dumps(described))
    endpoint.metadata.update(described)
    return (ready.url,)
