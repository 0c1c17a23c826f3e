import yaml

from kubeloop.kserve.runtime import build_serving_runtime
from kubeloop.kserve.server.__main__ import parse_config


def test_arguments_of_the_runtime_are_the_servers() -> None:
    (container,) = build_serving_runtime()["spec"]["containers"]
    arguments = [argument.replace("{{.Name}}", "digits") for argument in container["args"]]

    config = parse_config(arguments, {"POD_IP": "10.0.0.7"})

    assert container["command"] == ["python", "-m", "kubeloop.kserve.server"]
    assert config.model_name == "digits"
    assert str(config.model_dir) == "/mnt/models"
    assert config.http_port == container["ports"][0]["containerPort"]
    assert container["readinessProbe"]["httpGet"]["port"] == config.http_port


def test_manifest_is_plain_data() -> None:
    manifest = build_serving_runtime(image="mine:1")

    assert yaml.safe_load(yaml.safe_dump(manifest)) == manifest
    assert manifest["spec"]["containers"][0]["image"] == "mine:1"
