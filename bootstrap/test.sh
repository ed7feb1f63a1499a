#!/usr/bin/env bash
# Sets the tests up and runs them: formatting, linting, types, then pytest on every supported Python that is to be had.
#
#   bootstrap/test.sh [pytest arguments]     --full adds the long tests
#
# VENV names the environment (default .venv). Exit code 0 only if everything passed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. bootstrap/environment.sh
export OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1

python=$(find_python)
make_environment "${VENV:-.venv}" "$python" -e ".[test,lint,digits]"
main=$BIN
own=$("$main/python" -c 'import sys; print(sys.version_info[1])')

say "ruff"
"$main/ruff" check .
"$main/ruff" format --check .
say "mypy"
"$main/mypy"

# The other Pythons run everything but what needs torch or scikit-learn (those tests skip themselves).
for minor in 11 12 13; do
    [ "$minor" != "$own" ] || continue
    if ! python=$(find_python "$minor"); then
        say "Python 3.$minor is not to be had here: not tested"
        continue
    fi
    make_environment ".venv-3.$minor" "$python" -e ".[digits]" pytest hypothesis duckdb psutil
    say "pytest on Python 3.$minor"
    "$BIN/python" -m pytest -q tests
done

say "pytest on Python 3.$own"
"$main/python" -m pytest "$@"
