#!/usr/bin/env bash
# Builds the Debian package: `tierdav`, `trace-replay`, and what the programs write about themselves, manual pages and
# completions. Those are made by the programs just built, so they must run on this machine.
#
#   deploy/debian/build.sh                        target/debian/tierdav_VERSION-1_ARCHITECTURE.deb
#   deploy/debian/build.sh --deb-revision 2       options are those of `cargo deb`
#   FEATURES= deploy/debian/build.sh              without Ceph pools, on a machine without librados
#   PROFILE=dev deploy/debian/build.sh            a quick build, for tests
set -euo pipefail
cd "$(dirname "$0")/../.."
profile=${PROFILE:-release} features=${FEATURES-rados}
built=${CARGO_TARGET_DIR:-target}/${profile/#dev/debug}

# At once, so that the dependencies of both are built once.
cargo build --quiet --locked --profile "$profile" --workspace --bin tierdav --bin trace-replay \
    --features "${features:+gateway/$features,trace-replay/$features}"

# Beside the programs: cargo-deb looks for whatever was built there, whichever directory that is.
pages=$built/package
rm -rf "$pages"
mkdir -p "$pages"/{man,bash,zsh,fish}
for program in tierdav trace-replay; do
    "$built/$program" man "$pages/man"
    "$built/$program" completions bash > "$pages/bash/$program"
    "$built/$program" completions zsh > "$pages/zsh/_$program"
    "$built/$program" completions fish > "$pages/fish/$program.fish"
done
# Without names and times in it, the same pages make the same package.
gzip -9n "$pages"/man/*.1

exec cargo deb --quiet --package gateway --profile "$profile" --no-build "$@"
