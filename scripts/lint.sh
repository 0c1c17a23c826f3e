#!/usr/bin/env bash
# Lint and type-check. The root folder is the package `kubeloop`, so the tools get a tree that says
# so; in it `kserve/` has an `__init__.py`, without which the import linter does not see it.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$(realpath "${1:-.venv/bin}")
tree=build/lint
rm -rf "$tree" && mkdir -p "$tree/kubeloop"
git ls-files -co --exclude-standard -- '*.py' py.typed pyproject.toml | xargs cp --parents -t "$tree/kubeloop"
touch "$tree/kubeloop/kserve/__init__.py"

"$bin/ruff" check .
"$bin/ruff" format --check .
cd "$tree"
"$bin/mypy" --config-file kubeloop/pyproject.toml --cache-dir ../../.mypy_cache kubeloop
PYTHONPATH=. "$bin/lint-imports" --config kubeloop/pyproject.toml --cache-dir ../../.import_linter_cache
