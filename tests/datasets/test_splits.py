import pytest

from kubeloop.datasets.splits import SplitConfig, assign_splits, count_splits
from kubeloop.errors import InputError


def digests(count: int) -> list[str]:
    return [f"{number:064x}" for number in range(count)]


def test_fractions_hold_within_each_class() -> None:
    config = SplitConfig(train=0.5, validation=0.25, test=0.25)

    assigned = assign_splits({"a": digests(100), "b": digests(8)}, config)

    splits = list(assigned.items())
    assert sum(split == "train" for (label, _), split in splits if label == "a") == 50
    assert sum(split == "test" for (label, _), split in splits if label == "a") == 25
    assert sum(split == "validation" for (label, _), split in splits if label == "b") == 2


@pytest.mark.parametrize(
    ("num_contents", "sizes"),
    [
        (2, {"train": 1, "validation": 0, "test": 1}),
        (3, {"train": 1, "validation": 1, "test": 1}),
        (4, {"train": 2, "validation": 1, "test": 1}),
        (20, {"train": 14, "validation": 3, "test": 3}),
    ],
)
def test_every_split_gets_each_class_where_counts_allow(
    num_contents: int, sizes: dict[str, int]
) -> None:
    assert count_splits(num_contents, SplitConfig()) == sizes


def test_a_split_without_fraction_stays_empty() -> None:
    config = SplitConfig(train=0.8, validation=0.2, test=0.0)

    assert count_splits(10, config) == {"train": 8, "validation": 2, "test": 0}


def test_the_assignment_does_not_depend_on_order_or_copies() -> None:
    contents = digests(30)

    first = assign_splits({"a": contents}, SplitConfig())
    second = assign_splits({"a": [*reversed(contents), *contents]}, SplitConfig())

    assert first == second
    assert first != assign_splits({"a": contents}, SplitConfig(seed=1))


def test_removing_one_content_moves_few_others() -> None:
    before = assign_splits({"a": digests(100)}, SplitConfig())
    after = assign_splits({"a": digests(99)}, SplitConfig())

    assert sum(before[key] != split for key, split in after.items()) <= 2


@pytest.mark.parametrize("count", [0, 1])
def test_a_class_that_cannot_be_split_is_named(count: int) -> None:
    with pytest.raises(InputError, match=f"Class 'rare' has {count} distinct example"):
        assign_splits({"common": digests(5), "rare": digests(count)}, SplitConfig())


@pytest.mark.parametrize(
    ("train", "validation", "test"), [(0.5, 0.5, 0.5), (0.0, 0.5, 0.5), (1.2, -0.1, -0.1)]
)
def test_fractions_that_make_no_sense_are_refused(
    train: float, validation: float, test: float
) -> None:
    with pytest.raises(InputError, match="Split fractions"):
        SplitConfig(train=train, validation=validation, test=test)
