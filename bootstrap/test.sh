#!/usr/bin/env bash
# Sets the tests up and runs them: linting, formatting, types, then pytest on every supported Python that is to be had.
#
#   bootstrap/test.sh [pytest arguments]     --full adds the long tests
#
# PYTHON names the interpreter (default: python3, or the newest supported one), VENV the environment (.venv).
# The Hadoop tests need Java 11 or 17 and Maven and are skipped without; with NNJOBS_REQUIRE_HADOOP=1 (or CI) they fail.
# Every check runs, whatever the others found; exit code 0 only if all passed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. bootstrap/environment.sh
export OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1

failed=()
check() {
    local name=$1
    shift
    say "$name"
    "$@" || failed+=("$name")
}

python=$(find_python)
make_environment "${VENV:-.venv}" "$python" requirements-torch.lock
main=$BIN
# What Kerberos needs is built with the system's library; its tests are skipped where there is none.
if command -v krb5-config >/dev/null; then
    "$main/python" -m pip install --quiet --require-hashes -r requirements-kerberos.lock ||
        say "requirements-kerberos.lock cannot be installed: the tests with Kerberos are skipped"
fi
own=$("$main/python" -c 'import sys; print(sys.version_info[1])')

check "ruff check" "$main/ruff" check .
check "ruff format" "$main/ruff" format --check .
check "mypy" "$main/mypy"

# The other Pythons run without torch, which weighs gigabytes, and a sample of the tests: the command line, the runners
# (mrjob needs help on 3.12 and 3.13), the driver, runs of earlier versions, the README. --full runs all that can differ.
sample=(tests/jobs/{batch,commands,console,driver,mapreduce,runners} tests/nnlib/{aggregation,config,core,run}
    tests/product/test_{earlier_runs,readme}.py)
if [[ " $* " == *" --full "* ]]; then
    sample=(tests --ignore=tests/product/test_benchmarks.py --ignore=tests/product/test_dependencies.py
        --ignore=tests/product/test_fuzz_sample.py --ignore=tests/nnlib/report --ignore=tests/integration)
fi
for minor in 11 12 13; do
    [ "$minor" != "$own" ] || continue
    if python=$(find_python "$minor"); then
        make_environment ".venv-3.$minor" "$python" requirements-test.lock
        check "pytest on Python 3.$minor" "$BIN/python" -m pytest -q "${sample[@]}"
    else
        say "Python 3.$minor is not to be had here: not tested"
    fi
done

check "pytest on Python 3.$own" "$main/python" -m pytest "$@"
[ ${#failed[@]} -eq 0 ] || fail "not passed: $(printf '%s; ' "${failed[@]}")"
