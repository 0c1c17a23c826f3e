from collections.abc import Callable
from typing import Any

import pytest
from torch.utils.data import DataLoader

from kubeloop.datasets import Commit, IngestConfig, ingest, open_dataset
from kubeloop.datasets.streaming import StreamConfig
from kubeloop.errors import InputError

Batches = list[tuple[str, ...]]
TEXTS = [f"text {number} " + "x" * 200 for number in range(3001)]


@pytest.fixture(scope="module")
def commit(tmp_path_factory: pytest.TempPathFactory) -> Commit:
    folder = tmp_path_factory.mktemp("stream")
    (folder / "train.csv").write_text(
        "text,label\n" + "".join(f"{text},{'ab'[n % 2]}\n" for n, text in enumerate(TEXTS))
    )
    (folder / "test.csv").write_text("text,label\na,a\nb,b\n")
    return ingest(
        IngestConfig(
            name="stream",
            source=str(folder),
            store=str(tmp_path_factory.mktemp("store")),
            kind="text_classification",
            shard_bytes=1 << 16,
        )
    )


@pytest.fixture
def read(commit: Commit) -> Callable[..., Batches]:
    def run(
        *,
        workers: int = 0,
        epoch: int = 0,
        state: dict[str, int] | None = None,
        batch_size: int = 32,
        **settings: Any,
    ) -> Batches:
        config = StreamConfig(batch_size=batch_size, window_shards=3, **settings)
        stream = open_dataset(commit.uri).stream("train", config)
        stream.set_epoch(epoch)
        if state is not None:
            stream.load_state_dict(state)
        loader = DataLoader(stream, batch_size=batch_size, num_workers=workers)
        return [tuple(batch[0]) for batch in loader]

    return run


Read = Callable[..., Batches]


def test_an_epoch_has_every_example_once_in_a_mixed_order(read: Read, commit: Commit) -> None:
    batches = read()

    texts = [text for batch in batches for text in batch]
    assert sorted(texts) == sorted(TEXTS)
    assert texts != TEXTS
    assert len(commit.manifest.splits["train"]) > 6


def test_the_order_depends_on_seed_and_epoch_alone(read: Read) -> None:
    first = read()

    assert read() == read(workers=2) == first
    assert read(seed=1) != first
    assert read(epoch=1) != first
    assert [text for batch in read(shuffle=False) for text in batch] == TEXTS


@pytest.mark.parametrize("workers", [0, 2])
def test_it_resumes_at_a_step(read: Read, commit: Commit, workers: int) -> None:
    config = StreamConfig(batch_size=32)
    state = open_dataset(commit.uri).stream("train", config).state_dict(num_batches=37)

    assert read(workers=workers, state=state) == read()[37:]


def test_resuming_with_another_seed_is_refused(read: Read, commit: Commit) -> None:
    stream = open_dataset(commit.uri).stream("train", StreamConfig(batch_size=32))

    with pytest.raises(InputError, match="saved with seed 0, not 1"):
        read(seed=1, state=stream.state_dict(num_batches=3))


def test_two_ranks_see_together_what_one_sees_with_twice_the_batch(read: Read) -> None:
    whole = read(batch_size=32)
    halves = [read(batch_size=16, rank=rank, num_ranks=2) for rank in (0, 1)]

    assert len(halves[0]) == len(halves[1])
    for one, first, second in list(zip(whole, *halves, strict=True))[:-1]:
        assert sorted(one) == sorted([*first, *second])


def test_all_ranks_get_equally_many(commit: Commit) -> None:
    dataset = open_dataset(commit.uri)
    streams = [dataset.stream("train", StreamConfig(rank=rank, num_ranks=4)) for rank in range(4)]

    assert {len(list(stream)) for stream in streams} == {len(streams[0])} == {751}


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match="rank 2 must be below num_ranks 2"):
        StreamConfig(rank=2, num_ranks=2)
    with pytest.raises(InputError, match="must be positive"):
        StreamConfig(batch_size=0)


def test_workers_that_stay_follow_the_epoch(commit: Commit, read: Read) -> None:
    stream = open_dataset(commit.uri).stream("train", StreamConfig(batch_size=32, window_shards=3))
    loader = DataLoader(stream, batch_size=32, num_workers=2, persistent_workers=True)
    epochs = []
    for epoch in (0, 1):
        stream.set_epoch(epoch)
        epochs.append([tuple(batch[0]) for batch in loader])
    stream.load_state_dict(stream.state_dict(num_batches=40))

    assert epochs == [read(), read(epoch=1)]
    assert [tuple(batch[0]) for batch in loader] == epochs[1][40:]
