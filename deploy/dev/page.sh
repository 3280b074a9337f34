#!/usr/bin/env bash
# The page of the admin listener and the listings of collections in headless Chromium.
# With TIERDAV_SHOTS=DIR, pictures of the pages are left there.
set -uo pipefail
. "$(dirname "$0")/lib.sh"
command -v chromium > /dev/null || { echo "chromium is missing: apt-get install chromium"; exit 1; }
build
mkdir "$WORK/root"
gateway_start --allow-anonymous --log-level warn --max-dirty-age 1s || exit 1
PYTHONPATH="$REPO/deploy/dev" python3 "$REPO/deploy/dev/page.py" "$ADMIN" "$URL" "$WORK/root" "$GATEWAY_PID" || exit 1
gateway_stop || exit 1
