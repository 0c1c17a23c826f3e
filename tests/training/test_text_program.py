import json
from pathlib import Path

import numpy as np
import pytest
import torch

from kubeloop.datasets import Commit, IngestConfig, SplitConfig, ingest, open_dataset
from kubeloop.errors import InputError
from kubeloop.training.evaluation import evaluate
from kubeloop.training.metric_lines import parse_metrics
from kubeloop.training.package import open_package
from kubeloop.training.preprocessing import parse_preprocessing
from kubeloop.training.programs.text import main, parse_arguments
from kubeloop.training.text_preprocessing import FeatureKind, TextPreprocessing
from kubeloop.training.texts import TextArchitecture

pytestmark = pytest.mark.pinned  # nothing here depends on the Kubeflow SDKs

PLACES = ("berlin", "paris", "rome", "oslo", "london", "madrid", "vienna", "athens")
SENTENCES = {
    "weather": ("will it rain in {}", "how warm is it in {} today", "is it sunny in {}"),
    "travel": ("book a train to {}", "i want to fly to {}", "find me a ticket to {}"),
    "food": ("where can i eat in {}", "recommend a restaurant in {}", "i am hungry in {}"),
    "oos": ("who wrote a song about {}", "what is {} divided by two", "tell {} a joke"),
}
SMALL = (
    *("--epochs", "10", "--bag_size", "16", "--hidden", "32", "--word_size", "16"),
    *("--min_count", "1", "--hash_bits", "12", "--batch_size", "16", "--learning_rate", "0.005"),
    *("--out_of_scope_shift", "0"),
)


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Commit:
    """Three intents and what is out of scope, 96 texts in all."""
    folder = tmp_path_factory.mktemp("texts")
    rows = [
        json.dumps({"text": sentence.format(place), "label": label})
        for label, sentences in SENTENCES.items()
        for sentence in sentences
        for place in PLACES
    ]
    (folder / "texts.jsonl").write_text("\n".join(rows))
    return ingest(
        IngestConfig(
            name="intents",
            kind="text_classification",
            source=str(folder / "texts.jsonl"),
            store=str(folder / "store"),
            splits=SplitConfig(train=0.5, validation=0.25, test=0.25),
        )
    )


@pytest.mark.parametrize("architecture", list(TextArchitecture))
def test_a_package_answers_from_raw_text(
    texts: Commit,
    model_uri: str,
    architecture: TextArchitecture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["--dataset", texts.uri, "--model", model_uri, "--architecture", architecture]
    assert main([*arguments, *SMALL]) == 0

    lines = [parse_metrics(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[-1]["val_in_scope_accuracy"] >= 0.8
    assert lines[-1]["val_out_of_scope_recall"] >= 0.5
    assert evaluate(model_uri, texts.uri).accuracy >= 0.8
    package = open_package(Path(model_uri))
    assert (package.manifest.inputs[0].datatype, package.manifest.inputs[0].shape) == (
        "BYTES",
        (-1,),
    )
    model = package.load_model()
    preprocessing = parse_preprocessing(package.manifest.preprocessing)
    sentences = [b"book a train to rome", "größe? 寿司 🙂".encode(), b"", b"x" * 5000, b"a " * 900]
    with torch.inference_mode():
        together = model(*(torch.from_numpy(part) for part in preprocessing.prepare(sentences)))
        for row, sentence in enumerate(sentences):
            inputs = preprocessing.prepare([sentence])
            alone = model(*(torch.from_numpy(part) for part in inputs))
            assert torch.allclose(alone[0], together[row], atol=1e-5)
    assert torch.allclose(together.sum(1), torch.ones(len(sentences)))
    assert package.manifest.labels[int(together[0].argmax())] == "travel"


def test_a_shift_leaves_more_texts_to_out_of_scope(
    texts: Commit, capsys: pytest.CaptureFixture[str]
) -> None:
    recalls = []
    for shift in ("-50", "50"):
        arguments = ["--dataset", texts.uri, *SMALL, "--epochs", "1"]
        assert main([*arguments, "--out_of_scope_shift", shift]) == 0
        last = parse_metrics(capsys.readouterr().out.splitlines()[-1])
        recalls.append((last["val_out_of_scope_recall"], last["val_in_scope_accuracy"]))

    assert recalls[0][0] == 0.0
    assert recalls[1] == (1.0, 0.0)


def test_without_a_label_for_it_no_text_is_out_of_scope(
    texts: Commit, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--dataset", texts.uri, *SMALL, "--epochs", "1", "--out_of_scope", "none"]
    assert main(arguments) == 0

    last = parse_metrics(capsys.readouterr().out.splitlines()[-1])
    assert last["val_in_scope_accuracy"] == pytest.approx(last["val_accuracy"], abs=1e-6)
    assert "val_out_of_scope_recall" not in last


def test_the_same_seed_gives_the_same_package(texts: Commit, tmp_path: Path) -> None:
    digests = set()
    for number in range(2):
        uri = str(tmp_path / str(number))
        assert main(["--dataset", texts.uri, "--model", uri, *SMALL, "--epochs", "2"]) == 0
        digests.add(open_package(Path(uri)).digest)

    assert len(digests) == 1


def test_features_are_the_same_on_every_machine() -> None:
    preprocessing = TextPreprocessing()

    features = preprocessing.extract("Hello, WORLD")

    assert [len(word) for word in features.pieces] == [16, 4, 16]
    assert features.pieces[1] == (426862, 88766, 154009, 251028)
    assert {preprocessing.kind_of(n) for n in features.pairs} == {
        FeatureKind.NEIGHBOURS,
        FeatureKind.PAIR,
    }
    assert preprocessing.extract("hello, world") == features


def test_neighbours_have_an_order_and_other_pairs_have_none() -> None:
    there, back = (TextPreprocessing().extract(text) for text in ("to boston", "boston to"))

    both = set(there.pairs) & set(back.pairs)
    assert {TextPreprocessing().kind_of(number) for number in both} == {FeatureKind.PAIR}
    assert len(there.pairs) == len(back.pairs) == 2


def test_numbers_share_a_piece() -> None:
    def share(first: str, second: str, *, masks_numbers: bool) -> int:
        preprocessing = TextPreprocessing(masks_numbers=masks_numbers)
        pieces = (preprocessing.extract(word).pieces[0] for word in (first, second))
        return len(set.intersection(*map(set, pieces)))

    assert share("45", "0", masks_numbers=True) == share("15th", "2nd", masks_numbers=False) + 1
    assert share("15th", "8th", masks_numbers=True) == share("15th", "8th", masks_numbers=False) + 1
    assert share("15th", "8", masks_numbers=True) == share("a", "b", masks_numbers=True) == 0


def test_settings_travel_with_the_model() -> None:
    preprocessing = TextPreprocessing(hash_bits=12, window=3, masks_numbers=False)

    assert parse_preprocessing(preprocessing.render()) == preprocessing
    with pytest.raises(InputError, match="Unknown preprocessing"):
        parse_preprocessing({**preprocessing.render(), "version": 1})
    with pytest.raises(InputError, match="Unknown preprocessing"):
        parse_preprocessing({**preprocessing.render(), "surprise": 2})
    with pytest.raises(InputError, match="A text is not UTF-8"):
        preprocessing.prepare([b"\xff"])


def test_no_feature_is_number_zero() -> None:
    preprocessing = TextPreprocessing(hash_bits=8)

    pieces, _ = preprocessing.prepare([bytes(range(97, 123)) * 20])

    assert np.count_nonzero(pieces[0, 0]) == preprocessing.pieces_per_word


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--architecture", "lstm"], None),
        (["--masks_numbers", "perhaps"], None),
        (["--num_heads", "5"], "word_size must be a multiple of num_heads"),
        (["--word_dropout", "1"], "word_dropout must be from 0.0 to 0.95"),
        (["--hash_bits", "2"], "hash_bits must be from 8 to 24"),
        (["--shortest_piece", "5"], "shortest_piece and longest_piece"),
        (["--pieces_per_word", "2"], "pieces_per_word must be from 3 to 512"),
        (["--window", "99"], "window must be from 0 to 32"),
        (["--out_of_scope_shift", "1e9"], "out_of_scope_shift must be from -100 to 100"),
    ],
)
def test_wrong_values_are_refused(arguments: list[str], message: str | None) -> None:
    if message is None:
        with pytest.raises(SystemExit):
            parse_arguments(["--dataset", "/d", *arguments])
        return
    with pytest.raises(InputError, match=message):
        parse_arguments(["--dataset", "/d", *arguments])


def test_a_dataset_of_images_is_refused(commit: Commit, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--dataset", commit.uri, *SMALL]) == 1
    assert "not of texts; train it with another program" in capsys.readouterr().err


def test_texts_are_read_as_they_were_ingested(texts: Commit) -> None:
    examples = list(open_dataset(texts.uri).split("train"))

    assert all(text.split()[0] == text.split()[0].lower() for text, _ in examples)
    assert {index for _, index in examples} == {0, 1, 2, 3}
