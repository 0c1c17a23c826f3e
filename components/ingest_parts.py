"""A source too big for one pod: its parts are ingested side by side, then committed as one."""

from kfp import dsl

from kubeloop.components.steps import RUNTIME_IMAGE


@dsl.component(base_image=RUNTIME_IMAGE, install_kfp_package=False)
def ingest_part(
    source: str,
    number: int,
    count: int,
    written: dsl.Output[dsl.Artifact],
    name: str = "dataset",
    kind: str = "image_classification",
    options: dict = {},  # type: ignore[type-arg]  # noqa: B006  # KFP reads the bare type
    rules: dict = {},  # type: ignore[type-arg]  # noqa: B006  # KFP reads the bare type
    validation_fraction: float = 0.15,
    test_fraction: float = 0.15,
    max_corrupt_fraction: float = 0.0,
    seed: int = 0,
    store: str = "",
) -> str:
    """Write the shards of one part of a source's files; readers see nothing of it yet.

    Not to be cached: the path of a source says nothing about its content.

    Args:
        source: Where the raw data lies: files, on a volume or in a store that all parts reach.
        number: Number of the part, from 0.
        count: How many parts there are.
        written: Names what the part wrote.
        name: Name of the dataset in the store.
        kind: `image_classification`, `text_classification` or `tabular`.
        options: How the source is read, such as `text_column`, `label_column`, `encoding`.
        rules: Severity of validation rules by name: `error`, `warning`, `info` or `off`.
        validation_fraction: Share of the examples held out to tune on, in (0, 1).
        test_fraction: Share of the examples held out to judge by, in (0, 1).
        max_corrupt_fraction: Share of unreadable files above which the part is refused.
        seed: Seed of the splits.
        store: URI of the dataset store; empty: below the pipeline root.
    """
    from pathlib import Path

    from kubeloop.components.progress import ProgressPrinter
    from kubeloop.components.steps import open_step, restore_integers
    from kubeloop.datasets import IngestConfig, ScanOptions, SplitConfig, parts

    with open_step(written.uri) as step:
        config = IngestConfig(
            source=source,
            store=step.store("datasets", store),
            name=name,
            kind=kind,
            scan=ScanOptions.parse(restore_integers(options)),
            severities=rules,
            splits=SplitConfig.held_out(validation_fraction, test_fraction, seed=seed),
            max_corrupt_fraction=max_corrupt_fraction,
            message=f"run {step.run_id}",
        )
        part = parts.Part(number=number, count=count)
        uri = parts.ingest_part(config, part, on_progress=ProgressPrinter().ingest)
        Path(written.path).write_text(uri)
    return uri


@dsl.component(base_image=RUNTIME_IMAGE, install_kfp_package=False)
def commit_parts(
    parts: list,  # type: ignore[type-arg]  # KFP reads the bare type
    dataset: dsl.Output[dsl.Dataset],
    report: dsl.Output[dsl.HTML],
) -> str:
    """Make one commit of all parts of a source; returns its version hash.

    Args:
        parts: What the `ingest_part` steps returned.
        dataset: The commit's manifest; its URI contains the content's hash.
        report: What is in the data, and what validation found.
    """
    from kubeloop.components.ingesting import finish_ingest
    from kubeloop.components.steps import open_step
    from kubeloop.datasets.parts import commit_parts as commit_all

    with open_step(dataset.uri) as step:
        commit = commit_all(parts, message=f"run {step.run_id}")
        finish_ingest(commit, dataset=dataset, report=report)
    return str(commit.version_hash)
