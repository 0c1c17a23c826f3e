"""A model is judged on examples that neither training nor tuning has seen."""

from typing import NamedTuple

from kfp import dsl

from kubeloop.components.steps import RUNTIME_IMAGE


@dsl.component(base_image=RUNTIME_IMAGE, install_kfp_package=False)
def evaluate_model(
    dataset: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    confusion: dsl.Output[dsl.ClassificationMetrics],
    report: dsl.Output[dsl.HTML],
    split: str = "test",
    variant: str = "",
    slice_by: list = [],  # type: ignore[type-arg]  # noqa: B006  # KFP reads the default
    champion: str = "",
    min_gain: float = 0.0,
) -> NamedTuple(  # type: ignore[valid-type]  # KFP reads the functional form
    "Outputs",
    [
        ("accuracy", float),
        ("champion_accuracy", float),
        ("beats_champion", bool),
        ("new_labels_accuracy", float),
    ],
):
    """Score a model package on a held-out split, and against the model that is served today.

    A gate can ask for `accuracy`, or for `beats_champion`: whether the model exceeds the served one
    by `min_gain` on the examples whose labels both know; true where none is served yet. On labels
    that the served one does not know, the model has `new_labels_accuracy`: 1 where there are none,
    0 where the split has no example of them; where none is served all labels are new.
    `champion_accuracy` is 0 where there is no champion.

    Args:
        dataset: The commit that the split is taken from.
        model: The model package.
        metrics: Accuracy, loss, F1, calibration error; precision, recall and F1 of every class.
        confusion: Confusion matrix, true classes by row, and the ROC curve of all classes.
        report: Classes, mistakes, ROC, calibration, slices, champion and challenger in pictures.
        split: `test`, `validation` or `train`.
        variant: Form of the model that is scored, `onnx` or `int8`, where `train_model` was asked
            for it; empty: the original. The champion is always its original.
        slice_by: Columns of the data, `tag` or `label`, by whose values accuracy is told; empty:
            tags and columns of few values, else labels.
        champion: URI of the served model's package, as `find_champion` tells it; empty: there is
            none to compare with.
        min_gain: Accuracy by which the model must exceed the champion's; 0: be as good.
    """
    from kubeloop.components.evaluating import judge, log_judgement
    from kubeloop.components.steps import open_step
    from kubeloop.training.evaluation import EvaluationConfig

    config = EvaluationConfig(split=split, variant=variant, slice_by=tuple(slice_by))
    with open_step(metrics.uri):
        judged = judge(model.uri, dataset.uri, config, champion_uri=champion, min_gain=min_gain)
    log_judgement(judged, metrics=metrics, confusion=confusion, report=report)
    return (
        judged.evaluation.accuracy,
        judged.champion_accuracy,
        judged.beats_champion,
        judged.new_labels_accuracy,
    )
