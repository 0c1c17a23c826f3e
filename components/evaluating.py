"""What `evaluate_model` finds out and logs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kubeloop.errors import InputError, IntegrityError, TransientError
from kubeloop.training.evaluation import (
    Comparison,
    Evaluation,
    EvaluationConfig,
    compare,
    evaluate,
)
from kubeloop.training.evaluation_report import render_evaluation

if TYPE_CHECKING:
    from kfp import dsl

_MAX_PRINTED = 12
"""Classes whose scores are in the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """A model's scores, and how it stands against the served one."""

    model_uri: str
    dataset_uri: str
    evaluation: Evaluation
    comparison: Comparison | None
    beats_champion: bool
    verdict: str
    """What the comparison came to; empty where there was none."""

    @property
    def champion_accuracy(self) -> float:
        """Accuracy of the served model, on the labels that it knows; 0 where there is none."""
        return self.comparison.champion_accuracy if self.comparison else 0.0

    @property
    def new_labels_accuracy(self) -> float:
        """Accuracy on labels that the served model does not know; 1 where it knows all.

        Where none is served all labels are new. Labels without examples to score on count as
        unknown to the model, too: nothing shows that it knows them.
        """
        if self.comparison is None:
            return self.evaluation.accuracy
        if not self.comparison.new_labels:
            return 1.0
        return self.comparison.new_labels_accuracy or 0.0


def judge(
    model_uri: str,
    dataset_uri: str,
    config: EvaluationConfig,
    *,
    champion_uri: str = "",
    min_gain: float = 0.0,
) -> Judgement:
    """Score a model, and the served one on the same examples.

    Args:
        model_uri: The model package.
        dataset_uri: The dataset commit.
        config: What is scored.
        champion_uri: The served model's package, which it must beat; empty: there is none.
        min_gain: Accuracy by which it must.

    Raises:
        InputError: The model is no classifier of this dataset's labels, or the champion is none,
            or is damaged.
        TransientError: A store does not answer.
    """
    evaluation = evaluate(model_uri, dataset_uri, config)
    comparison, wins, verdict = None, True, ""
    if champion_uri:
        try:
            comparison = compare(evaluation, champion_uri, dataset_uri, config)
        except (InputError, IntegrityError) as error:
            raise InputError(
                f"The model cannot be compared with the served one: {error} Deploy it under another"
                " name, or delete the endpoint first."
            ) from error
        except TransientError as error:
            raise TransientError(f"The served model cannot be read just now: {error}") from error
        wins = comparison.is_won(min_gain)
        verdict = _describe(comparison, wins=wins, min_gain=min_gain)
    return Judgement(
        model_uri=model_uri,
        dataset_uri=dataset_uri,
        evaluation=evaluation,
        comparison=comparison,
        beats_champion=wins,
        verdict=verdict,
    )


def _describe(comparison: Comparison, *, wins: bool, min_gain: float) -> str:
    same = comparison.challenger.digest == comparison.champion.digest
    asked = ""
    if min_gain:
        asked = ", where " + (
            f"a gain of {min_gain:g} is asked for"
            if min_gain > 0
            else f"a loss of {-min_gain:g} is allowed"
        )
    text = (
        f"The model {'holds against' if wins else 'loses to'} the served one"
        f"{', which is the same' if same else ''}: accuracy"
        f" {comparison.challenger_accuracy:.4f} against {comparison.champion_accuracy:.4f} on"
        f" {comparison.champion.num_examples} examples{asked}."
    )
    new = ", ".join(comparison.new_labels)
    if comparison.new_labels_accuracy is not None:
        text += f" On the new labels {new} it has {comparison.new_labels_accuracy:.4f}."
    elif new:
        text += (
            f" The {comparison.challenger.split} split has no example of the new labels {new}, so"
            " that nothing shows that it knows them: add more."
        )
    return text


def log_judgement(
    judgement: Judgement,
    *,
    metrics: dsl.Metrics,
    confusion: dsl.ClassificationMetrics,
    report: dsl.HTML,
) -> None:
    """Write the artifacts of an evaluation, and the log's summary of it."""
    evaluation, comparison = judgement.evaluation, judgement.comparison
    for name, value in _collect_scores(judgement).items():
        metrics.log_metric(name, value)
    print(
        f"{evaluation.split} accuracy {evaluation.accuracy:.4f} on {evaluation.num_examples}"
        f" examples, calibration error {evaluation.calibration.error:.4f}"
    )
    weakest = sorted(evaluation.classes, key=lambda scores: scores.f1)[:_MAX_PRINTED]
    for scores in evaluation.classes:
        if scores in weakest:
            print(f"{scores.label}: precision {scores.precision:.3f}, recall {scores.recall:.3f}")
        metrics.log_metric(f"precision/{scores.label}", scores.precision)
        metrics.log_metric(f"recall/{scores.label}", scores.recall)
        metrics.log_metric(f"f1/{scores.label}", scores.f1)
    if (num_left := len(evaluation.classes) - len(weakest)) > 0:
        print(f"{num_left} classes do better than these; the report has them.")
    if judgement.verdict:
        print(judgement.verdict)
    confusion.log_confusion_matrix(
        list(evaluation.labels), [list(row) for row in evaluation.confusion]
    )
    if evaluation.roc is not None:
        confusion.log_roc_curve(
            list(evaluation.roc.false_positive_rates),
            list(evaluation.roc.true_positive_rates),
            list(evaluation.roc.thresholds),
        )
    facts = {"model": judgement.model_uri, "dataset": judgement.dataset_uri}
    page = render_evaluation(evaluation, comparison, facts=facts, verdict=judgement.verdict)
    Path(report.path).write_text(page, encoding="utf-8")


def _collect_scores(judgement: Judgement) -> dict[str, float]:
    evaluation, comparison = judgement.evaluation, judgement.comparison
    scores = {
        "accuracy": evaluation.accuracy,
        "loss": evaluation.loss,
        "macro_f1": evaluation.macro_f1,
        "calibration_error": evaluation.calibration.error,
        "worst_slice_accuracy": min(part.accuracy for part in evaluation.slices),
    }
    if evaluation.roc is not None:
        scores["roc_area"] = evaluation.roc.area
    if comparison is not None:
        scores["champion_accuracy"] = comparison.champion_accuracy
        scores["challenger_accuracy"] = comparison.challenger_accuracy
        if comparison.new_labels_accuracy is not None:
            scores["new_labels_accuracy"] = comparison.new_labels_accuracy
    return scores
