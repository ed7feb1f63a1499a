#!/usr/bin/env bash
# Remakes the lock files: every package that setup.cfg asks for, in one version, with the hashes of its files.
#
#   bootstrap/lock.sh [uv options]     --upgrade takes the newest versions; else what is locked stays if it still fits
#
# requirements.lock         to run nnjobs, with all that it can use (its extras but kerberos, mlflow, torch and those of tests)
# requirements-test.lock    to test it: that, MLflow, and the test and lint tools
# requirements-torch.lock   to test it against torch, too, which weighs gigabytes
# requirements-kerberos.lock  what the extra kerberos adds; it is built from source, with the system's Kerberos library
# requirements-uv.lock      uv itself, which installs the others
#
# UV names the uv to use (default: uv). setuptools builds nnjobs itself: it is locked for every Python, so that nothing
# is installed unchecked.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# lock FILE SOURCE... [uv options]; "-" is standard input.
lock() {
    local file=$1
    shift
    "${UV:-uv}" pip compile "$@" --quiet --universal --python-version 3.11 --generate-hashes \
        --custom-compile-command bootstrap/lock.sh --output-file "$file"
}

run=("$@" --extra aws --extra digits --extra export --extra images --extra report --extra sklearn \
    --extra tensorboard --extra text)
test=("${run[@]}" --extra mlflow --extra test --extra lint)
build='setuptools >= 70.1'
lock requirements.lock setup.cfg - "${run[@]}" <<<"$build"
lock requirements-test.lock setup.cfg - "${test[@]}" --constraint requirements.lock <<<"$build"
lock requirements-torch.lock setup.cfg - "${test[@]}" --extra torch --constraint requirements-test.lock <<<"$build"
lock requirements-kerberos.lock - "$@" --constraint requirements-torch.lock <<<'requests-gssapi >= 1.3'
lock requirements-uv.lock - "$@" <<<'uv'
