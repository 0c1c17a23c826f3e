import pytest

from kubeloop.errors import InputError
from kubeloop.kserve.endpoints import Endpoint, parse_endpoint
from kubeloop.pipelines.lineage import (
    Direction,
    LineageGraph,
    LineageKind,
    Target,
    TraceLimits,
    find_target,
    trace,
)
from kubeloop.testing.recorded_runs import (
    GivenArtifact,
    GivenRun,
    GivenTask,
    MemoryMetadata,
    digits_run,
)

VERSION = "a" * 64
ALL_BUT_RUNS = [kind for kind in LineageKind if kind is not LineageKind.RUN]


def build_endpoint(
    *, number: int = 1, name: str = "digits", run_id: str = "run-1", uri: str = ""
) -> Endpoint:
    digest = f"{number:064x}"
    annotations = {"kubeloop.dev/model-digest": f"sha256:{digest}"}
    if run_id:
        annotations["kubeloop.dev/run-id"] = run_id
    return parse_endpoint(
        {
            "metadata": {"name": name, "namespace": "default", "annotations": annotations},
            "spec": {
                "predictor": {"model": {"storageUri": uri or f"/store/models/digits/{digest}"}}
            },
            "status": {"url": "http://127.0.0.1:1/serving/default/digits"},
        }
    )


def backward(target: str, source: MemoryMetadata, *endpoints: Endpoint) -> LineageGraph:
    return trace(find_target(target, source, endpoints=endpoints), source, endpoints=endpoints)


def forward(
    target: str, source: MemoryMetadata, *endpoints: Endpoint, limits: TraceLimits | None = None
) -> LineageGraph:
    found = find_target(target, source, endpoints=endpoints)
    return trace(found, source, endpoints=endpoints, direction=Direction.FORWARD, limits=limits)


def named(graph: LineageGraph, *kinds: LineageKind) -> list[str]:
    return [f"{node.kind} {node.id}" for node in graph.select(*kinds or ALL_BUT_RUNS)]


def linked(graph: LineageGraph) -> set[tuple[str, str, str]]:
    nodes = graph.nodes
    return {
        (nodes[edge.cause].id, edge.relation.value, nodes[edge.effect].id)
        for edge in graph.edges
        if nodes[edge.cause].kind is not LineageKind.RUN
    }


def chain_of(*names: str, run_id: str = "run-1") -> GivenRun:
    """Tasks of a user's own, each taking what the one before gave."""
    tasks: list[GivenTask] = []
    for number, name in enumerate(names):
        before = [(f"{run_id}/{names[number - 1]}", "out")] if number else []
        tasks.append(
            GivenTask(
                name=name,
                takes={"given": before} if before else {},
                gives={"out": [GivenArtifact(name=f"{name}-out", uri=f"s3://b/{run_id}/{name}")]},
            )
        )
    return GivenRun(run_id=run_id, tasks=tasks)


def test_endpoint_leads_back_to_the_source_with_digests() -> None:
    graph = backward("digits", MemoryMetadata([digits_run(1)]), build_endpoint())

    assert linked(graph) == {
        ("digits", "ingested into", f"digits@{VERSION}"),
        ("ingest-dataset", "made", f"digits@{VERSION}"),
        (f"digits@{VERSION}", "used by", "train-model"),
        (f"digits@{VERSION}", "used by", "tune-hyperparameters"),
        ("tune-hyperparameters", "started", "default/tune-1"),
        ("default/tune-1", "ran", "tune-1-x"),
        ("tune-1-x", "gave hyperparameters to", "default/train-1"),
        ("train-model", "started", "default/train-1"),
        ("default/train-1", "trained", f"{1:064x}"),
        (f"{1:064x}", "served by", "default/digits"),
    }
    digests = {str(node.kind): node.digest for node in graph.nodes.values() if node.digest}
    assert digests["model"] == f"sha256:{1:064x}"
    assert digests["dataset"] == f"sha256:{VERSION}"
    assert digests["source"] == f"sha256:{'f' * 64}"
    assert {"trial", "training_job", "endpoint"} <= digests.keys()
    assert named(graph, LineageKind.RUN) == ["run run-1"]


def test_model_trained_without_tuning_has_no_trial_behind_it() -> None:
    model = GivenArtifact(name="model", type="Model", uri="/m/1", metadata={"training_job": "j"})
    run = GivenRun(run_id="run-1", tasks=[GivenTask(name="train", gives={"model": [model]})])

    graph = backward("/m/1", MemoryMetadata([run]))

    assert named(graph) == ["model model", "training_job j", "task train"]


def test_trial_that_the_record_does_not_hold_is_said() -> None:
    model = GivenArtifact(
        name="model", type="Model", uri="/m/1", metadata={"training_job": "j", "trial": "t-1"}
    )
    run = GivenRun(run_id="run-1", tasks=[GivenTask(name="train", gives={"model": [model]})])

    (trial,) = backward("/m/1", MemoryMetadata([run])).select(LineageKind.TRIAL)

    assert (trial.id, trial.note) == (
        "t-1",
        "the record of the run holds no experiment with this trial",
    )


def test_cached_steps_lead_to_the_run_that_did_the_work() -> None:
    source = MemoryMetadata([digits_run(1), digits_run(2, cached_from="run-1")])

    graph = backward("digits", source, build_endpoint(run_id="run-2"))

    assert ("train-model", "started", "default/train-1") in linked(graph)
    assert named(graph, LineageKind.RUN) == ["run run-1"]
    assert named(graph, LineageKind.TRIAL) == ["trial tune-1-x"]


def test_run_shows_which_steps_it_took_from_the_cache() -> None:
    source = MemoryMetadata([digits_run(1), digits_run(2, cached_from="run-1")])

    graph = backward("run-2", source)

    assert ("train-model", "taken from the cache by", f"{1:064x}") in linked(graph)
    assert {"run run-1", "run run-2"} == set(named(graph, LineageKind.RUN))


def test_run_shows_everything_that_it_made_and_serves() -> None:
    graph = backward("run-1", MemoryMetadata([digits_run(1)]), build_endpoint())

    assert "artifact metrics" in named(graph)
    assert "endpoint default/digits" in named(graph)
    assert graph.target.details["pipeline"] == "image-classification"


def test_a_place_for_a_model_that_nobody_wrote_is_no_model() -> None:
    model = GivenArtifact(
        name="model", type="Model", uri="/r/model", metadata={"absent": "the search keeps no model"}
    )
    trials = GivenArtifact(name="trials", uri="/r/trials")
    given = {"model": [model], "trials": [trials]}
    run = GivenRun(run_id="run-1", tasks=[GivenTask(name="tune", gives=given)])

    graph = backward("run-1", MemoryMetadata([run]))

    assert "artifact trials" in named(graph)
    assert named(graph, LineageKind.MODEL) == []


def test_dataset_leads_forward_to_models_runs_and_endpoints() -> None:
    other = digits_run(3, version="b" * 64)
    source = MemoryMetadata([digits_run(1), digits_run(2), other])
    endpoints = [
        build_endpoint(),
        build_endpoint(number=2, name="second", run_id="run-2"),
        build_endpoint(number=3, name="third", run_id="run-3"),
    ]

    graph = forward(f"digits@{VERSION[:12]}", source, *endpoints)

    assert sorted(named(graph, LineageKind.MODEL)) == [f"model {1:064x}", f"model {2:064x}"]
    assert sorted(named(graph, LineageKind.RUN)) == ["run run-1", "run run-2"]
    assert named(graph, LineageKind.ENDPOINT) == [
        "endpoint default/digits",
        "endpoint default/second",
    ]
    assert ("tune-1-x", "gave hyperparameters to", "default/train-1") in linked(graph)


def test_forward_from_one_run_leaves_out_runs_that_ingested_the_same_data() -> None:
    source = MemoryMetadata([digits_run(1), digits_run(2)])

    graph = forward("task:run-1/ingest-dataset", source)

    assert named(graph, LineageKind.RUN) == ["run run-1"]


@pytest.mark.parametrize(
    "target",
    ["artifact:3", "s3://b/run-1/third", "artifact:s3://b/run-1/third"],
)
def test_pipelines_of_any_artifacts_are_followed(target: str) -> None:
    source = MemoryMetadata([chain_of("first", "second", "third", "fourth")])

    assert named(backward(target, source)) == [
        "artifact third-out",
        "task third",
        "artifact second-out",
        "task second",
        "artifact first-out",
        "task first",
    ]
    assert named(forward(target, source)) == [
        "artifact third-out",
        "task fourth",
        "artifact fourth-out",
    ]


def test_depth_is_limited_and_said() -> None:
    source = MemoryMetadata([chain_of("first", "second", "third")])

    graph = forward("s3://b/run-1/first", source, limits=TraceLimits(max_depth=2))

    assert named(graph) == ["artifact first-out", "task second", "artifact second-out"]
    assert graph.cut == "stopped after 2 links; 1 or more nodes follow"


def test_depth_that_reaches_the_end_is_not_called_a_cut() -> None:
    source = MemoryMetadata([chain_of("first", "second")])

    graph = forward("s3://b/run-1/first", source, limits=TraceLimits(max_depth=2))

    assert graph.cut == ""


def test_size_is_limited_and_said() -> None:
    source = MemoryMetadata([digits_run(number) for number in range(1, 30)])

    graph = forward(f"digits@{VERSION}", source, limits=TraceLimits(max_nodes=40))

    assert graph.cut == "stopped at 40 nodes; the record holds more"
    assert len(graph.select(*ALL_BUT_RUNS)) == 40


def test_import_leads_to_the_run_that_wrote_what_lies_there() -> None:
    imported = GivenTask(
        name="importer",
        is_importer=True,
        gives={"artifact": [GivenArtifact(name="x", uri="s3://b/run-1/first")]},
    )
    use = GivenTask(name="use", takes={"given": [("run-2/importer", "artifact")]})
    source = MemoryMetadata([chain_of("first"), GivenRun(run_id="run-2", tasks=[imported, use])])

    back = backward("task:run-2/use", source)
    assert set(named(back, LineageKind.TASK)) == {"task use", "task importer", "task first"}

    ahead = forward("task:run-1/first", source)
    assert set(named(ahead, LineageKind.TASK)) == {"task use", "task importer", "task first"}


def test_import_of_changed_content_is_not_linked_to_what_lay_there_before() -> None:
    def lying_there(digest: str) -> GivenArtifact:
        return GivenArtifact(name="table", uri="s3://b/table", digest=f"sha256:{digest * 64}")

    write = GivenTask(name="write", gives={"out": [lying_there("1")]})
    read = GivenTask(name="importer", is_importer=True, gives={"artifact": [lying_there("2")]})
    source = MemoryMetadata(
        [GivenRun(run_id="run-1", tasks=[write]), GivenRun(run_id="run-2", tasks=[read])]
    )

    graph = backward("artifact:2", source)

    assert named(graph, LineageKind.TASK) == ["task importer"]
    assert graph.target.note == "it was imported; the record does not say where it comes from"
    assert named(forward("task:run-1/write", source), LineageKind.TASK) == ["task write"]


def test_cycle_of_imports_ends() -> None:
    runs = []
    for number in (1, 2):
        run_id = f"run-{number}"
        taken = GivenArtifact(name="in", uri=f"s3://b/{3 - number}")
        runs.append(
            GivenRun(
                run_id=run_id,
                tasks=[
                    GivenTask(name="importer", is_importer=True, gives={"artifact": [taken]}),
                    GivenTask(
                        name="write",
                        takes={"given": [(f"{run_id}/importer", "artifact")]},
                        gives={"out": [GivenArtifact(name="out", uri=f"s3://b/{number}")]},
                    ),
                ],
            )
        )
    source = MemoryMetadata(runs)

    for graph, num_tasks in ((backward("s3://b/1", source), 4), (forward("s3://b/1", source), 3)):
        assert graph.cut == ""
        assert len(graph.select(LineageKind.TASK)) == num_tasks


def test_endpoint_of_another_tool_is_linked_by_the_uri_of_its_model() -> None:
    endpoint = build_endpoint(run_id="", name="foreign")

    graph = backward("foreign", MemoryMetadata([digits_run(1)]), endpoint)

    assert (f"{1:064x}", "served by", "default/foreign") in linked(graph)


def test_lost_record_is_said() -> None:
    graph = backward("digits", MemoryMetadata([]), build_endpoint())

    (model,) = graph.select(LineageKind.MODEL)
    assert model.note == "the record holds no artifact at this URI"
    assert model.uri == f"/store/models/digits/{1:064x}"


def test_endpoint_whose_digest_contradicts_the_record_says_so() -> None:
    endpoint = build_endpoint(number=2, uri=f"/store/models/digits/{1:064x}")

    graph = backward("digits", MemoryMetadata([digits_run(1)]), endpoint)

    assert "another digest" in graph.target.note
    assert named(graph, LineageKind.TASK) == []


def test_artifact_without_a_recorded_maker_says_so() -> None:
    run = GivenRun(
        run_id="run-1",
        tasks=[GivenTask(name="a", gives={"out": [GivenArtifact(name="x", uri="/x")]})],
    )
    source = MemoryMetadata([run])
    source.list_uses = lambda artifact_ids: []  # type: ignore[method-assign]

    graph = backward("/x", source)

    assert graph.target.note == (
        "no task is recorded as its maker; the record does not say where it comes from"
    )


def test_lineage_of_an_endpoint_asks_as_little_of_a_large_record_as_of_a_small_one() -> None:
    small, large = (MemoryMetadata([digits_run(n) for n in range(1, size)]) for size in (2, 1000))

    for source in (small, large):
        source.num_requests = 0
        trace(Target(endpoint=build_endpoint()), source)

    assert large.num_requests == small.num_requests < 15


def test_a_dataset_that_a_thousand_runs_took_from_the_cache_is_traced_to_the_run_that_made_it() -> (
    None
):
    data = GivenArtifact(name="data", uri="/store/data", type="Dataset")
    made = GivenRun(run_id="made", tasks=[GivenTask(name="ingest", gives={"data": [data]})])
    cached = [
        GivenRun(run_id=f"run-{n}", tasks=[GivenTask(name="ingest", cached_from="made/ingest")])
        for n in range(1000)
    ]
    source = MemoryMetadata([made, *cached])

    graph = backward("/store/data", source)

    assert [node.id for node in graph.select(LineageKind.RUN)] == ["made"]
    assert source.num_requests < 10


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        ("digits", "endpoint", "default/digits"),
        ("default/digits", "endpoint", "default/digits"),
        ("endpoint:digits", "endpoint", "default/digits"),
        ("run-1", "run", "run-1"),
        ("run:run-1", "run", "run-1"),
        ("task:run-1/train-model", "task", "train-model"),
        (f"digits@{VERSION}", "dataset", f"digits@{VERSION}"),
        ("digits@aaaaaaaa", "dataset", f"digits@{VERSION}"),
        (f"/store/datasets/digits/commits/{VERSION}.json", "dataset", f"digits@{VERSION}"),
        (f"digits/{1:064x}", "model", f"{1:064x}"),
        (f"sha256:{1:064x}", "model", f"{1:064x}"),
        (f"model:digits/{1:064x}", "model", f"{1:064x}"),
        (f"/store/models/digits/{1:064x}", "model", f"{1:064x}"),
    ],
)
def test_targets_are_found_by_what_people_call_them(text: str, kind: str, name: str) -> None:
    source = MemoryMetadata([digits_run(1), digits_run(2)])

    target = backward(text, source, build_endpoint()).target

    assert (target.kind, target.id) == (kind, name)


def test_unknown_target_is_told_what_is_accepted() -> None:
    with pytest.raises(
        InputError, match=r"Nothing is known as 'nobody'.*Endpoints are: digits.*KIND:VALUE"
    ):
        backward("nobody", MemoryMetadata([digits_run(1)]), build_endpoint())


def test_unknown_target_of_a_kind_is_told_so() -> None:
    with pytest.raises(InputError, match=r"There is no run 'run-9' in the record"):
        backward("run:run-9", MemoryMetadata([digits_run(1)]))


def test_target_with_two_meanings_is_refused_with_both() -> None:
    with pytest.raises(InputError, match=r"names 2 things; write endpoint:run-1 or run:run-1"):
        backward("run-1", MemoryMetadata([digits_run(1)]), build_endpoint(name="run-1"))


def test_hash_that_begins_two_commits_is_refused_with_both() -> None:
    versions = ["a" * 12 + "b" * 52, "a" * 12 + "c" * 52]
    source = MemoryMetadata([digits_run(n, version=v) for n, v in enumerate(versions, 1)])

    with pytest.raises(
        InputError, match=r"names 2 artifacts: .*b\.json, .*c\.json; give one's URI"
    ):
        backward("digits@aaaaaaaaaaaa", source)
