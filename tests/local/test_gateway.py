import asyncio
from functools import partial

import pytest

from kubeloop.local.api.resources import INFERENCE_SERVICES, PODS
from kubeloop.local.client import Manifest
from kubeloop.local.serving import bind
from kubeloop.testing.gateway import PREDICT, Stage, echo, named, run
from kubeloop.testing.waiting import wait_until


def test_request_reaches_the_pod_below_the_prefix() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.add_service()
        await stage.add_pod("a", echo)

        response = await stage.http.post(f"{PREDICT}?x=1&y=%2F", content=b"[1]")

        reply = response.json()
        assert response.status_code == 200
        assert reply["method"] == "POST"
        assert reply["path"] == "/v1/models/digits:predict"
        assert reply["query"] == "x=1&y=%2F"
        assert reply["body"] == "[1]"
        assert reply["headers"]["kserve-isvc-name"] == "digits"
        assert reply["headers"]["kserve-isvc-namespace"] == "default"

    run(scenario)


def test_header_fields_of_one_connection_stay_there() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.add_service()
        await stage.add_pod("a", echo)
        headers = {"connection": "keep-alive, x-own", "x-own": "1", "te": "gzip", "x-kept": "2"}

        reply = (await stage.http.post(PREDICT, content=b"", headers=headers)).json()

        assert reply["headers"]["x-kept"] == "2"
        assert not {"connection", "x-own", "te"} & set(reply["headers"])

    run(scenario)


def test_path_is_passed_on_as_it_was_written() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.add_service()
        await stage.add_pod("a", echo)

        reply = (await stage.http.get("/serving/default/digits/a%2Fb/%C3%A4?q")).json()

        assert reply["path"] == "/a%2Fb/%C3%A4"

    run(scenario)


@pytest.mark.parametrize(
    "host",
    [
        "digits-default.example.com",
        "digits-predictor.default",
        "digits-predictor.default.svc.cluster.local",
        "digits.default.svc:80",
    ],
)
def test_host_name_of_an_endpoint_leads_to_it(host: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.add_service()
        await stage.add_pod("a", echo)

        response = await stage.http.get("/v2/models", headers={"host": host})

        assert response.json()["path"] == "/v2/models"

    run(scenario)


@pytest.mark.parametrize("host", ["evil.example.org", "digits", "10.0.0.1", "127.0.0.1.evil.org"])
def test_foreign_host_is_refused(host: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.add_service()
        await stage.add_pod("a", echo)

        response = await stage.http.get(PREDICT, headers={"host": host})

        assert response.status_code == 403
        assert "neither loopback" in response.json()["error"]

    run(scenario)


@pytest.mark.parametrize(
    ("origin", "status"),
    [("https://evil.example.org", 403), ("null", 403), ("http://localhost:3000", 200)],
)
def test_page_of_another_origin_is_refused(origin: str, status: int) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.add_service()
        await stage.add_pod("a", echo)

        response = await stage.http.post(PREDICT, content=b"", headers={"origin": origin})

        assert response.status_code == status

    run(scenario)


def test_model_path_alone_finds_the_endpoint_of_its_name() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.add_service()
        await stage.add_pod("a", echo)

        found = await stage.http.get("/v2/models/digits/ready")
        missing = await stage.http.get("/v1/models/other:predict")

        assert found.json()["path"] == "/v2/models/digits/ready"
        assert missing.status_code == 404

    run(scenario)


def test_unknown_endpoint_is_404_and_says_where_to_look() -> None:
    async def scenario(stage: Stage) -> None:
        response = await stage.http.get("/serving/default/other/v2")

        assert response.status_code == 404
        assert "no endpoint default/other" in response.json()["error"]

    run(scenario)


def test_endpoint_without_a_ready_pod_is_503_with_its_reason() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.add_service()
        service = await stage.client.get(INFERENCE_SERVICES, "digits", namespace="default")
        condition = {"type": "Ready", "status": "False", "reason": "Why", "message": "because"}
        service["status"] = {"conditions": [condition]}
        await stage.client.replace_status(service)
        await wait_until(lambda: "because" in read_reason(stage))

        response = await stage.http.post(PREDICT, content=b"{}")

        assert response.status_code == 503
        assert response.headers["retry-after"] == "1"
        assert response.json()["error"] == ("Endpoint default/digits is not ready: Why: because.")

    run(scenario)


def reached(statuses: list[int], goal: int) -> bool:
    return len(statuses) >= goal


def read_reason(stage: Stage) -> str:
    route = stage.gateway.table.find("default", "digits")
    return route.reason if route else ""


def test_own_pages_list_the_endpoints() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.add_service()
        await stage.add_pod("a", echo)

        reply = (await stage.http.get("/healthz")).json()

        assert reply["status"] == "ok"
        assert reply["endpoints"] == [
            {
                "namespace": "default",
                "name": "digits",
                "ready": True,
                "path": "/serving/default/digits",
            }
        ]
        assert (await stage.http.get("/nonsense")).status_code == 404

    run(scenario)


def test_pods_take_turns_and_a_dead_one_is_skipped() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.add_service()
        await stage.add_pod("a", named("a"))
        await stage.add_pod("b", named("b"))
        closed = bind(0, what="pod", option="-")
        port = closed.getsockname()[1]
        closed.close()
        await stage.add_pod("dead", port=port)

        replies = [(await stage.http.post(PREDICT, content=b"{}")).text for _ in range(12)]

        assert set(replies) == {"a", "b"}

    run(scenario)


def test_pods_that_are_all_dead_are_503() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.add_service()
        closed = bind(0, what="pod", option="-")
        port = closed.getsockname()[1]
        closed.close()
        await stage.add_pod("dead", port=port)

        response = await stage.http.post(PREDICT, content=b"{}")

        assert response.status_code == 503
        assert "none of its 1 pods accepts connections" in response.json()["error"]

    run(scenario)


def test_pod_that_is_to_be_deleted_gets_no_more_requests() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.add_service()
        await stage.add_pod("a", named("a"))
        await stage.add_pod("b", named("b"))
        pod = await stage.client.get(PODS, "a", namespace="default")
        pod["spec"]["nodeName"] = "node"
        await stage.client.replace(pod)

        await stage.client.delete(PODS, "a", namespace="default", grace_period_seconds=30)
        await wait_until(lambda: stage.backends() == ["b"])

        replies = [(await stage.http.post(PREDICT, content=b"{}")).text for _ in range(4)]
        assert set(replies) == {"b"}

    run(scenario)


def test_no_request_fails_while_pods_are_replaced() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.add_service()
        await stage.add_pod("pod-0", named("0"))
        statuses: list[int] = []
        done = asyncio.Event()

        async def ask() -> None:
            while not done.is_set():
                statuses.append((await stage.http.post(PREDICT, content=b"{}")).status_code)

        asking = [asyncio.create_task(ask()) for _ in range(4)]
        for number in range(1, 6):
            await stage.add_pod(f"pod-{number}", named(str(number)))
            await stage.remove_pod(f"pod-{number - 1}")
            goal = len(statuses) + 20
            await wait_until(partial(reached, statuses, goal))
        done.set()
        await asyncio.gather(*asking)

        assert set(statuses) == {200}

    run(scenario)


def test_route_is_gone_with_its_endpoint() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.add_service()
        await stage.add_pod("a", echo)

        await stage.client.delete(INFERENCE_SERVICES, "digits", namespace="default")
        await wait_until(lambda: stage.gateway.table.find("default", "digits") is None)

        assert (await stage.http.get(PREDICT)).status_code == 404

    run(scenario)


def test_endpoints_of_one_name_in_two_namespaces_are_told_apart() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.add_service()
        await stage.add_service(namespace="kubeflow")
        await stage.add_pod("a", named("a"))

        here = await stage.http.get("/serving/default/digits/")
        there: Manifest = (await stage.http.get("/serving/kubeflow/digits/")).json()

        assert here.text == "a"
        assert "kubeflow/digits is not ready" in there["error"]
        assert (await stage.http.get("/v2/models/digits/ready")).status_code == 404

    run(scenario)
