"""Ingests a source that is too big for one pod: parts side by side, one commit at the end."""

from kfp import dsl, kubernetes

from kubeloop.components.ingest_parts import commit_parts, ingest_part
from kubeloop.datasets.stores import OBJECT_STORE_SECRET, OBJECT_STORE_VARIABLES


@dsl.pipeline(name="ingest-in-parts", display_name="Ingest a source in parts")
def ingest_in_parts(
    source: str,
    name: str,
    numbers: list = [0, 1, 2, 3],  # type: ignore[type-arg]  # noqa: B006  # KFP reads the bare type
    count: int = 4,
    kind: str = "image_classification",
    options: dict = {},  # type: ignore[type-arg]  # noqa: B006  # KFP reads the bare type
    rules: dict = {},  # type: ignore[type-arg]  # noqa: B006  # KFP reads the bare type
    validation_fraction: float = 0.15,
    test_fraction: float = 0.15,
    max_corrupt_fraction: float = 0.0,
    seed: int = 0,
    store: str = "",
) -> None:
    """Ingest the files of a source in parts.

    Args:
        source: Where the raw data lies: files that all pods reach.
        name: Name of the dataset in the store.
        numbers: The parts' numbers, from 0.
        count: How many parts there are.
        kind: `image_classification`, `text_classification` or `tabular`.
        options: How the source is read, such as `text_column`, `label_column`, `encoding`.
        rules: Severity of validation rules by name: `error`, `warning`, `info` or `off`.
        validation_fraction: Share of the examples held out to tune on, in (0, 1).
        test_fraction: Share of the examples held out to judge by, in (0, 1).
        max_corrupt_fraction: Share of unreadable files above which a part is refused.
        seed: Seed of the splits.
        store: URI of the dataset store; empty: below the pipeline root.
    """
    with dsl.ParallelFor(items=numbers, name="parts") as number:
        part = ingest_part(
            source=source,
            number=number,
            count=count,
            name=name,
            kind=kind,
            options=options,
            rules=rules,
            validation_fraction=validation_fraction,
            test_fraction=test_fraction,
            max_corrupt_fraction=max_corrupt_fraction,
            seed=seed,
            store=store,
        )
        # The path of a source says nothing about its content.
        part.set_caching_options(False)
    commit = commit_parts(parts=dsl.Collected(part.outputs["Output"]))
    commit.set_caching_options(False)
    for step in (part, commit):
        kubernetes.use_secret_as_env(
            step, OBJECT_STORE_SECRET, {name: name for name in OBJECT_STORE_VARIABLES}
        )
