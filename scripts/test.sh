#!/usr/bin/env bash
# The tests of `make test`: unit tests on the current set of packages, the whole loop on the pinned
# set, and last, with the summary that counts, all other tests on the pinned set.
#
# Tests start many processes on a busy machine. What fails there is run once more, alone, and in the
# open: a test that fails twice fails.
set -uo pipefail
cd "$(dirname "$0")/.."
status=0

run() {  # name, python, what goes to one process together, marker expression, folders
  local options=(-q -m "$4" -o "cache_dir=build/pytest/$1" "${@:5}")
  echo "== $1"
  "$2" -m pytest "${options[@]}" -n 2 --dist "$3" && return
  echo "== $1: what failed, once more and alone"
  "$2" -m pytest "${options[@]}" --last-failed --last-failed-no-failures none || status=1
}

rm -rf build/pytest
run "unit tests, constraints-current.txt" .venv-current/bin/python load "not loop and not pinned and not soak"
run "the whole loop, constraints.txt" .venv/bin/python loadfile "loop and not soak" tests/loop tests/notebooks
run "all other tests, constraints.txt" .venv/bin/python load "not loop and not soak"
exit $status
