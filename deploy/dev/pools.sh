#!/usr/bin/env bash
# Content in the pools of a real Ceph cluster (TIERDAV_CEPH_DIR, see ceph.sh): litmus, and davfs2 mounts with checksums,
# restarts and kills of the gateway. Tests of single failures are gateway/tests/pools.rs and crash.rs.
set -euo pipefail
cd "$(dirname "$0")"
[ -e "${TIERDAV_CEPH_DIR:?needs a cluster: ./ceph.sh up, then eval "\$(./ceph.sh env)"}/ceph.conf" ]

POOLS="litmus-$$" ./litmus.sh
POOLS="davfs2-$$" LARGE_MIB=${LARGE_MIB:-512} FILES=${FILES:-500} ./davfs2.sh
