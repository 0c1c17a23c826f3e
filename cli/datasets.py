"""`kubeloop datasets`: versions of data in an object store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kubeloop.cli import dataset_views as views
from kubeloop.cli.options import (
    DEFAULT_STATE,
    ContextOption,
    NamespaceOption,
    Output,
    OutputOption,
    Session,
    StateOption,
    console,
    errors,
    print_json,
)
from kubeloop.errors import InputError, IntegrityError, PermanentError

if TYPE_CHECKING:
    from kubeloop.datasets import Commit, ObjectStore, VersionHash

app = typer.Typer(
    no_args_is_help=True,
    help="Versions of data: ingest, look at, compare, tag, verify and remove them.\n\nA version is"
    " written `NAME` (the latest), `NAME@HASH` (the start of its hash), `NAME@TAG`, or as the URI"
    " of its manifest.",
)

StoreOption = Annotated[
    str,
    typer.Option(
        "--store",
        envvar="KUBELOOP_DATASETS",
        help="URI of the dataset store: a folder or s3://BUCKET/PREFIX.",
        show_default="that of the embedded control plane's runs",
    ),
]
Version = Annotated[str, typer.Argument(help="NAME, NAME@HASH, NAME@TAG or a URI.")]
Name = Annotated[str, typer.Argument(help="Name of the dataset.")]


def register(parent: typer.Typer) -> None:
    """Add the commands."""
    parent.add_typer(app, name="datasets")


def find_store(store: str, state: Path) -> str:
    """The dataset store that a command works on."""
    if store:
        return str(Path(store).expanduser().resolve()) if "://" not in store else store
    root = Session.open(state).state.root
    return str(root / "artifacts" / "kubeloop" / "datasets")


@app.command("list")
def list_(
    *,
    store: StoreOption = "",
    state: StateOption = DEFAULT_STATE,
    output: OutputOption = Output.TEXT,
) -> None:
    """List the datasets of a store; exit code 1 where one cannot be read.

    Examples:
        kubeloop datasets list

        kubeloop datasets list --store s3://bucket/datasets --output json
    """
    from kubeloop.datasets.commits import open_folder
    from kubeloop.datasets.history import list_datasets, read_latest

    uri = find_store(store, state)
    rows, damaged = [], []
    names = list_datasets(uri)
    for name in names:
        try:
            commit = read_latest(open_folder(uri, name))
        except (InputError, IntegrityError) as error:
            damaged.append(f"{name!r}: {error}")
            continue
        if commit is not None:
            rows.append(views.summarize_commit(commit, name=name))
    if output is Output.JSON:
        print_json(rows)
    elif rows:
        views.print_rows(rows)
    elif not damaged:
        console.print(f"No datasets in {uri}.")
    if damaged:
        msg = f"Failed to list {len(damaged)} of {len(names)} datasets: {' '.join(damaged)}"
        raise IntegrityError(msg)


@app.command()
def ingest(
    source: Annotated[
        str, typer.Argument(help="A path, or an http(s), s3 or database URI.", show_default=False)
    ],
    name: Annotated[str, typer.Option(help="Name of the dataset.")],
    *,
    kind: Annotated[
        str, typer.Option(help="image_classification, text_classification or tabular.")
    ] = "image_classification",
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-O", help="How to read it: text_column=…, encoding=…, …"),
    ] = None,
    rule: Annotated[
        list[str] | None,
        typer.Option(help="Severity of a validation rule: leakage=error, duplicates=off, …"),
    ] = None,
    extend: Annotated[
        bool, typer.Option("--extend", help="Add to the latest version, rather than replace it.")
    ] = False,
    full: Annotated[
        bool, typer.Option("--full", help="Read the source again although it looks unchanged.")
    ] = False,
    validation_fraction: Annotated[
        float, typer.Option(min=0, max=1, help="Share of every class held out to tune on.")
    ] = 0.15,
    test_fraction: Annotated[
        float, typer.Option(min=0, max=1, help="Share of every class held out to judge by.")
    ] = 0.15,
    max_corrupt_fraction: Annotated[
        float, typer.Option(min=0, max=1, help="Share of unreadable examples that is left out.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of the splits.")] = 0,
    message: Annotated[str, typer.Option("--message", "-m", help="Why.")] = "",
    tag: Annotated[list[str] | None, typer.Option(help="Tag of the new version.")] = None,
    store: StoreOption = "",
    state: StateOption = DEFAULT_STATE,
    output: OutputOption = Output.TEXT,
) -> None:
    """Commit a source's data; unchanged data is recognised and adds nothing.

    Examples:
        kubeloop datasets ingest ./scans --name digits -m "first scans"

        kubeloop datasets ingest intents.csv --name intents --kind text_classification

        kubeloop datasets ingest "postgresql://me@db/app?query=SELECT text, label FROM messages"
        --name messages --kind text_classification --extend
    """
    from kubeloop.datasets import IngestConfig, ScanOptions, SplitConfig
    from kubeloop.datasets import ingest as run_ingest
    from kubeloop.datasets.commits import dataset_of
    from kubeloop.datasets.history import add_tag, check_tag

    for text in tag or []:
        check_tag(text)
    config = IngestConfig(
        name=name,
        source=source,
        store=find_store(store, state),
        kind=kind,
        scan=ScanOptions.parse(_parse_pairs(option or [])),
        severities=_parse_pairs(rule or []),
        extend=extend,
        full=full,
        splits=SplitConfig.held_out(validation_fraction, test_fraction, seed=seed),
        max_corrupt_fraction=max_corrupt_fraction,
        message=message,
    )
    with errors.status("Ingesting…") as status:
        commit = run_ingest(config, on_progress=lambda p: status.update(views.render_progress(p)))
    for text in tag or []:
        add_tag(dataset_of(commit.uri), commit.version_hash, text)
    if output is Output.JSON:
        print_json(views.describe_commit(commit))
        return
    views.print_commit(commit)
    console.print("\nA new version." if commit.is_new else "\nUnchanged: nothing was added.")


def _parse_pairs(texts: list[str]) -> dict[str, str]:
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            msg = f"{text!r} is not NAME=VALUE."
            raise InputError(msg)
        pairs[name] = value
    return pairs


def _resolve(version: str, store: str, state: Path) -> Commit:
    from kubeloop.datasets.history import resolve

    return resolve(find_store(store, state), version)


def _open(name: str, store: str, state: Path) -> ObjectStore:
    from kubeloop.datasets.history import open_named

    return open_named(find_store(store, state), name)


@app.command()
def show(
    version: Version,
    *,
    html: Annotated[Path | None, typer.Option(help="Write the report to this file.")] = None,
    store: StoreOption = "",
    state: StateOption = DEFAULT_STATE,
    output: OutputOption = Output.TEXT,
) -> None:
    """Show a version: origin, labels by split, statistics, findings.

    Examples:
        kubeloop datasets show digits

        kubeloop datasets show digits@3f2a91 --html report.html
    """
    commit = _resolve(version, store, state)
    if html is not None:
        from kubeloop.datasets.report import build_report
        from kubeloop.reports import render_page

        html.write_text(render_page(build_report(commit)))
        console.print(f"Wrote {html}.")
    elif output is Output.JSON:
        print_json(views.describe_commit(commit))
    else:
        views.print_commit(commit)


@app.command()
def log(
    name: Name,
    *,
    store: StoreOption = "",
    state: StateOption = DEFAULT_STATE,
    output: OutputOption = Output.TEXT,
) -> None:
    """List the versions of a dataset, the newest first.

    Examples:
        kubeloop datasets log digits
    """
    from kubeloop.datasets.history import read_log

    entries = read_log(_open(name, store, state))
    if output is Output.JSON:
        print_json([asdict(entry) for entry in entries])
    else:
        views.print_log(entries)


@app.command()
def diff(
    old: Version,
    new: Version,
    *,
    store: StoreOption = "",
    state: StateOption = DEFAULT_STATE,
    output: OutputOption = Output.TEXT,
) -> None:
    """Compare two versions example by example.

    Examples:
        kubeloop datasets diff digits@3f2a91 digits
    """
    from kubeloop.datasets.housekeeping import diff as compare

    difference = compare(_resolve(old, store, state), _resolve(new, store, state))
    if output is Output.JSON:
        print_json(asdict(difference))
    else:
        views.print_diff(difference)


@app.command()
def sample(
    version: Version,
    *,
    store: StoreOption = "",
    state: StateOption = DEFAULT_STATE,
    output: OutputOption = Output.TEXT,
) -> None:
    """Print ten examples of a version, always the same.

    Examples:
        kubeloop datasets sample intents
    """
    rows = [
        {name: value for name, value in row.items() if name != "digest"}
        for row in _resolve(version, store, state).manifest.sample
    ]
    if output is Output.JSON:
        print_json(rows)
    else:
        views.print_rows(rows)


@app.command()
def tag(
    version: Version,
    tags: Annotated[list[str], typer.Argument(help="Tags to give.", show_default=False)],
    *,
    remove: Annotated[bool, typer.Option("--remove", help="Take the tags away.")] = False,
    store: StoreOption = "",
    state: StateOption = DEFAULT_STATE,
    output: OutputOption = Output.TEXT,
) -> None:
    """Give a version tags, or take them away.

    Examples:
        kubeloop datasets tag digits@3f2a91 golden

        kubeloop datasets tag digits golden --remove
    """
    from kubeloop.datasets.commits import dataset_of
    from kubeloop.datasets.history import add_tag, read_tags, remove_tag

    commit = _resolve(version, store, state)
    dataset = dataset_of(commit.uri)
    for text in tags:
        (remove_tag if remove else add_tag)(dataset, commit.version_hash, text)
    if output is Output.JSON:
        held = read_tags(dataset).items()
        print_json(
            {
                "name": commit.name,
                "version_hash": commit.version_hash,
                "tags": [name for name, hashes in held if commit.version_hash in hashes],
            }
        )
        return
    done = "no longer has" if remove else "has"
    short = commit.version_hash[: views.SHORT_HASH]
    console.print(f"{commit.name}@{short} {done} {', '.join(tags)}.")


@app.command()
def snapshot(
    versions: Annotated[list[str], typer.Argument(help="Versions to put together.")],
    *,
    tagged: Annotated[str, typer.Option(help="All versions of the datasets with this tag.")] = "",
    label: Annotated[list[str] | None, typer.Option(help="Keep this label alone.")] = None,
    split: Annotated[list[str] | None, typer.Option(help="Keep this split alone.")] = None,
    message: Annotated[str, typer.Option("--message", "-m", help="Why.")] = "",
    store: StoreOption = "",
    state: StateOption = DEFAULT_STATE,
    output: OutputOption = Output.TEXT,
) -> None:
    """Put versions together, filtered by label or split; content alone decides its hash.

    Examples:
        kubeloop datasets snapshot intents@3f2a91 intents@77c0de

        kubeloop datasets snapshot intents --tagged reviewed --label transfer --label balance
    """
    from datetime import UTC, datetime

    from kubeloop.datasets.history import select
    from kubeloop.datasets.snapshots import take_snapshot

    taken = take_snapshot(
        select(find_store(store, state), versions, tag=tagged),
        labels=label or (),
        splits=split or (),
        message=message,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    if output is Output.JSON:
        print_json(views.describe_commit(taken))
    else:
        views.print_commit(taken)


@app.command()
def verify(
    version: Version,
    *,
    store: StoreOption = "",
    state: StateOption = DEFAULT_STATE,
    output: OutputOption = Output.TEXT,
) -> None:
    """Read all data of a version and compare it with its digests; exit code 1 where it differs.

    Examples:
        kubeloop datasets verify digits
    """
    from kubeloop.datasets.verification import verify_commit

    commit = _resolve(version, store, state)
    with errors.status("Verifying…"):
        verify_commit(commit.uri)
    if output is Output.JSON:
        print_json({"name": commit.name, "version_hash": commit.version_hash, "intact": True})
        return
    short = commit.version_hash[: views.SHORT_HASH]
    console.print(f"{commit.name}@{short}: all data is as it was committed.")


@app.command()
def delete(
    version: Version,
    *,
    everything: Annotated[
        bool, typer.Option("--all", help="The dataset with all its versions.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also what a run or endpoint uses, or nobody can tell.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    store: StoreOption = "",
    state: StateOption = DEFAULT_STATE,
    context: ContextOption = "",
    namespace: NamespaceOption = "",
    output: OutputOption = Output.TEXT,
) -> None:
    """Delete a version, unless a run or endpoint uses it; `gc` frees its data.

    Examples:
        kubeloop datasets delete digits@3f2a91

        kubeloop datasets delete digits --all --yes
    """
    from kubeloop.datasets.history import list_versions
    from kubeloop.datasets.housekeeping import delete_commit, delete_dataset

    session = Session.open(state, context=context, namespace=namespace)
    if everything:
        dataset = _open(version, store, state)
        versions = list_versions(dataset)
        what, hint = f"all {len(versions)} versions of {version}", ""
        remove: Callable[[], object] = partial(delete_dataset, dataset)
    else:
        commit = _resolve(version, store, state)
        versions = {commit.uri: commit.version_hash}
        what = commit.uri
        hint = f"`kubeloop datasets gc {commit.name}` frees what no other version uses."
        remove = partial(delete_commit, commit)
    if not force:
        _refuse_used(session, versions)
    if not yes:
        typer.confirm(f"Delete {what}?", abort=True, err=True)
    remove()
    if output is Output.JSON:
        print_json({"deleted": list(versions)})
        return
    console.print(f"Deleted {what}.")
    if hint:
        console.print(hint)


def _refuse_used(session: Session, versions: Mapping[str, VersionHash]) -> None:
    from kubeloop.cli.dataset_uses import find_uses

    try:
        uses = find_uses(session, versions)
    except IntegrityError:
        raise
    except PermanentError as error:
        msg = f"Nobody can tell what uses the data: {error} Or delete it with --force."
        raise PermanentError(msg) from error
    if uses:
        msg = (
            f"The data is in use by {', '.join(dict.fromkeys(uses))}; end or delete that first, or"
            " give --force."
        )
        raise PermanentError(msg)


@app.command()
def gc(
    name: Name,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    store: StoreOption = "",
    state: StateOption = DEFAULT_STATE,
    output: OutputOption = Output.TEXT,
) -> None:
    """Free what no version of a dataset uses; safe beside ingestions.

    Examples:
        kubeloop datasets gc digits --dry-run
    """
    from kubeloop.datasets.housekeeping import collect_garbage

    garbage = collect_garbage(_open(name, store, state), dry_run=dry_run)
    if output is Output.JSON:
        print_json(asdict(garbage))
        return
    done = "Would free" if dry_run else "Freed"
    size = views.render_bytes(garbage.num_bytes)
    console.print(f"{done} {garbage.num_shards} shards, {size}; {len(garbage.keys)} objects.")
