"""kfp-kubernetes: what settings do to a step, and what is said of those that do nothing here."""

# KFP reads annotations that are no types to mypy.
# mypy: disable-error-code="no-untyped-def, valid-type, type-arg, no-any-return, name-match"

import base64
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp import dsl, kubernetes

from kubeloop.local.api.resources import EVENTS, PODS

component = dsl.component(base_image="python:3.11", install_kfp_package=False)


@dsl.container_component
def run(script: str, out: dsl.OutputPath(str)):
    return dsl.ContainerSpec(
        image="busybox", command=["sh", "-c", 'eval "$0" > "$1"'], args=[script, out]
    )


@component
def note(path: str, text: str) -> str:
    from pathlib import Path

    file = Path(path, "notes")
    before = file.read_text() if file.exists() else ""
    file.write_text(f"{before}{text};")
    return file.read_text()


@pytest.fixture
def pod_of(runner: Any) -> Any:
    """The Pod that ran a task."""

    def find(view: Any, path: str = "run") -> Any:
        (pod,) = view.task(path)["pods"]
        return runner.stage.call(runner.stage.client.get(PODS, pod["name"], namespace="default"))

    return find


def _create(runner: Any, kind: str, name: str, **fields: Any) -> None:
    metadata = {"name": name, "namespace": "default"}
    manifest = {"apiVersion": "v1", "kind": kind, "metadata": metadata, **fields}
    runner.stage.call(runner.stage.client.create(manifest))


@pytest.fixture(scope="module", autouse=True)
def _objects(runner: Any) -> None:
    """What the steps refer to."""
    _create(runner, "Secret", "keys", data={"key": base64.b64encode(b"secret").decode()})
    _create(runner, "ConfigMap", "settings", data={"level": "debug"})


def _run(runner: Any, script: str, configure: Any, **arguments: Any) -> Any:
    @dsl.pipeline(name="configured")
    def configured():
        configure(run(script=script).set_caching_options(False))

    view = runner.run(configured, **arguments)
    assert view.state == "SUCCEEDED", view.error
    return view


ENV = [
    (lambda task: kubernetes.use_secret_as_env(task, "keys", {"key": "VALUE"}), "secret"),
    (lambda task: kubernetes.use_config_map_as_env(task, "settings", {"level": "VALUE"}), "debug"),
    (lambda task: kubernetes.use_field_path_as_env(task, "VALUE", "metadata.namespace"), "default"),
    (lambda task: task.set_env_variable("VALUE", "plain"), "plain"),
]


@pytest.mark.parametrize(("configure", "value"), ENV, ids=["secret", "config", "field", "plain"])
def test_variables_reach_the_step(runner: Any, configure: Any, value: str) -> None:
    view = _run(runner, 'printf %s "$VALUE"', configure)
    assert view.output("run", "out") == value


MOUNTS = [
    (lambda task: kubernetes.use_secret_as_volume(task, "keys", "/m"), "cat /m/key", "secret"),
    (
        lambda task: kubernetes.use_config_map_as_volume(task, "settings", "/m"),
        "cat /m/level",
        "debug",
    ),
    (
        lambda task: kubernetes.empty_dir_mount(task, volume_name="e", mount_path="/m"),
        "echo fresh > /m/x; ls /m",
        "x\n",
    ),
    (
        lambda task: kubernetes.add_ephemeral_volume(
            task, volume_name="e", mount_path="/m", access_modes=["ReadWriteOnce"], size="1Gi"
        ),
        "echo fresh > /m/y; ls /m",
        "y\n",
    ),
    (
        lambda task: kubernetes.use_secret_as_volume(task, "absent", "/m", optional=True),
        "ls /m",
        "",
    ),
]


@pytest.mark.parametrize(
    ("configure", "script", "output"),
    MOUNTS,
    ids=["secret", "config map", "empty dir", "ephemeral volume", "optional"],
)
def test_volumes_are_mounted(runner: Any, configure: Any, script: str, output: str) -> None:
    assert _run(runner, script, configure).output("run", "out") == output


def test_metadata_and_limits_are_those_of_the_pod(runner: Any, pod_of: Any) -> None:
    def configure(task: Any) -> None:
        kubernetes.add_pod_label(task, "team", "blue")
        kubernetes.add_pod_annotation(task, "note", "n")
        kubernetes.set_timeout(task, 120)
        kubernetes.set_image_pull_policy(task, "Never")
        task.set_cpu_request("250m").set_cpu_limit("1").set_memory_request("64Mi")
        task.set_memory_limit("1Gi")
        task.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(1)

    pod = pod_of(_run(runner, "true", configure))
    assert pod["metadata"]["labels"]["team"] == "blue"
    assert pod["metadata"]["annotations"]["note"] == "n"
    assert pod["spec"]["activeDeadlineSeconds"] == 120
    (container,) = pod["spec"]["containers"]
    assert container["imagePullPolicy"] == "Never"
    assert container["resources"] == {
        "requests": {"cpu": "250m", "memory": "64Mi", "nvidia.com/gpu": "1"},
        "limits": {"cpu": "1", "memory": "1Gi", "nvidia.com/gpu": "1"},
    }


def test_a_step_past_its_timeout_fails(runner: Any) -> None:
    @dsl.pipeline(name="slow")
    def slow():
        kubernetes.set_timeout(run(script="sleep 60"), 1)

    view = runner.run(slow)
    assert view.state == "FAILED"
    assert "DeadlineExceeded" in view.error


def test_settings_without_effect_are_said_at_the_task_and_as_events(
    runner: Any, pod_of: Any
) -> None:
    def configure(task: Any) -> None:
        kubernetes.add_node_selector(task, "disk", "ssd")
        kubernetes.add_toleration(task, key="gpu", operator="Exists")
        kubernetes.set_image_pull_secrets(task, ["registry"])
        kubernetes.empty_dir_mount(task, volume_name="e", mount_path="/m", size_limit="1Mi")

    view = _run(runner, "true", configure)
    notes = view.task("run")["status_metadata"]["custom_properties"]["notes"]
    assert sorted(text.partition(" ignored: ")[0] for text in notes) == [
        "imagePullSecret is",
        "nodeSelector is",
        "the size and medium of emptyDirMounts are",
        "tolerations is",
    ]
    name = pod_of(view)["metadata"]["name"]
    events = runner.stage.call(runner.stage.client.list(EVENTS, namespace="default")).items
    said = [event for event in events if event["involvedObject"]["name"] == name]
    assert sorted(event["message"] for event in said if event["reason"] == "NotApplied") == sorted(
        notes
    )


def _run_with_config(runner: Any, pipeline: Any, **config: Any) -> Any:
    """Run with settings for the whole pipeline, which older SDKs can neither write nor send."""
    text = Path(runner.compile(pipeline)).read_text()
    spec = {
        "pipeline_spec": yaml.safe_load(text.replace("WORKSPACE", "'{{$.workspace_path}}'")),
        "platform_spec": {"platforms": {"kubernetes": {"pipelineConfig": config}}},
    }
    body = {"display_name": "configured", "pipeline_spec": spec}
    created = runner.http("POST", "runs", json=body).raise_for_status().json()
    return runner.wait(created["run_id"])


def test_steps_share_the_workspace_of_their_run_and_no_other(runner: Any) -> None:
    @dsl.pipeline(name="sharing")
    def sharing():
        first = note(path="WORKSPACE", text="a").set_caching_options(False)
        note(path="WORKSPACE", text="b").set_caching_options(False).after(first)

    for _ in range(2):
        view = _run_with_config(runner, sharing, workspace={"size": "1Gi"})
        assert view.state == "SUCCEEDED", view.error
        assert view.output("note-2") == "a;b;"
        assert not list((runner.stage.pipeline_root / ".workspaces").iterdir())


def test_a_run_past_its_deadline_fails_and_ends_its_steps(runner: Any) -> None:
    @dsl.pipeline(name="endless")
    def endless():
        run(script="sleep 600").set_caching_options(False)

    view = _run_with_config(runner, endless, activeDeadlineSeconds="1")
    assert view.state == "FAILED"
    assert view.error == "The run was active longer than its deadline of 1 s."
    assert not runner.stage.pod_names(phase="Running")


@pytest.mark.skipif(not hasattr(dsl, "TaskConfig"), reason="this version of kfp has no TaskConfig")
def test_a_step_takes_its_own_settings_instead_of_having_them(runner: Any, pod_of: Any) -> None:
    field = getattr(dsl, "TaskConfigField", None)
    passthrough = getattr(dsl, "TaskConfigPassthrough", None)
    assert field is not None
    assert passthrough is not None

    def start_job(config: dsl.TaskConfig) -> dict:
        return {
            "resources": config.resources,
            "env": config.env,
            "node_selector": config.node_selector,
            "volumes": config.volumes,
        }

    taken = [field.RESOURCES, passthrough(field=field.ENV, apply_to_task=True)]
    make = dsl.component(
        base_image="python:3.11",
        install_kfp_package=False,
        task_config_passthroughs=[*taken, field.KUBERNETES_NODE_SELECTOR],
    )

    @dsl.pipeline(name="passing-on")
    def passing_on():
        task = make(start_job)().set_env_variable("NAME", "value")
        task.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(8)
        kubernetes.add_node_selector(task, "disk", "ssd")

    view = runner.run(passing_on)
    assert view.state == "SUCCEEDED", view.error
    assert view.output("start-job") == {
        "resources": {"limits": {"nvidia.com/gpu": "8"}},
        "env": [{"name": "NAME", "value": "value"}],
        "node_selector": {"disk": "ssd"},
        "volumes": None,
    }
    (container,) = pod_of(view, "start-job")["spec"]["containers"]
    assert not container.get("resources")
    assert {"name": "NAME", "value": "value"} in container["env"]
