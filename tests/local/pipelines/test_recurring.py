"""Recurring runs become runs when they are due, whatever happens in between."""

# mypy: disable-error-code="no-untyped-def, valid-type, type-arg, no-any-return, name-match"

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from kubeloop.local.client import Client
from kubeloop.local.pipelines.api import Pipelines, PipelinesConfig
from kubeloop.local.pipelines.storage.records import RuntimeState
from kubeloop.local.pipelines.storage.store import Store
from kubeloop.local.pipelines.storage.tables import Query
from kubeloop.testing.api import memory_api
from kubeloop.testing.waiting import wait_until

_BASE = 1_700_000_000
_COMPONENT = {"executorLabel": "exec"}
_SPEC = {
    "pipelineInfo": {"name": "p"},
    "schemaVersion": "2.1.0",
    "deploymentSpec": {"executors": {"exec": {"container": {"image": "i", "command": ["true"]}}}},
    "components": {"comp": _COMPONENT},
    "root": {
        "inputDefinitions": {
            "parameters": {
                "when": {"parameterType": "STRING", "isOptional": True},
                "n": {"parameterType": "NUMBER_INTEGER", "defaultValue": 1},
            }
        },
        "dag": {"tasks": {"t": {"componentRef": {"name": "comp"}}}},
    },
}
_EVERY_MINUTE = {"periodic_schedule": {"interval_second": "60"}}


class Lab:
    """The API on a store in a file, with a clock that is set by hand and no engine."""

    def __init__(self, client: Client, folder: Path) -> None:
        self.now = float(_BASE)
        self._client = client
        self._path = folder / "pipelines.db"
        self._config = PipelinesConfig(
            pipeline_root=folder, token="t", store_path=self._path, clock=lambda: self.now
        )
        self.pipelines = Pipelines(self._client, self._config)

    def close(self) -> None:
        """Close the file."""
        self.pipelines._store.close()

    def restart(self) -> None:
        """Start again from the file alone."""
        self.close()
        self.pipelines = Pipelines(self._client, self._config)

    async def call(self, method: str, path: str, **options: Any) -> Any:
        """Call the API; answers its JSON."""
        transport = httpx.ASGITransport(app=self.pipelines.app)
        headers = {"authorization": "Bearer t"}
        async with httpx.AsyncClient(transport=transport, base_url="http://kfp") as http:
            reply = await http.request(method, f"/apis/v2beta1/{path}", headers=headers, **options)
        assert reply.is_success, reply.text
        return reply.json()

    async def create(self, **fields: Any) -> str:
        """Make a recurring run; answers its identifier."""
        body = {
            "display_name": "My job!",
            "pipeline_spec": _SPEC,
            "trigger": _EVERY_MINUTE,
            "max_concurrency": "10",
            "mode": "ENABLE",
            **fields,
        }
        return str((await self.call("POST", "recurringruns", json=body))["recurring_run_id"])

    def look(self, *, after: float = 0.0) -> float:
        """Let time pass and start what is due."""
        self.now += after
        return self.pipelines.recurring_runs.reconcile()

    async def runs(self) -> list[Any]:
        """All runs, by the time of their tick."""
        listed = await self.call("GET", "runs", params={"sort_by": "scheduled_at"})
        return list(listed["runs"])

    async def ticks(self) -> list[int]:
        """When the runs were due, as seconds after the start of the test."""
        times = [datetime.fromisoformat(run["scheduled_at"]) for run in await self.runs()]
        return [int(time.timestamp()) - _BASE for time in times]

    def end_runs(self, *, limit: int = 100) -> None:
        """Let active runs succeed, the oldest first."""
        with Store(self._path) as store:
            active = Query(where="state = 'PENDING'", order="scheduled_at", limit=limit)
            for run in store.runs.select(active):
                store.runs.put(replace(run, state=RuntimeState.SUCCEEDED))


@asynccontextmanager
async def _open(folder: Path) -> AsyncIterator[Lab]:
    async with memory_api() as client:
        with closing(Lab(client, folder)) as lab:
            yield lab


def _run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scenario)


def test_a_run_starts_at_each_tick_and_not_before(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with _open(tmp_path) as lab:
            identifier = await lab.create()
            assert lab.look(after=59) == 1
            assert await lab.ticks() == []
            assert lab.look(after=1) == 10
            assert lab.look(after=60) == 10
            first, second = await lab.runs()
            assert await lab.ticks() == [60, 120]
            assert first["recurring_run_id"] == second["recurring_run_id"] == identifier
            names = [run["display_name"] for run in (first, second)]
            assert names == [f"myjob{identifier[:5]}-1", f"myjob{identifier[:5]}-2"]

    _run(scenario())


def test_looking_again_starts_nothing_twice(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with _open(tmp_path) as lab:
            await lab.create()
            for _ in range(3):
                lab.look(after=20)
                lab.look()
            lab.restart()
            lab.look()
            assert await lab.ticks() == [60]

    _run(scenario())


@pytest.mark.parametrize(("no_catchup", "ticks"), [(False, [60, 120, 180, 240]), (True, [245])])
def test_ticks_missed_while_the_plane_was_down_are_caught_up_on(
    tmp_path: Path, no_catchup: bool, ticks: list[int]
) -> None:
    async def scenario() -> None:
        async with _open(tmp_path) as lab:
            await lab.create(no_catchup=no_catchup)
            lab.now += 245
            lab.restart()
            lab.look()
            assert await lab.ticks() == ticks

    _run(scenario())


def test_a_disabled_recurring_run_waits_and_catches_up_when_it_is_enabled(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with _open(tmp_path) as lab:
            identifier = await lab.create(mode="DISABLE")
            lab.look(after=130)
            assert await lab.ticks() == []
            await lab.call("POST", f"recurringruns/{identifier}:enable")
            lab.look()
            assert await lab.ticks() == [60, 120]
            await lab.call("POST", f"recurringruns/{identifier}:disable")
            lab.look(after=600)
            assert await lab.ticks() == [60, 120]
            found = await lab.call("GET", f"recurringruns/{identifier}")
            assert (found["mode"], found["status"]) == ("DISABLE", "DISABLED")

    _run(scenario())


def test_no_more_runs_are_active_than_the_limit_allows(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with _open(tmp_path) as lab:
            await lab.create(max_concurrency="2")
            assert lab.look(after=300) < 1
            assert await lab.ticks() == [60, 120]
            lab.end_runs(limit=1)
            lab.look()
            assert await lab.ticks() == [60, 120, 180]
            lab.end_runs()
            lab.look()
            assert await lab.ticks() == [60, 120, 180, 240, 300]

    _run(scenario())


def test_a_recurring_run_ends_with_its_end_time(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with _open(tmp_path) as lab:
            end = {"end_time": "2023-11-14T22:15:20Z"}  # after 120 seconds
            await lab.create(trigger={"periodic_schedule": {"interval_second": "60", **end}})
            lab.look(after=1000)
            assert await lab.ticks() == [60, 120]

    _run(scenario())


def test_parameters_say_when_and_which_run_it_is(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with _open(tmp_path) as lab:
            given = {"when": "[[ScheduledTime]] [[CurrentTime.15:04:05]] [[Index]]", "n": 2}
            await lab.create(runtime_config={"parameters": given})
            lab.look(after=125)
            found = [run["runtime_config"]["parameters"] for run in await lab.runs()]
            assert found == [
                {"when": "20231114221420 22:15:25 1", "n": 2},
                {"when": "20231114221520 22:15:25 2", "n": 2},
            ]

    _run(scenario())


async def _add_version(lab: Lab, pipeline_id: str, name: str) -> str:
    lab.now += 1
    body = {"display_name": name, "pipeline_spec": {**_SPEC, "pipelineInfo": {"name": name}}}
    made = await lab.call("POST", f"pipelines/{pipeline_id}/versions", json=body)
    return str(made["pipeline_version_id"])


def test_a_pinned_version_is_kept_and_an_open_one_follows_the_latest(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with _open(tmp_path) as lab:
            pipeline = await lab.call("POST", "pipelines", json={"display_name": "p"})
            reference = {"pipeline_id": pipeline["pipeline_id"]}
            first = await _add_version(lab, reference["pipeline_id"], "one")
            pinned = {**reference, "pipeline_version_id": first}
            source = {"pipeline_spec": None, "no_catchup": True}
            follower = await lab.create(pipeline_version_reference=reference, **source)
            keeper = await lab.create(pipeline_version_reference=pinned, **source)
            lab.look(after=60)
            second = await _add_version(lab, reference["pipeline_id"], "two")
            lab.look(after=60)
            for identifier, expected in ((follower, [first, second]), (keeper, [first, first])):
                runs = [run for run in await lab.runs() if run["recurring_run_id"] == identifier]
                taken = [run["pipeline_version_reference"]["pipeline_version_id"] for run in runs]
                assert taken == expected
                shown = await lab.call("GET", f"recurringruns/{identifier}")
                given = reference if identifier == follower else pinned
                assert shown["pipeline_version_reference"] == given

    _run(scenario())


def test_a_run_that_cannot_be_made_is_named_and_made_later(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with _open(tmp_path) as lab:
            pipeline = await lab.call("POST", "pipelines", json={"display_name": "p"})
            pipeline_id = pipeline["pipeline_id"]
            version = await _add_version(lab, pipeline_id, "one")
            identifier = await lab.create(
                pipeline_spec=None, pipeline_version_reference={"pipeline_id": pipeline_id}
            )
            await lab.call("DELETE", f"pipelines/{pipeline_id}/versions/{version}")
            assert lab.look(after=60) == 10
            assert await lab.runs() == []
            shown = await lab.call("GET", f"recurringruns/{identifier}")
            assert pipeline_id in shown["error"]["message"]
            await _add_version(lab, pipeline_id, "two")
            lab.look()
            assert await lab.ticks() == [61]
            assert "error" not in await lab.call("GET", f"recurringruns/{identifier}")

    _run(scenario())


def test_one_that_is_broken_does_not_stop_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with _open(tmp_path) as lab:
            broken, sound = await lab.create(), await lab.create()
            with closing(Store(tmp_path / "pipelines.db")) as store:
                record = store.recurring_runs.get(broken)
                assert record is not None
                store.recurring_runs.put(replace(record, trigger={"weekly": {}}))
            lab.look(after=60)
            assert [run["recurring_run_id"] for run in await lab.runs()] == [sound]

    _run(scenario())
    assert "recurring run waits" in caplog.text


def test_archiving_the_experiment_stops_its_recurring_runs(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with _open(tmp_path) as lab:
            made = await lab.call("POST", "experiments", json={"display_name": "e"})
            await lab.create(experiment_id=made["experiment_id"])
            other = await lab.create()
            await lab.call("POST", f"experiments/{made['experiment_id']}:archive")
            lab.look(after=60)
            assert [run["recurring_run_id"] for run in await lab.runs()] == [other]

    _run(scenario())


def test_the_runs_of_a_recurring_run_stay_when_it_is_deleted(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with _open(tmp_path) as lab:
            identifier = await lab.create()
            lab.look(after=60)
            await lab.call("DELETE", f"recurringruns/{identifier}")
            lab.look(after=600)
            assert await lab.ticks() == [60]
            assert (await lab.call("GET", "recurringruns"))["recurringRuns"] == []

    _run(scenario())


def test_a_change_wakes_the_loop(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with _open(tmp_path) as lab:
            loop = asyncio.create_task(lab.pipelines.recurring_runs.run())
            await asyncio.sleep(0)  # the loop begins to wait
            start = {"start_time": "2023-11-14T22:00:00Z"}
            await lab.create(trigger={"periodic_schedule": {"interval_second": "600", **start}})

            async def has_run() -> bool:
                return bool(await lab.ticks())

            await wait_until(has_run)
            loop.cancel()
            assert await lab.ticks() == [-200]

    _run(scenario())
