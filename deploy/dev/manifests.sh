#!/usr/bin/env bash
# Checks everything under deploy/ that a cluster, Prometheus or Grafana would read, without any of them: schemas, our own
# rules for pods, alerts, dashboards against a running gateway, the scripts that run in containers. The gateway has its
# content in a throwaway Ceph cluster (ceph.sh), unless TIERDAV_CEPH_DIR names one.
#
#   deploy/dev/manifests.sh           check
#   deploy/dev/manifests.sh --write   write the generated files anew: prometheusrule.yaml, dashboard.json, docs/metrics.md
set -uo pipefail
. "$(dirname "$0")/lib.sh"
build
TOOLS="${CARGO_TARGET_DIR:-$REPO/target}/manifests-tools"
if ! cmp -s "$REPO/deploy/dev/requirements.txt" "$TOOLS/requirements.txt"; then
    rm -rf "$TOOLS"
    python3 -m venv "$TOOLS" || exit 1
    "$TOOLS/bin/pip" install --quiet --disable-pip-version-check -r "$REPO/deploy/dev/requirements.txt" || exit 1
    cp "$REPO/deploy/dev/requirements.txt" "$TOOLS/"
fi
export PATH="$TOOLS/bin:$PATH" TIERDAV WORK
cd "$REPO" || exit 1

# A gateway that has everything that is measured: pools, TLS, shadows, reads and writes.
own_cluster
POOLS="manifests-$$"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 90 -subj /CN=localhost \
    -keyout "$WORK/tls.key" -out "$WORK/tls.crt" 2>/dev/null
gateway_start --tls-cert "$WORK/tls.crt" --tls-key "$WORK/tls.key" --shadow lru || exit 1
head -c 100000 /dev/urandom > "$WORK/file"
check "a gateway with TLS answers" curl -sfk -T "$WORK/file" "${URL}file" -o /dev/null
curl -sfk "${URL}file" | cmp - "$WORK/file" || exit 1
curl -sf "$ADMIN/.tierdav/metrics" > "$WORK/metrics" || exit 1

if [ "${1:-}" = --write ]; then
    python3 deploy/dev/monitoring.py "$WORK/metrics"
    gateway_stop
    exit
fi
export ADMIN
python3 deploy/dev/manifests.py || exit 1
gateway_stop || exit 1
