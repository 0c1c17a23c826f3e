"""A new model is compared with the one that is served today."""

from typing import NamedTuple

from kfp import dsl

from kubeloop.components.steps import RUNTIME_IMAGE


@dsl.component(base_image=RUNTIME_IMAGE, install_kfp_package=False)
def find_champion(
    endpoint: str,
    model: dsl.Input[dsl.Model],
    run_id: str = "",  # noqa: ARG001  # a part of what the cache looks for
) -> NamedTuple("Outputs", [("model_uri", str)]):  # type: ignore[valid-type]  # KFP reads the functional form
    """Tell which model an endpoint serves, for `evaluate_model`; nothing where there is no other.

    Never to be cached: see `run_id`. It gives a model's URI, which holds the digest, so that the
    evaluation after it is cached for as long as the endpoint serves the same model.

    Args:
        endpoint: Name of the InferenceService.
        model: The new model, which has nothing to beat where the endpoint serves it already.
        run_id: Give `dsl.PIPELINE_JOB_ID_PLACEHOLDER`, and no run takes the step from the cache,
            not even one that asks for caching everywhere.
    """
    from kubeloop.components.champions import find_model
    from kubeloop.components.steps import find_namespace, rendered_errors
    from kubeloop.kserve.deployments import connect, get

    with rendered_errors():
        model_uri = find_model(get(endpoint, namespace=find_namespace(), client=connect()))
    if model_uri and model_uri == model.uri:
        print(f"Endpoint {endpoint!r} serves this very model: there is no other to beat.")
        model_uri = ""
    elif model_uri:
        print(f"Endpoint {endpoint!r} serves the model {model_uri}.")
    else:
        print(f"Endpoint {endpoint!r} serves no model yet: a new one has nothing to beat.")
    return (model_uri,)
