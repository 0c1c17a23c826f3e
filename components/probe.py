"""An endpoint answers for held-out examples."""

from typing import NamedTuple

from kfp import dsl

from kubeloop.components.steps import RUNTIME_IMAGE


@dsl.component(base_image=RUNTIME_IMAGE, install_kfp_package=False)
def probe_endpoint(
    dataset: dsl.Input[dsl.Dataset],
    endpoint: dsl.Input[dsl.Artifact],
    predictions: dsl.Output[dsl.Artifact],
    num_examples: int = 10,
    split: str = "test",
    run_id: str = "",  # noqa: ARG001  # a part of what the cache looks for
) -> NamedTuple("Outputs", [("num_correct", int), ("num_probed", int)]):  # type: ignore[valid-type]  # KFP reads the functional form
    """Send held-out examples to an endpoint; fails when it does not answer, not when it errs.

    Args:
        dataset: The commit that the examples are taken from.
        endpoint: The endpoint, as `deploy_model` describes it.
        predictions: What was expected and predicted, as JSON.
        num_examples: How many examples, spread over the classes.
        split: Split that they are taken from.
        run_id: Give `dsl.PIPELINE_JOB_ID_PLACEHOLDER`, and no run takes the step from the cache,
            not even one that asks for caching everywhere.
    """
    import json
    from pathlib import Path

    from kubeloop.components.probing import probe
    from kubeloop.components.steps import open_step

    with open_step(predictions.uri):
        answers = probe(
            endpoint.metadata["url"],
            model_name=endpoint.metadata["name"],
            dataset_uri=dataset.uri,
            split=split,
            num_examples=num_examples,
        )
    Path(predictions.path).write_text(json.dumps(answers, indent=2))
    num_correct = sum(answer["expected"] == answer["predicted"] for answer in answers)
    print(f"{num_correct} of {len(answers)} predictions are right")
    return (num_correct, len(answers))
