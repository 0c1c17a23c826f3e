#!/usr/bin/env bash
# Make the virtual environment of `make test` and `make demo`: kubeloop with all extras, pinned.
set -euo pipefail
python=${1:-python3.11} venv=${2:-.venv}
echo "Setting up $venv (a minute or two the first time)…"
"$python" -m venv --clear "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
"$venv/bin/pip" check
touch "$venv/.done"
