from pathlib import Path

import pytest
import yaml

from kubeloop.errors import InputError
from kubeloop.pipelines.packages import COMPILED, read_package, with_caching

SPEC = "pipelineInfo: {name: p}\nroot: {dag: {tasks: {}}}\n"


def test_single_document_package_is_read(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(SPEC)
    package = read_package(file)
    assert (package.name, package.platform_spec) == ("p", {})


def test_platform_document_is_kept_apart(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(f"{SPEC}---\nplatforms: {{kubernetes: {{}}}}\n")
    assert read_package(file).platform_spec == {"platforms": {"kubernetes": {}}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not a compiled KFP v2 pipeline"),
        ("a: [", "not YAML"),
        ("a: 1", "no pipelineInfo or root"),
        ("- 1", "not a compiled KFP v2 pipeline"),
        ("apiVersion: argoproj.io/v1alpha1\nkind: Workflow", "not a compiled KFP v2 pipeline"),
    ],
)
def test_other_files_are_refused_with_the_reason(
    tmp_path: Path, content: str, message: str
) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(content)
    with pytest.raises(InputError, match=message):
        read_package(file)


def test_missing_file_is_refused_by_its_path(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.yaml: No such file"):
        read_package(tmp_path / "none.yaml")


@pytest.mark.parametrize("enabled", [True, False])
def test_caching_is_overridden_within_conditions_too(*, enabled: bool) -> None:
    package = read_package(COMPILED / "image_classification.yaml")

    with with_caching(package, enabled=enabled) as path:
        written = read_package(path)

    tasks = [
        task
        for component in (written.spec["root"], *written.spec["components"].values())
        for task in component.get("dag", {}).get("tasks", {}).values()
    ]
    assert {task["cachingOptions"]["enableCache"] for task in tasks} == {enabled}
    assert len(tasks) > len(written.spec["root"]["dag"]["tasks"])
    assert written.platform_spec == package.platform_spec


def test_caching_is_left_as_the_tasks_say() -> None:
    package = read_package(COMPILED / "image_classification.yaml")
    before = yaml.safe_dump(package.spec)

    with with_caching(package, enabled=None) as path:
        assert path == package.path
    with with_caching(package, enabled=False):
        assert yaml.safe_dump(package.spec) == before
