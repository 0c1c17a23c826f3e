"""Container components: placeholders, environment, resources, platform configuration."""

# KFP reads annotations that are no types to mypy.
# mypy: disable-error-code="no-untyped-def, valid-type, type-arg, no-any-return, name-match"

import base64
import json
from typing import Any

from kfp import dsl, kubernetes

from kubeloop.local.api.resources import PERSISTENT_VOLUME_CLAIMS, PODS

component = dsl.component(base_image="python:3.11", install_kfp_package=False)


@dsl.container_component
def show(
    word: str,
    data: dsl.Input[dsl.Dataset],
    out: dsl.OutputPath(list),
    made: dsl.Output[dsl.Dataset],
    extra: str = None,  # type: ignore[assignment]  # noqa: RUF013
):
    script = 'import json, sys; open(sys.argv[1], "w").write(json.dumps(sys.argv[2:]))'
    return dsl.ContainerSpec(
        image="python:3.11",
        command=["python3", "-c", script],
        args=[
            out,
            dsl.ConcatPlaceholder(["--word=", word, ";"]),
            dsl.IfPresentPlaceholder(
                input_name="extra",
                then=["--extra", extra],
                else_=["--no-extra"],
            ),
            data.uri,
            data.path,
            made.path,
            "plain",
        ],
    )


@dsl.container_component
def environment(names: str, out: dsl.OutputPath(dict)):
    script = (
        "import json, os, sys; open(sys.argv[2], 'w').write("
        "json.dumps({name: os.environ.get(name) for name in sys.argv[1].split()}))"
    )
    return dsl.ContainerSpec(
        image="python:3.11", command=["python3", "-c", script], args=[names, out]
    )


@component
def say(text: str) -> str:
    return text


@dsl.pipeline(name="placeholders")
def placeholders(word: str = "{{$.inputs.parameters['extra']}}"):
    data = dsl.importer(artifact_uri="s3://bucket/key", artifact_class=dsl.Dataset)
    show(word=word, data=data.output)
    show(word=word, data=data.output, extra="given")


@dsl.pipeline(name="about-the-run")
def about_the_run():
    say(text=dsl.PIPELINE_JOB_ID_PLACEHOLDER)
    say(text=f"{dsl.PIPELINE_JOB_NAME_PLACEHOLDER}|{dsl.PIPELINE_TASK_NAME_PLACEHOLDER}")


@dsl.pipeline(name="configured")
def configured(secret: str = "credentials"):
    task = environment(names="KEY LEVEL POD FIXED KFP_POD_NAME")
    task.set_env_variable("FIXED", "value")
    task.set_cpu_request("250m").set_memory_limit("1Gi")
    task.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(2)
    task.set_caching_options(False)
    kubernetes.use_secret_as_env(task, secret, {"key": "KEY"})
    kubernetes.use_config_map_as_env(task, "settings", {"level": "LEVEL"})
    kubernetes.use_field_path_as_env(task, "POD", "metadata.name")
    kubernetes.use_secret_as_volume(task, "credentials", "/etc/credentials")
    kubernetes.use_config_map_as_volume(task, "settings", "/etc/settings", optional=True)
    kubernetes.mount_pvc(task, "data", "/data")
    kubernetes.add_pod_label(task, "team", "blue")
    kubernetes.add_pod_annotation(task, "note", "n")
    kubernetes.set_timeout(task, 120)
    kubernetes.set_image_pull_policy(task, "Never")
    kubernetes.add_node_selector(task, "disk", "ssd")


def test_placeholders_are_resolved_once(runner: Any) -> None:
    run = runner.run(placeholders)
    assert run.state == "SUCCEEDED", run.error
    word, *rest = run.output("show", "out")
    assert word == "--word={{$.inputs.parameters['extra']}};"
    made = run.artifacts("show", "made")[0]["uri"]
    assert rest == ["--no-extra", "s3://bucket/key", "/s3/bucket/key", made, "plain"]
    assert run.output("show-2", "out")[1:3] == ["--extra", "given"]


def test_placeholders_about_the_run_and_the_task(runner: Any) -> None:
    run = runner.run(about_the_run)
    assert run.output("say") == run.run_id
    assert run.output("say-2") == f"{run.json['display_name']}|say-2"


def test_platform_configuration_reaches_the_pod(runner: Any) -> None:
    stage = runner.stage
    create = stage.client.create
    key = base64.b64encode(b"secret value").decode()
    metadata = {"namespace": "default"}
    secret = {"kind": "Secret", "metadata": {**metadata, "name": "credentials"}}
    stage.call(create({"apiVersion": "v1", **secret, "data": {"key": key}}))
    settings = {"kind": "ConfigMap", "metadata": {**metadata, "name": "settings"}}
    stage.call(create({"apiVersion": "v1", **settings, "data": {"level": "debug"}}))
    claim = {"kind": "PersistentVolumeClaim", "metadata": {**metadata, "name": "data"}}
    wanted = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    stage.call(create({"apiVersion": "v1", **claim, "spec": wanted}))
    run = runner.run(configured)
    assert run.state == "SUCCEEDED", run.error
    (pod,) = run.task("environment")["pods"]
    assert run.output("environment", "out") == {
        "KEY": "secret value",
        "LEVEL": "debug",
        "POD": pod["name"],
        "FIXED": "value",
        "KFP_POD_NAME": pod["name"],
    }
    manifest = stage.call(stage.client.get(PODS, pod["name"], namespace="default"))
    _check_manifest(manifest, run)


def _check_manifest(manifest: dict[str, Any], run: Any) -> None:
    labels, spec = manifest["metadata"]["labels"], manifest["spec"]
    assert labels["pipeline/runid"] == run.run_id
    assert labels["pipelines.kubeflow.org/v2_component"] == "true"
    assert labels["team"] == "blue"
    assert manifest["metadata"]["annotations"]["note"] == "n"
    assert manifest["metadata"]["annotations"]["kubeloop.dev/task"] == "environment"
    assert (spec["restartPolicy"], spec["activeDeadlineSeconds"]) == ("Never", 120)
    container = spec["containers"][0]
    assert container["imagePullPolicy"] == "Never"
    assert container["resources"]["requests"]["cpu"] == "250m"
    limits = container["resources"]["limits"]
    assert (limits["memory"], str(limits["nvidia.com/gpu"])) == ("1Gi", "2")
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert volumes[mounts["/data"]]["persistentVolumeClaim"]["claimName"] == "data"
    assert volumes[mounts["/etc/credentials"]]["secret"]["secretName"] == "credentials"
    assert volumes[mounts["/etc/settings"]]["configMap"]["optional"] is True
    assert "nodeSelector" not in spec


def test_resources_and_optional_settings_may_come_from_parameters(runner: Any) -> None:
    @dsl.pipeline(name="settings-by-parameter")
    def settings_by_parameter(cpu: str = "125m", secret: str = None):  # type: ignore[assignment]  # noqa: RUF013
        task = environment(names="KEY").set_caching_options(False)
        task.set_cpu_request(cpu)
        kubernetes.use_secret_as_env(task, secret, {"key": "KEY"})

    run = runner.run(settings_by_parameter)
    assert run.state == "SUCCEEDED", run.error
    assert run.output("environment", "out") == {"KEY": None}
    (pod,) = run.task("environment")["pods"]
    manifest = runner.stage.call(runner.stage.client.get(PODS, pod["name"], namespace="default"))
    assert manifest["spec"]["containers"][0]["resources"]["requests"] == {"cpu": "125m"}


def test_claims_are_made_mounted_and_deleted(runner: Any) -> None:
    @dsl.container_component
    def put(text: str):
        return dsl.ContainerSpec(
            image="busybox", command=["sh", "-c", 'printf %s "$0" > /claim/file'], args=[text]
        )

    @dsl.container_component
    def take(out: dsl.OutputPath(str)):
        return dsl.ContainerSpec(
            image="busybox", command=["sh", "-c", 'cat /claim/file > "$0"'], args=[out]
        )

    @dsl.pipeline(name="claiming")
    def claiming():
        claim = kubernetes.CreatePVC(
            pvc_name_suffix="scratch", access_modes=["ReadWriteOnce"], size="1Gi"
        )
        written = put(text="kept")
        taken = take().after(written)
        for task in (written, taken):
            kubernetes.mount_pvc(task, claim.outputs["name"], "/claim")
        kubernetes.DeletePVC(pvc_name=claim.outputs["name"]).after(taken)

    run = runner.run(claiming)
    assert run.state == "SUCCEEDED", run.error
    assert run.output("take", "out") == "kept"
    assert run.output("createpvc", "name").endswith("-scratch")
    claims = runner.stage.call(runner.stage.client.list(PERSISTENT_VOLUME_CLAIMS)).items
    assert run.output("createpvc", "name") not in [item["metadata"]["name"] for item in claims]


def test_executor_input_holds_what_the_sdk_reads(runner: Any) -> None:
    @dsl.container_component
    def echo(word: str, out: dsl.OutputPath(dict), made: dsl.Output[dsl.Model]):
        return dsl.ContainerSpec(
            image="busybox", command=["sh", "-c", 'printf %s "$0" > "$1"'], args=["{{$}}", out]
        )

    @dsl.pipeline(name="echoing")
    def echoing():
        echo(word="w")

    run = runner.run(echoing)
    executor_input = run.output("echo", "out")
    assert executor_input["inputs"] == {"parameterValues": {"word": "w"}}
    made = executor_input["outputs"]["artifacts"]["made"]["artifacts"][0]
    assert made["type"] == {"schemaTitle": "system.Model", "schemaVersion": "0.0.1"}
    folder = made["uri"].rpartition("/")[0]
    assert executor_input["outputs"]["outputFile"] == f"{folder}/output_metadata.json"
    assert executor_input["outputs"]["parameters"]["out"]["outputFile"].startswith(folder)
    assert json.dumps(executor_input)
