# Functions that quickstart.sh and test.sh share: messages, finding a Python, making an environment.
# shellcheck shell=bash

say() { printf '==> %s\n' "$*" >&2; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

# is_python COMMAND [MINOR]: whether a command starts a supported Python (of that minor version) that can make venvs.
# A pyenv shim exists for versions that are not selected, so being on PATH proves nothing: it must run.
is_python() {
    "$1" - "${2:-}" >/dev/null 2>&1 <<'PROBE'
import ensurepip, sys, venv
minor = sys.version_info[1]
sys.exit(not (sys.version_info[0] == 3 and 11 <= minor <= 13 and sys.argv[1] in ("", str(minor))))
PROBE
}

# find_python [MINOR]: prints a supported Python: that of PYTHON if it is set and no minor version is asked for, else
# the first that runs of python3 and python3.MINOR on PATH and those of pyenv.
find_python() {
    local wanted=${1:-} minor candidate
    if [ -z "$wanted" ] && [ -n "${PYTHON:-}" ]; then
        is_python "$PYTHON" || fail "PYTHON=$PYTHON is no Python 3.11, 3.12 or 3.13 with venv and ensurepip"
        printf '%s\n' "$PYTHON"
        return
    fi
    for candidate in python3 $(for minor in ${wanted:-13 12 11}; do
        printf '%s ' "python3.$minor" "${PYENV_ROOT:-$HOME/.pyenv}/versions/3.$minor."*/bin/python
    done); do
        if command -v "$candidate" >/dev/null && is_python "$candidate" "$wanted"; then
            command -v "$candidate"
            return
        fi
    done
    [ -z "$wanted" ] || return 1
    say "no Python 3.11, 3.12 or 3.13 with venv was found"
    say "install one (Debian, Ubuntu: apt install python3 python3-venv; macOS: brew install python@3.13)"
    fail "or name one: PYTHON=/path/to/python3 $0"
}

# make_environment DIRECTORY PYTHON LOCK: makes or updates a virtual environment and sets BIN to its programs.
# Every package has the version and one of the hashes that LOCK names (see lock.sh). The project itself is installed in
# place (editable): a change needs no new installation.
make_environment() {
    local directory=$1 python=$2 lock=$3
    if [ -x "$directory/bin/python" ] && ! is_python "$directory/bin/python"; then
        fail "$directory holds no working Python 3.11, 3.12 or 3.13: remove it, or set VENV to another directory"
    fi
    if [ ! -x "$directory/bin/python" ]; then
        say "making $directory with $("$python" --version) ($python)"
        "$python" -m venv "$directory" || fail "cannot make a virtual environment in $directory"
    fi
    BIN=$(cd "$directory/bin" && pwd)
    local pip=("$BIN/python" -m pip install --quiet --disable-pip-version-check)
    say "installing $lock into $directory"
    # uv installs large packages several times faster; pip does the same where uv cannot be had or knows less (a package
    # index set in pip's own configuration).
    if ! { "${pip[@]}" --require-hashes -r requirements-uv.lock >/dev/null 2>&1 &&
        "$BIN/python" -m uv pip install --quiet --python "$BIN/python" --require-hashes -r "$lock"; }; then
        "${pip[@]}" --require-hashes -r "$lock" ||
            fail "the installation failed: is the package index reachable, and is there room on the disk?"
    fi
    # setuptools, which builds nnjobs, is locked with the rest: nothing is fetched here.
    "${pip[@]}" --no-deps --no-build-isolation -e . || fail "nnjobs itself could not be installed"
}
