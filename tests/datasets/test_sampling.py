from pathlib import Path

import pytest

from kubeloop.datasets import Commit, IngestConfig, ingest
from kubeloop.datasets.sampling import ClassSampler
from kubeloop.errors import InputError
from kubeloop.testing.image_folders import write_image_folder

DIGESTS = [bytes([number]) * 32 for number in range(50)]


def choose(digests: list[bytes], *, seed: int = 0) -> set[bytes]:
    sampler = ClassSampler(5, seed=seed)
    sampler.observe(["a"] * len(digests), digests)
    return {digest for digest in DIGESTS if sampler.chooses("a", digest)}


def test_the_choice_depends_on_content_and_seed_alone() -> None:
    assert len(choose(DIGESTS)) == 5
    assert choose(DIGESTS) == choose(DIGESTS[::-1]) == choose([*DIGESTS, *DIGESTS])
    assert choose(DIGESTS) != choose(DIGESTS, seed=1)


def test_a_sampled_commit_holds_some_of_each_class(tmp_path: Path) -> None:
    source = write_image_folder(tmp_path / "images", {"a": 12, "b": 30, "c": 4})

    def commit(limit: int) -> Commit:
        return ingest(
            IngestConfig(
                name="images",
                source=str(source),
                store=str(tmp_path / "store"),
                max_examples_per_class=limit,
            )
        )

    sampled, whole = commit(6), commit(0)
    assert (sampled.num_examples, whole.num_examples) == (16, 46)
    assert sampled.labels == ("a", "b", "c")
    assert commit(6) == sampled
    assert sampled.version_hash != whole.version_hash


def test_a_negative_limit_is_refused() -> None:
    with pytest.raises(InputError, match="max_examples_per_class must be 0 for all"):
        IngestConfig(name="a", source="a", store="a", max_examples_per_class=-1)
