#!/usr/bin/env bash
# Speed of `trace-replay simulate --plain` beside the Python package libcachesim 0.3.5 (its loop is C), in turns on one trace.
#
#   benches/libcachesim.sh [REQUESTS] [ROUNDS]
#
# The package is the one that deploy/dev/libcachesim.sh installs and compares results with.
set -euo pipefail
cd "$(dirname "$0")/.."
python="${XDG_CACHE_HOME:-$HOME/.cache}/tierdav/libcachesim-0.3.5/bin/python"
"$python" -c 'import libcachesim' 2>/dev/null || deploy/dev/libcachesim.sh
cargo build --quiet --release -p trace-replay
"$python" benches/libcachesim.py "${CARGO_TARGET_DIR:-target}/release/trace-replay" "$@"
