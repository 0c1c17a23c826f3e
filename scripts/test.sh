#!/usr/bin/env bash
# The tests of `make test`: unit tests on the current set of packages, then everything on the
# pinned set, whose summary comes last. Tests marked `loop` run alone, they use both cores.
set -uo pipefail
cd "$(dirname "$0")/.."
status=0
echo "== unit tests, constraints-current.txt"
.venv-current/bin/python -m pytest -q -n 2 -m "not loop and not pinned" || status=1
echo "== tests marked loop, constraints.txt"
.venv/bin/python -m pytest -q -m loop || status=1
echo "== tests, constraints.txt"
.venv/bin/python -m pytest -q -n 2 -m "not loop" || status=1
exit $status
