#!/usr/bin/env bash
# Compares the replacement algorithms with the Python package libcachesim 0.3.5 on traces made from seeds.
# Installs the package into a directory of its own; without network and package it says "not run".
set -euo pipefail
cd "$(dirname "$0")/../.."
venv="${XDG_CACHE_HOME:-$HOME/.cache}/tierdav/libcachesim-0.3.5"
if ! "$venv/bin/python" -c 'import libcachesim' 2>/dev/null; then
    python3 -m venv "$venv"
    if ! "$venv/bin/pip" install --quiet libcachesim==0.3.5; then
        if curl -sS --max-time 10 -o /dev/null https://pypi.org/simple/libcachesim/; then
            echo "libcachesim: pypi.org answers, but 0.3.5 cannot be installed into $venv" >&2
            exit 1
        fi
        echo "libcachesim: not run (no network, and the package is not installed)"
        exit 0
    fi
fi
# With the features of the other tests, so that it is built already.
TIERDAV_LIBCACHESIM="$venv/bin/python" cargo test --quiet --workspace --features "gateway/rados,trace-replay/rados" --test wheel
