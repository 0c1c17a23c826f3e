import contextlib
import io
import json
import pickle
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kubeloop.errors import InputError
from kubeloop.training.archive import load_program, sanitize_archive, save_program

Members = dict[str, bytes]
MODEL = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"


class Net(nn.Module):
    offset: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.register_buffer("offset", torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        flat: Tensor = self.layer(x.reshape(x.shape[0], -1) * 2)
        return (flat + self.offset).softmax(1)


def build_net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture
def net() -> Net:
    return build_net()


@pytest.fixture(scope="module")
def program() -> bytes:
    batch = torch.export.Dim("batch", max=64)
    inputs = (torch.zeros(2, 2, 2),)
    exported = torch.export.export(build_net(), inputs, dynamic_shapes=({0: batch},))
    with tempfile.TemporaryDirectory() as folder:
        save_program(exported, Path(folder, "model.pt2"))
        return Path(folder, "model.pt2").read_bytes()


@pytest.fixture
def path(program: bytes, tmp_path: Path) -> Path:
    (tmp_path / "model.pt2").write_bytes(program)
    return tmp_path / "model.pt2"


def read_members(data: bytes) -> Members:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {info.filename.partition("/")[2]: archive.read(info) for info in archive.infolist()}


def write_members(members: Members, *, compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(f"model/{name}", data)
    return buffer.getvalue()


def change(path: Path, edit: Callable[[dict[str, Any]], object], *, member: str = MODEL) -> None:
    members = read_members(path.read_bytes())
    document = json.loads(members[member])
    edit(document)
    members[member] = json.dumps(document).encode()
    path.write_bytes(write_members(members))


def nodes(document: dict[str, Any]) -> list[dict[str, Any]]:
    result: list[dict[str, Any]] = document["graph_module"]["graph"]["nodes"]
    return result


class Trap:
    """Pickled, this writes a file when it is loaded."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


def test_a_saved_program_gives_the_same_answers(net: Net, path: Path) -> None:
    model = load_program(path)

    with torch.inference_mode():
        for size in (1, 2, 33):
            inputs = torch.rand(size, 2, 2)
            assert torch.equal(model(inputs), net(inputs))


def test_saving_twice_gives_the_same_bytes(net: Net, path: Path, tmp_path: Path) -> None:
    batch = torch.export.Dim("batch", max=64)
    program = torch.export.export(net, (torch.zeros(2, 2, 2),), dynamic_shapes=({0: batch},))
    save_program(program, tmp_path / "again.pt2")

    assert (tmp_path / "again.pt2").read_bytes() == path.read_bytes()


def test_nothing_of_this_machine_is_saved(path: Path) -> None:
    data = path.read_bytes()

    assert b"stack_trace" not in data
    assert b"nn_module_stack" not in data
    assert str(Path(__file__).parent).encode() not in data
    assert read_members(data)["data/sample_inputs/model.pt"] == b""


def test_a_file_as_torch_writes_it_loads(net: Net, tmp_path: Path) -> None:
    program = torch.export.export(net, (torch.zeros(2, 2, 2),))
    torch.export.save(program, tmp_path / "plain.pt2")

    inputs = torch.rand(2, 2, 2)
    assert torch.equal(load_program(tmp_path / "plain.pt2")(inputs), net(inputs))


def test_pickled_sample_inputs_are_never_loaded(path: Path, tmp_path: Path) -> None:
    members = read_members(path.read_bytes())
    members["data/sample_inputs/model.pt"] = pickle.dumps(Trap(tmp_path / "executed"))
    path.write_bytes(write_members(members))

    load_program(path)

    assert not (tmp_path / "executed").exists()


def test_guards_are_never_compiled(path: Path, tmp_path: Path) -> None:
    code = f"__import__('pathlib').Path({str(tmp_path / 'executed')!r}).touch()"
    change(path, lambda document: document.update(guards_code=[code]))

    load_program(path)(torch.rand(2, 2, 2))

    assert not (tmp_path / "executed").exists()


def test_pickled_weights_are_refused(path: Path) -> None:
    def edit(document: dict[str, Any]) -> None:
        document["config"]["layer.bias"]["use_pickle"] = True

    change(path, edit, member=WEIGHTS)

    with pytest.raises(InputError, match=r"'layer\.bias' is pickled"):
        load_program(path)


@pytest.mark.parametrize("name", ["custom_obj_0", "opaque_obj_0", "../weights/weight_0", "x.pt"])
def test_constants_that_are_no_tensors_are_refused(path: Path, name: str) -> None:
    entry = {"path_name": name, "is_param": False, "use_pickle": False, "tensor_meta": None}
    member = "data/constants/model_constants_config.json"
    change(path, lambda document: document["config"].update(c=entry), member=member)

    with pytest.raises(InputError, match="not as a tensor"):
        load_program(path)


@pytest.mark.parametrize(
    "member",
    [
        "data/aotinductor/model/wrapper.so",
        "data/weights/model.pt",
        "data/constants/custom_obj_0",
        "models/other.json",
        "serialized_state_dict.pt",
        "version",
        "../outside",
        "extra/code.py",
    ],
)
def test_members_that_loading_would_run_are_refused(path: Path, member: str) -> None:
    members = read_members(path.read_bytes()) | {member: b"x"}

    with pytest.raises(InputError, match="only a graph, its weights and constants"):
        sanitize_archive(write_members(members), name="model.pt2")


@pytest.mark.parametrize(
    "target",
    [
        "torch.load",
        "torch.hub.load",
        "torch.ops.aten.from_file.default",
        "torch.ops.load_library",
        "torch.ops.aten.add.Tensor.__class__",
        "_operator.attrgetter",
        "_operator.methodcaller",
        "math.factorial",
        "#namespace:operator",
        "os.system",
    ],
)
def test_operators_that_reach_beyond_tensors_are_refused(path: Path, target: str) -> None:
    change(path, lambda document: nodes(document)[0].update(target=target))

    with pytest.raises(InputError, match="is not a tensor operator"):
        load_program(path)


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os').system('true')",
        "().__class__",
        "Symbol('s0').func",
        "exec('x')",
        "s0 if s0 else s1",
        "[s0][0]",
        "lambda: 0",
        "Symbol('x y')",
        "s0; s1",
        "open('/etc/passwd')",
    ],
)
def test_shape_expressions_are_arithmetic_alone(path: Path, expression: str) -> None:
    def edit(document: dict[str, Any]) -> None:
        graph = document["graph_module"]["graph"]
        for value in graph["tensor_values"].values():
            value["sizes"][0] = {"as_expr": {"expr_str": expression, "hint": None}}

    change(path, edit)

    with pytest.raises(InputError, match="is not plain arithmetic"):
        load_program(path)


@pytest.mark.parametrize(
    "tree",
    [
        {"type": "collections.defaultdict", "context": "[]", "children_spec": []},
        {"type": "builtins.dict", "context": '{"default_factory_module": "os"}'},
        {"type": "builtins.dict", "context": "[[1]]", "children_spec": []},
        "no tree",
    ],
)
def test_inputs_and_outputs_are_plain_containers(path: Path, tree: Any) -> None:
    def edit(document: dict[str, Any]) -> None:
        signature = document["graph_module"]["module_call_graph"][0]["signature"]
        signature["in_spec"] = json.dumps([1, tree])

    change(path, edit)

    with pytest.raises(InputError, match="cannot be loaded safely"):
        load_program(path)


@pytest.mark.parametrize("name", ["x): pass #", "a b", "__import__('os')", "x\n"])
def test_names_that_would_become_code_are_refused(path: Path, name: str) -> None:
    def edit(document: dict[str, Any]) -> None:
        signature = document["graph_module"]["module_call_graph"][0]["signature"]
        signature["forward_arg_names"] = [name]

    change(path, edit)

    with pytest.raises(InputError, match="is not plain"):
        load_program(path)


def test_a_member_may_not_hide_behind_another(path: Path) -> None:
    members = read_members(path.read_bytes())
    buffer = io.BytesIO(path.read_bytes())
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr(f"other/{MODEL}", members[MODEL])

    with pytest.raises(InputError, match=r"holds 'models/model\.json' twice"):
        sanitize_archive(buffer.getvalue(), name="model.pt2")


def test_compressed_members_are_refused(path: Path) -> None:
    members = read_members(path.read_bytes())

    with pytest.raises(InputError, match="compressed"):
        sanitize_archive(write_members(members, compression=zipfile.ZIP_DEFLATED), name="model.pt2")


@pytest.mark.parametrize("data", [b"", b"\x80\x04.", b"PK\x03\x04"])
def test_what_is_no_archive_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "model.pt2").write_bytes(data)

    with pytest.raises(InputError, match=r"not a \.pt2 archive"):
        load_program(tmp_path / "model.pt2")


def test_an_archive_without_a_graph_is_refused(path: Path) -> None:
    members = read_members(path.read_bytes())
    del members[MODEL]

    with pytest.raises(InputError, match=r"lacks models/model\.json"):
        sanitize_archive(write_members(members), name="model.pt2")


@pytest.mark.parametrize("where", range(0, 4000, 331))
def test_a_damaged_archive_is_refused_or_harmless(path: Path, where: int) -> None:
    data = bytearray(path.read_bytes())
    data[-where % len(data)] ^= 0x55
    path.write_bytes(data)

    with contextlib.suppress(InputError, RuntimeError):
        load_program(path)(torch.rand(2, 2, 2))
