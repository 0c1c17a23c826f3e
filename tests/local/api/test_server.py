"""What clients see on the wire: statuses, lists, tables, watches, scale, logs, the proxy."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from kubeloop.errors import InputError
from kubeloop.local.api.events import EventLogConfig
from kubeloop.local.api.server import build_app
from kubeloop.local.api.storage import ObjectStorage
from kubeloop.local.api.verbs import ApiServer
from kubeloop.local.serving import bind, serve, url_of
from kubeloop.testing.api import create_namespaces
from kubeloop.testing.manifests import build_config_map, build_job, build_pod, own
from kubeloop.testing.servers import TOKEN, RunningApi, running_api
from kubeloop.testing.waiting import wait_until

MAPS = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods"
JOBS = "/apis/kubeflow.org/v1/namespaces/default/pytorchjobs"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"


def run(
    folder: Path,
    test: Callable[[httpx.AsyncClient, RunningApi], Awaitable[None]],
    *,
    log_config: EventLogConfig | None = None,
) -> None:
    async def main() -> None:
        async with asyncio.timeout(30), running_api(folder, log_config=log_config) as running:
            headers = {"Authorization": f"Bearer {TOKEN}"}
            async with httpx.AsyncClient(
                base_url=running.url, verify=running.tls, headers=headers
            ) as http:
                await test(http, running)

    asyncio.run(main())


async def read_lines(response: httpx.Response, count: int) -> list[Any]:
    lines = []
    async for line in response.aiter_lines():
        lines.append(json.loads(line))
        if len(lines) == count:
            break
    return lines


def test_an_empty_token_is_refused() -> None:
    with pytest.raises(InputError, match="bearer token"):
        build_app(ApiServer(ObjectStorage()), token="")


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "code", "reason"),
    [
        ("GET", MAPS, {"Authorization": ""}, "", 401, "Unauthorized"),
        ("GET", MAPS, {"Authorization": "Bearer wrong"}, "", 401, "Unauthorized"),
        ("GET", f"{MAPS}/none", {}, "", 404, "NotFound"),
        ("GET", "/api/v1/nothings", {}, "", 404, "NotFound"),
        ("GET", "/apis/nobody.dev/v1", {}, "", 404, "NotFound"),
        ("GET", "/else", {}, "", 404, "NotFound"),
        ("GET", "/api/v1/pods/p", {}, "", 404, "NotFound"),
        ("GET", f"{PODS}/p/exec", {}, "", 404, "NotFound"),
        ("POST", f"{MAPS}/a", {}, "{}", 405, "MethodNotAllowed"),
        ("PUT", MAPS, {}, "{}", 405, "MethodNotAllowed"),
        ("POST", MAPS, {}, "{", 400, "BadRequest"),
        ("POST", MAPS, {}, "[]", 400, "BadRequest"),
        ("POST", MAPS, {}, "", 400, "BadRequest"),
        ("POST", MAPS, {}, '{"kind":"Secret"}', 400, "BadRequest"),
        ("POST", MAPS, {}, '{"metadata":{"name":7}}', 400, "BadRequest"),
        ("POST", MAPS, {}, '{"metadata":{"name":"a","namespace":"b"}}', 400, "BadRequest"),
        ("POST", MAPS, {}, '{"metadata":{"name":"a","resourceVersion":"1"}}', 400, "BadRequest"),
        ("POST", MAPS, {}, '{"metadata":{}}', 422, "Invalid"),
        ("POST", f"{MAPS}?dryRun=Some", {}, '{"metadata":{"name":"a"}}', 400, "BadRequest"),
        ("GET", f"{MAPS}?limit=x", {}, "", 400, "BadRequest"),
        ("GET", f"{MAPS}?continue=x", {}, "", 400, "BadRequest"),
        ("GET", f"{MAPS}?watch=maybe", {}, "", 400, "BadRequest"),
        ("GET", f"{MAPS}?watch=1&resourceVersion=x", {}, "", 400, "BadRequest"),
        ("GET", f"{MAPS}?labelSelector=a+b", {}, "", 400, "BadRequest"),
        ("GET", MAPS, {"Accept": "application/xml"}, "", 406, "NotAcceptable"),
        ("PATCH", f"{MAPS}/a", {"Content-Type": "text/plain"}, "{}", 415, "UnsupportedMediaType"),
        ("POST", MAPS, {}, " " * 4_000_000, 413, "RequestEntityTooLarge"),
        ("DELETE", f"{MAPS}/a?propagationPolicy=Sideways", {}, "", 400, "BadRequest"),
    ],
)
def test_refusals_are_statuses(  # one row a refusal
    method: str, path: str, headers: dict[str, str], body: str, code: int, reason: str
) -> None:
    async def main() -> None:
        api = ApiServer(ObjectStorage())
        create_namespaces(api)
        transport = httpx.ASGITransport(app=build_app(api, token=TOKEN))
        all_headers = {"Authorization": f"Bearer {TOKEN}", **headers}
        async with httpx.AsyncClient(transport=transport, base_url="https://test") as http:
            response = await http.request(method, path, headers=all_headers, content=body)
        status = response.json()
        assert (response.status_code, status["code"], status["reason"]) == (code, code, reason)
        assert (status["kind"], status["status"]) == ("Status", "Failure")
        assert status["message"]

    asyncio.run(main())


def test_health_and_version_need_no_token(tmp_path: Path) -> None:
    async def test(http: httpx.AsyncClient, running: RunningApi) -> None:
        for path in ("/healthz", "/livez", "/readyz", "/version"):
            response = await http.get(path, headers={"Authorization": ""})
            assert response.status_code == 200

    run(tmp_path, test)


def test_discovery_names_every_kind_once(tmp_path: Path) -> None:
    async def test(http: httpx.AsyncClient, running: RunningApi) -> None:
        groups = (await http.get("/apis")).json()["groups"]
        kubeflow = next(group for group in groups if group["name"] == "kubeflow.org")
        assert [v["version"] for v in kubeflow["versions"]] == ["v1", "v1beta1"]
        assert (await http.get("/apis/kubeflow.org")).json()["kind"] == "APIGroup"
        core = (await http.get("/api/v1")).json()["resources"]
        names = [entry["name"] for entry in core]
        assert len(names) == len(set(names))
        assert {"pods", "pods/log", "pods/status", "services/proxy", "namespaces"} <= set(names)
        jobs = (await http.get("/apis/kubeflow.org/v1")).json()["resources"]
        scale = next(entry for entry in jobs if entry["name"] == "pytorchjobs/scale")
        assert (scale["group"], scale["kind"]) == ("autoscaling", "Scale")

    run(tmp_path, test)


def test_lists_come_in_pages_that_a_watch_can_follow(tmp_path: Path) -> None:
    async def test(http: httpx.AsyncClient, running: RunningApi) -> None:
        for index in range(5):
            await http.post(MAPS, json=build_config_map(f"c{index}"))
        page = (await http.get(MAPS, params={"limit": 2})).json()
        first = page["metadata"]
        assert [item["metadata"]["name"] for item in page["items"]] == ["c0", "c1"]
        assert first["remainingItemCount"] == 3
        await http.delete(f"{MAPS}/c3")
        seen = []
        while token := page["metadata"].get("continue"):
            page = (await http.get(MAPS, params={"limit": 2, "continue": token})).json()
            seen += [item["metadata"]["name"] for item in page["items"]]
        assert seen == ["c2", "c4"]
        assert page["metadata"]["resourceVersion"] == first["resourceVersion"]

    run(tmp_path, test)


def test_a_page_after_too_many_changes_is_expired(tmp_path: Path) -> None:
    async def test(http: httpx.AsyncClient, running: RunningApi) -> None:
        for index in range(3):
            await http.post(MAPS, json=build_config_map(f"c{index}"))
        page = (await http.get(MAPS, params={"limit": 1})).json()
        for index in range(3, 8):
            await http.post(MAPS, json=build_config_map(f"c{index}"))
        token = page["metadata"]["continue"]
        response = await http.get(MAPS, params={"limit": 1, "continue": token})
        assert (response.status_code, response.json()["reason"]) == (410, "Expired")

    run(tmp_path, test, log_config=EventLogConfig(max_events=3))


def test_a_watch_of_a_forgotten_version_tells_so_in_the_stream(tmp_path: Path) -> None:
    async def test(http: httpx.AsyncClient, running: RunningApi) -> None:
        parameters = {"watch": "true", "resourceVersion": "99999"}
        response = await http.get(MAPS, params=parameters)
        assert response.status_code == 200
        event = json.loads(response.text)
        assert (event["type"], event["object"]["code"]) == ("ERROR", 410)
        assert event["object"]["reason"] == "Expired"

    run(tmp_path, test)


def test_a_watch_ends_in_time_with_a_bookmark(tmp_path: Path) -> None:
    async def test(http: httpx.AsyncClient, running: RunningApi) -> None:
        await http.post(MAPS, json=build_config_map("a"))
        parameters = {"watch": "1", "timeoutSeconds": "1", "allowWatchBookmarks": "true"}
        response = await http.get(MAPS, params=parameters)
        events = [json.loads(line) for line in response.text.splitlines()]
        assert [event["type"] for event in events] == ["ADDED", "BOOKMARK"]
        version = running.api.storage.resource_version
        assert events[1]["object"]["metadata"]["resourceVersion"] == str(version)

    run(tmp_path, test)


def test_a_watch_marks_the_end_of_what_existed_when_asked(tmp_path: Path) -> None:
    async def test(http: httpx.AsyncClient, running: RunningApi) -> None:
        await http.post(MAPS, json=build_config_map("a"))
        parameters = {"watch": "1", "sendInitialEvents": "true", "allowWatchBookmarks": "true"}
        async with http.stream("GET", MAPS, params=parameters) as response:
            events = await read_lines(response, 2)
        assert events[1]["type"] == "BOOKMARK"
        annotations = events[1]["object"]["metadata"]["annotations"]
        assert annotations == {"k8s.io/initial-events-end": "true"}

    run(tmp_path, test)


def test_a_watcher_that_goes_away_is_forgotten(tmp_path: Path) -> None:
    async def test(http: httpx.AsyncClient, running: RunningApi) -> None:
        logs = running.api.storage.logs
        async with http.stream("GET", MAPS, params={"watch": "1"}) as response:
            assert response.status_code == 200
            await wait_until(lambda: any(log._waiters for log in logs.values()))
        await wait_until(lambda: not any(log._waiters for log in logs.values()))

    run(tmp_path, test)


def test_closing_the_api_ends_watches(tmp_path: Path) -> None:
    async def test(http: httpx.AsyncClient, running: RunningApi) -> None:
        async with http.stream("GET", MAPS, params={"watch": "1"}) as response:
            running.api.close()
            assert [line async for line in response.aiter_lines()] == []

    run(tmp_path, test)


def test_tables_hold_cells_and_metadata(tmp_path: Path) -> None:
    async def test(http: httpx.AsyncClient, running: RunningApi) -> None:
        await http.post(JOBS, json=build_job("j"))
        table = (await http.get(JOBS, headers={"Accept": TABLE})).json()
        assert (table["kind"], table["apiVersion"]) == ("Table", "meta.k8s.io/v1")
        assert [c["name"] for c in table["columnDefinitions"]] == ["Name", "State", "Age"]
        row = table["rows"][0]
        assert row["cells"][:2] == ["j", None]
        assert row["object"]["kind"] == "PartialObjectMetadata"
        assert "spec" not in row["object"]
        whole = await http.get(f"{JOBS}/j?includeObject=Object", headers={"Accept": TABLE})
        assert whole.json()["rows"][0]["object"]["kind"] == "PyTorchJob"

    run(tmp_path, test)


def test_watches_of_tables_define_the_columns_once(tmp_path: Path) -> None:
    async def test(http: httpx.AsyncClient, running: RunningApi) -> None:
        for name in ("a", "b"):
            await http.post(MAPS, json=build_config_map(name))
        async with http.stream(
            "GET", MAPS, params={"watch": "1"}, headers={"Accept": TABLE}
        ) as response:
            events = await read_lines(response, 2)
        assert [event["object"]["rows"][0]["cells"][0] for event in events] == ["a", "b"]
        assert events[0]["object"]["columnDefinitions"]
        assert events[1]["object"]["columnDefinitions"] is None

    run(tmp_path, test)


def test_scale_reads_and_writes_the_replica_count(tmp_path: Path) -> None:
    async def test(http: httpx.AsyncClient, running: RunningApi) -> None:
        await http.post(JOBS, json=build_job("j", num_workers=2))
        scale = (await http.get(f"{JOBS}/j/scale")).json()
        assert (scale["kind"], scale["spec"]["replicas"]) == ("Scale", 2)
        scale["spec"]["replicas"] = 5
        assert (await http.put(f"{JOBS}/j/scale", json=scale)).status_code == 200
        workers = (await http.get(f"{JOBS}/j")).json()["spec"]["pytorchReplicaSpecs"]["Worker"]
        assert workers["replicas"] == 5
        stale = await http.put(f"{JOBS}/j/scale", json=scale)
        assert (stale.status_code, stale.json()["reason"]) == (409, "Conflict")
        scale = {"spec": {"replicas": -1}}
        assert (await http.put(f"{JOBS}/j/scale", json=scale)).status_code == 422

    run(tmp_path, test)


def test_deletion_answers_a_status_or_the_dying_object(tmp_path: Path) -> None:
    async def test(http: httpx.AsyncClient, running: RunningApi) -> None:
        uid = (await http.post(MAPS, json=build_config_map("a"))).json()["metadata"]["uid"]
        answer = (await http.delete(f"{MAPS}/a")).json()
        assert (answer["status"], answer["details"]["uid"]) == ("Success", uid)
        await http.post(PODS, json=build_pod("p", nodeName="laptop"))
        answer = (await http.delete(f"{PODS}/p", params={"gracePeriodSeconds": "3"})).json()
        assert answer["kind"] == "Pod"
        assert answer["metadata"]["deletionGracePeriodSeconds"] == 3
        body = json.dumps({"gracePeriodSeconds": 0, "preconditions": {"uid": "other"}})
        refused = await http.request("DELETE", f"{PODS}/p", content=body)
        assert refused.status_code == 409

    run(tmp_path, test)


def test_deleting_a_job_without_a_policy_leaves_its_pods_and_warns(tmp_path: Path) -> None:
    async def test(http: httpx.AsyncClient, running: RunningApi) -> None:
        template = {"spec": {**build_pod("")["spec"], "restartPolicy": "Never"}}
        manifest = {"metadata": {"name": "j"}, "spec": {"template": template}}
        jobs = "/apis/batch/v1/namespaces/default/jobs"
        job = (await http.post(jobs, json=manifest)).json()
        await http.post(PODS, json=own(build_pod("p"), job))
        answer = await http.delete(f"{jobs}/j")
        assert "child pods are preserved by default" in answer.headers["warning"]
        assert (await http.get(f"{PODS}/p")).status_code == 200

    run(tmp_path, test)


def test_bodies_may_be_yaml(tmp_path: Path) -> None:
    async def test(http: httpx.AsyncClient, running: RunningApi) -> None:
        answer = await http.post(
            MAPS, content="metadata: {name: a}\n", headers={"Content-Type": "application/yaml"}
        )
        assert answer.status_code == 201

    run(tmp_path, test)


def test_services_are_reached_through_the_proxy(tmp_path: Path) -> None:
    async def answer(request: Request) -> JSONResponse:
        return JSONResponse(
            {
                "method": request.method,
                "path": request.url.path,
                "query": request.url.query,
                "body": (await request.body()).decode(),
            },
            status_code=202,
        )

    app = Starlette(routes=[Route("/{path:path}", answer, methods=["GET", "POST"])])

    async def test(http: httpx.AsyncClient, running: RunningApi) -> None:
        listener = bind(0, what="service", option="none")
        async with serve(app, listener):
            running.proxies.register("kubeflow", "direct", target=app)
            running.proxies.register("kubeflow", "remote", target=url_of(listener))
            for name in ("direct", "http:direct:80", "remote", "remote:http"):
                path = f"/api/v1/namespaces/kubeflow/services/{name}/proxy/a/b"
                response = await http.post(f"{path}?x=1&y=a%2Fb", content="hello")
                assert response.status_code == 202
                assert response.json() == {
                    "method": "POST",
                    "path": "/a/b",
                    "query": "x=1&y=a%2Fb",
                    "body": "hello",
                }
        path = "/api/v1/namespaces/kubeflow/services/remote/proxy/"
        assert (await http.get(path)).status_code == 503
        missing = await http.get("/api/v1/namespaces/kubeflow/services/nobody/proxy/")
        assert missing.json()["reason"] == "ServiceUnavailable"

    run(tmp_path, test)


def test_an_error_of_ours_is_an_internal_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(ApiServer, "list", explode)

    async def test(http: httpx.AsyncClient, running: RunningApi) -> None:
        response = await http.get(MAPS)
        assert (response.status_code, response.json()["reason"]) == (500, "InternalError")

    run(tmp_path, test)
