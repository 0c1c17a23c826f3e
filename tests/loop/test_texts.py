"""The loop on texts: a table becomes an endpoint that is asked in plain words."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubeloop.pipelines.packages import COMPILED
from kubeloop.testing.laptop import Laptop

pytestmark = [pytest.mark.loop, pytest.mark.pinned]

SENTENCES = {
    "weather": "will it rain in {} today",
    "travel": "book a train to {}",
    "food": "where can i eat in {}",
}
PLACES = [
    f"{start}{end}"
    for start in ("ber", "os", "pa", "ro", "vi")
    for end in ("lin", "lo", "na", "me")
]
SMALL = {
    "bag_size": 16, "hidden": 32, "architecture": "bag", "min_count": 1, "batch_size": 8
}  # fmt: skip


def write_texts(path: Path, sentences: dict[str, str]) -> Path:
    rows = [
        f"{sentence.format(place)},{label}\n"
        for label, sentence in sentences.items()
        for place in PLACES
    ]
    path.write_text("text,label\n" + "".join(rows))
    return path


def run_small(laptop: Laptop, pipeline: str, **parameters: Any) -> str:
    """Run a pipeline with a small model; returns what the user read."""
    given = {"hyperparameters": SMALL, "num_workers": 1, **parameters}
    done, _ = laptop.run(str(COMPILED / pipeline), **given)
    assert done.code == 0, done
    return done.out


def find_model(laptop: Laptop) -> str:
    endpoint = laptop.command.call("endpoints", "text-classifier", "-o", "json").json
    return str(endpoint["model_uri"])


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    """A control plane on which texts have become an endpoint."""
    with Laptop(tmp_path_factory.mktemp("texts")) as laptop:
        laptop.up()
        run_small(
            laptop,
            "text_classification",
            dataset_source=str(write_texts(laptop.folder / "texts.csv", SENTENCES)),
            max_trials=1,
            trial_epochs=1,
            epochs=10,
            search_space={"learning_rate": {"type": "float", "min": 0.02, "max": 0.03}},
        )
        yield laptop


def test_the_endpoint_is_asked_in_plain_words(laptop: Laptop) -> None:
    texts = {"will it rain in zurich today": "weather", "book a train to basel": "travel"}
    options = [part for text in texts for part in ("--text", text)]

    answer = laptop.command.call("predict", "text-classifier", *options, "-o", "json")
    shown = laptop.command.call("predict", "text-classifier", *options)

    assert answer.code == 0, answer
    assert [item["label"] for item in answer.json["predictions"]] == list(texts.values())
    assert all(text in shown.out for text in texts)


def test_lineage_runs_from_the_endpoint_to_the_table_of_texts(laptop: Laptop) -> None:
    nodes = laptop.command.call("lineage", "text-classifier", "-o", "json").json["nodes"]

    found = {node["kind"]: node["id"] for node in nodes}
    assert found.keys() >= {"endpoint", "model", "training_job", "trial", "dataset", "source"}
    assert found["source"].endswith("texts.csv")


def test_retraining_replaces_the_served_model_only_by_a_better_one(laptop: Laptop) -> None:
    new = write_texts(laptop.folder / "new.csv", {"music": "play a song from {}"})
    asked = ("predict", "text-classifier", "--text", "play a song from zurich", "-o", "json")
    served = find_model(laptop)

    refused = run_small(laptop, "retrain", new_data=str(new), epochs=10, min_gain=0.5)
    after_refusal = find_model(laptop)
    run_small(laptop, "retrain", new_data=str(new), epochs=10)

    assert "The model loses to the served one: accuracy " in refused
    assert "where a gain of 0.5 is asked for" in refused
    assert "no-worse-than-served: SKIPPED: its condition does not hold" in refused
    assert after_refusal == served
    assert find_model(laptop) != served
    (answer,) = laptop.command.call(*asked).json["predictions"]
    assert answer["label"] == "music"
    assert answer["probabilities"].keys() == {*SENTENCES, "music"}
