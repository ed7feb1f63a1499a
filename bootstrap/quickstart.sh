#!/usr/bin/env bash
# Sets everything up and trains on 5000 handwritten digits with four workers. Can be run again at any time.
#
#   bootstrap/quickstart.sh
#
# PYTHON names the interpreter (default: python3, or the newest of python3.13, 3.12, 3.11), VENV the environment (.venv).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. bootstrap/environment.sh

python=$(find_python)
make_environment "${VENV:-.venv}" "$python" requirements.lock
say "ready: $("$BIN/nnjobs" --version)"

if [ -e datasets/digits/dataset.json ]; then
    say "the digits are in datasets/digits already"
else
    say "importing the digits into datasets/digits"
    "$BIN/nnjobs" data import digits -o datasets/digits --shards 8
fi

say "training: nnjobs train configs/digits.yaml"
"$BIN/nnjobs" train configs/digits.yaml
say "to have the command nnjobs at hand: source ${BIN#"$PWD"/}/activate"
