"""Has `report_metrics` of Katib's SDK work in a pod that shares the host's files.

To name the trial's namespace should an error come up, the SDK reads the file of a service account
that every pod of a cluster has mounted, at a path that is fixed in its code. Here it gets the
namespace of the plane's context instead. Python imports this module by its name as it starts;
programs that are forked from the warm parent are told in `preloaded.py`.
"""

import sys
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec, module_from_spec
from pathlib import Path

_SDK_MODULE = "kubeflow.katib.utils.utils"
_NAMESPACE = "default"


class _SdkFinder:
    """Finds the SDK's module as usual, and changes one function of it once it is imported."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        del path, target
        if name != _SDK_MODULE:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_change(module: object) -> None:
                execute(module)  # type: ignore[arg-type]  # a module
                vars(module)["get_current_k8s_namespace"] = lambda: _NAMESPACE

            spec.loader.exec_module = execute_and_change  # type: ignore[method-assign]  # of this module only
        return spec


def _run_hidden() -> None:
    """Run the environment's own module of this name, which this one hides."""
    here = Path(__file__).parent
    spec = PathFinder.find_spec("sitecustomize", [p for p in sys.path if Path(p) != here])
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(module_from_spec(spec))


sys.meta_path.insert(0, _SdkFinder())
_run_hidden()
