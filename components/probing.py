"""Held-out examples sent to an endpoint."""

from __future__ import annotations

from kubeloop.datasets import open_dataset
from kubeloop.kserve.client import PredictionClient, encode_image

_BATCH = 32


def probe(
    url: str, *, model_name: str, dataset_uri: str, split: str, num_examples: int
) -> list[dict[str, str]]:
    """Ask an endpoint for examples spread evenly over a split.

    Args:
        url: The endpoint's URL.
        model_name: The model behind it.
        dataset_uri: Commit that the examples are taken from.
        split: Split that they are taken from.
        num_examples: How many; the whole split where it has fewer.

    Returns:
        `expected`, `predicted` and `path` of each example.

    Raises:
        TransientError: The endpoint does not answer.
        PermanentError: It answers what a classifier of kubeloop does not.
    """
    examples = open_dataset(dataset_uri).split(split)
    count = min(num_examples, len(examples))
    rows = [examples[index * len(examples) // count] for index in range(count)]
    answers: list[dict[str, str]] = []
    with PredictionClient(url, model_name) as client:
        for start in range(0, count, _BATCH):
            batch = rows[start : start + _BATCH]
            predictions = client.classify([encode_image(row.data) for row in batch])
            answers += [
                {"expected": row.label, "predicted": prediction.label, "path": row.path}
                for row, prediction in zip(batch, predictions, strict=True)
            ]
    return answers
