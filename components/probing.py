"""Held-out examples sent to an endpoint."""

from __future__ import annotations

from kubeloop.datasets import open_dataset
from kubeloop.datasets.reading import EncodedImage, TextExample
from kubeloop.errors import InputError
from kubeloop.kserve.client import Instance, PredictionClient, encode_image

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
        `expected` and `predicted` of each example, and `path` of an image or `text`.

    Raises:
        InputError: The examples are neither images nor texts.
        TransientError: The endpoint does not answer.
        PermanentError: It answers what a classifier of kubeloop does not.
    """
    dataset = open_dataset(dataset_uri)
    examples = dataset.split(split)
    count = min(num_examples, len(examples))
    rows = [examples[index * len(examples) // count] for index in range(count)]
    answers: list[dict[str, str]] = []
    with PredictionClient(url, model_name) as client:
        for start in range(0, count, _BATCH):
            batch = rows[start : start + _BATCH]
            predictions = client.classify([_encode(row) for row in batch])
            answers += [
                {
                    "expected": dataset.labels[row.class_index],
                    "predicted": prediction.label,
                    **_describe(row),
                }
                for row, prediction in zip(batch, predictions, strict=True)
            ]
    return answers


def _encode(row: object) -> Instance:
    match row:
        case EncodedImage():
            return encode_image(row.data)
        case TextExample():
            return row.text
    raise InputError(f"Only images and texts can be sent to an endpoint, not {type(row).__name__}.")


def _describe(row: EncodedImage | TextExample) -> dict[str, str]:
    return {"text": row.text} if isinstance(row, TextExample) else {"path": row.path}
