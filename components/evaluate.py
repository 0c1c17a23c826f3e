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
) -> NamedTuple("Outputs", [("accuracy", float)]):  # type: ignore[valid-type]  # KFP reads the functional form
    """Score a model package on a held-out split.

    Args:
        dataset: The commit that the split is taken from.
        model: The model package.
        metrics: Accuracy, and precision and recall of every class.
        confusion: Confusion matrix, true classes by row.
        split: `test`, `validation` or `train`.
    """
    from kubeloop.components.steps import open_step
    from kubeloop.training.evaluation import evaluate

    with open_step(metrics.uri):
        result = evaluate(model.uri, dataset.uri, split=split)
    print(f"{split} accuracy {result.accuracy:.4f} on {result.num_examples} examples")
    metrics.log_metric("accuracy", result.accuracy)
    metrics.log_metric("loss", result.loss)
    for scores in result.classes:
        print(f"{scores.label}: precision {scores.precision:.3f}, recall {scores.recall:.3f}")
        metrics.log_metric(f"precision/{scores.label}", scores.precision)
        metrics.log_metric(f"recall/{scores.label}", scores.recall)
    confusion.log_confusion_matrix(list(result.labels), [list(row) for row in result.confusion])
    return (result.accuracy,)
