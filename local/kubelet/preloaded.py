"""Imports modules ahead of time, and makes a fork forget what they fixed while being imported.

A module that reads the environment, the clock or the machine's entropy when it is imported would
carry the warm parent's answer into every child. Reads of the environment are recorded, so that a
child with another value is not run warm; the other cases are a short list, renewed in `refresh`.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import importlib
import logging
import os
import sys
import sysconfig
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kubeloop.local.kubelet import linux
from kubeloop.local.kubelet.python_command import read_thread_limit

PARENT_ENV = {
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONUNBUFFERED": "1",
    "THP_MEM_ALLOC_ENABLE": "1",
}
"""The warm parent's own variables, whatever its children have.

They keep libraries from starting threads when they are loaded: the allocator of pyarrow, which
pandas imports where it is installed, and NumPy's OpenBLAS. And they ask for the huge pages of
training programs (`kubeloop.training.programs`), which torch takes from its start or never.
"""

_RENEWED = PARENT_ENV.keys() | frozenset(
    {
        "HOME",  # only used to compute defaults that the programs overwrite or never reach
        "HOSTNAME",
        "KUBECONFIG",
        "PATH",
        "PWD",
        "TMPDIR",
        "TMP",
        "TEMP",
        "_KFP_RUNTIME",  # with it kfp imports less; what is imported already does no harm
    }
)
_BLAS_SETTERS = (
    "scipy_openblas_set_num_threads64_",
    "scipy_openblas_set_num_threads",
    "openblas_set_num_threads64_",
    "openblas_set_num_threads",
)
_GLOO_THREAD = "pt_gloo_runloop"
_SETTLE_STEP_SECONDS = 0.002
_SETTLE_SECONDS = 0.2
_blas_setters: list[Callable[[int], object]] = []


@dataclass(frozen=True, slots=True, kw_only=True)
class Preload:
    """What came of importing a layer's modules."""

    skipped: dict[str, str]
    """Modules that could not be imported, and why."""
    seconds: float


def preload(names: Iterable[str]) -> Preload:
    """Import `names` one after the other; one that fails is skipped."""
    started = time.perf_counter()
    skipped = {}
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:  # noqa: BLE001  # a broken package costs its warmth, no more
            skipped[name] = f"{type(error).__name__}: {error}"
    _blas_setters[:] = _find_blas_setters()
    _forget_exit_work()
    _settle_before_destroying_groups()
    return Preload(skipped=skipped, seconds=time.perf_counter() - started)


@contextmanager
def recording_env_reads() -> Iterator[dict[str, str | None]]:
    """Note each variable that is looked up in `os.environ`, and what was found."""
    reads: dict[str, str | None] = {}

    class Recorder(os._Environ[str]):  # noqa: SLF001  # the type of `os.environ`
        def __getitem__(self, key: str) -> str:
            if key not in _RENEWED:
                reads.setdefault(key, self._peek(key))
            return super().__getitem__(key)

        def __contains__(self, key: object) -> bool:
            if isinstance(key, str) and key not in _RENEWED:
                reads.setdefault(key, self._peek(key))
            return super().__contains__(key)

        def _peek(self, key: str) -> str | None:
            value = os.environb.get(os.fsencode(key))
            return None if value is None else os.fsdecode(value)

    original = type(os.environ)
    os.environ.__class__ = Recorder
    try:
        yield reads
    finally:
        os.environ.__class__ = original


def list_sources() -> dict[str, int]:
    """Modification times that change when an imported module's code does.

    Folders of installed packages count as one (installing changes them); files elsewhere, such as
    those of an editable install, count each.
    """
    packages = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    packages |= {path for path in sys.path if path.endswith(("site-packages", "dist-packages"))}
    installed = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), *packages}
    files = {
        path
        for module in list(sys.modules.values())
        if (path := getattr(module, "__file__", None)) and path.endswith(".py")
    }
    outside = {path for path in files if not path.startswith(tuple(installed))}
    sources = {}
    for path in outside | packages:
        if (modified := _modified(path)) is not None:
            sources[path] = modified
    return sources


def is_current(sources: Mapping[str, int]) -> bool:
    """Whether nothing that `list_sources` found has changed since."""
    return all(_modified(path) == modified for path, modified in sources.items())


def _modified(path: str) -> int | None:
    try:
        return os.stat(path).st_mtime_ns  # noqa: PTH116  # a Path costs more than the call
    except OSError:
        return None


def refresh(env: Mapping[str, str]) -> None:
    """In a forked child: renew what the imported modules took from their surroundings."""
    time.tzset()
    logging._startTime = time.time()  # type: ignore[attr-defined]  # noqa: SLF001
    _renew("tempfile", "tempdir", None)
    _renew("multiprocessing.process", "ORIGINAL_DIR", str(Path.cwd()))
    if process := sys.modules.get("multiprocessing.process"):
        process.current_process().authkey = os.urandom(32)
    kube_config = env.get("KUBECONFIG", "~/.kube/config")
    _renew("kubernetes.config.kube_config", "KUBE_CONFIG_DEFAULT_LOCATION", kube_config)
    if "KATIB_TRIAL_NAME" in env:  # as `shims/sitecustomize.py` does in a new interpreter
        _renew("kubeflow.katib.utils.utils", "get_current_k8s_namespace", lambda: "default")
    if random := sys.modules.get("numpy.random"):
        random.seed()
    if torch := sys.modules.get("torch"):
        torch.default_generator.seed()
        num_threads = read_thread_limit(env, "OMP_NUM_THREADS")
        if num_threads is not None and num_threads < torch.get_num_threads():
            torch.set_num_threads(num_threads)
    num_blas_threads = read_thread_limit(env, "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")
    for set_num_threads in _blas_setters:
        set_num_threads(num_blas_threads or linux.count_cpus())


def _renew(module: str, attribute: str, value: object) -> None:
    if imported := sys.modules.get(module):
        setattr(imported, attribute, value)


def _forget_exit_work() -> None:
    """Leave what must be done once, and only for the imports' own sake, to the warm parent."""
    for finalizer in list(weakref.finalize._registry):  # type: ignore[attr-defined]  # noqa: SLF001  # no public list
        finalizer.atexit = False  # torch alone has thousands, and takes 0.1 s over them
    if dynamo := sys.modules.get("torch._dynamo.utils"):
        atexit.unregister(dynamo.dump_compile_times)


def _settle_before_destroying_groups() -> None:
    """Keep `destroy_process_group` from hanging.

    A thread of Gloo's drops the last collective, for which it may need the interpreter's lock,
    while the group's destructor holds that lock and waits for the thread (torch 2.13). Forks come
    to their end so soon after their last step that this is the rule. Letting go of the lock until
    those threads sleep is enough.
    """
    distributed = sys.modules.get("torch.distributed.distributed_c10d")
    if distributed is None or hasattr(distributed.destroy_process_group, "__wrapped__"):
        return
    destroy = distributed.destroy_process_group

    @functools.wraps(destroy)
    def settle_and_destroy(group: object = None) -> None:
        deadline = time.monotonic() + _SETTLE_SECONDS
        time.sleep(_SETTLE_STEP_SECONDS)
        while linux.is_thread_busy(_GLOO_THREAD) and time.monotonic() < deadline:
            time.sleep(_SETTLE_STEP_SECONDS)
        destroy(group)

    _renew("torch.distributed.distributed_c10d", "destroy_process_group", settle_and_destroy)
    _renew("torch.distributed", "destroy_process_group", settle_and_destroy)


def _find_blas_setters() -> list[Callable[[int], object]]:
    """NumPy's and SciPy's own OpenBLAS, loaded with one thread so that forking stays safe."""
    try:
        maps = Path("/proc/self/maps").read_text("utf-8")
    except OSError:
        return []
    paths = {line.split(maxsplit=5)[5] for line in maps.splitlines() if "openblas" in line}
    setters: list[Callable[[int], object]] = []
    for path in sorted(paths):
        library = ctypes.CDLL(path)
        setters += [getattr(library, name) for name in _BLAS_SETTERS if hasattr(library, name)][:1]
    return setters
