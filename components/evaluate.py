"""A model is judged on images that neither training nor tuning has seen."""

from typing import NamedTuple

from kfp import dsl

from kubeloop.components.steps import RUNTIME_IMAGE


@dsl.component(base_image=RUNTIME_IMAGE, install_kfp_package=False)
def evaluate_model(
    dataset: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    confusion: dsl.Output[dsl.ClassificationMetrics],
    split: str = "test",
) -> NamedTuple("Outputs", [("accuracy", float)]):  # type: ignore[valid-type]  # noqa: UP014  # KFP reads the functional form
    """Score a model package on a held-out split.

    Args:
        dataset: The commit that the split is taken from.
        model: The model package.
        metrics: Accuracy, and precision and recall of every class.
        confusion: Confusion matrix, true classes by row.
        split: `test`, `validation` or `train`.
    """
    from kubeloop.training.evaluation import evaluate, render_report
    from kubeloop.training.package import opened_package

    with opened_package(model.uri) as package:
        result = evaluate(package, dataset_uri=dataset.uri, split=split)
    print(render_report(result))
    for name, value in result.metrics().items():
        metrics.log_metric(name, value)
    confusion.log_confusion_matrix(list(result.labels), result.confusion_matrix.tolist())
    return (result.accuracy,)
