#!/usr/bin/env bash
# Builds the container image `relapse`: the program and the scenarios it carries, for replays in labs.
#
# usage: scripts/image.sh [--try]
#
# RELAPSE_BINARY names a program that is built already; otherwise it is built here. The base is debian:bookworm-slim
# where a registry answers, otherwise the Debian base of the kind images, made with debootstrap. With --try, incidents
# are replayed in both ways in which Dockerfile says that the image runs.
set -euo pipefail
here=$(dirname "$(realpath "$0")")
# shellcheck source=scripts/kind-common.sh
. "$here/kind-common.sh"
cd "$here/.."

IMAGE=relapse
OFFICIAL_BASE=debian:bookworm-slim

binary=${RELAPSE_BINARY:-}
if [ -z "$binary" ]; then
    step "the program"
    cargo build --release --quiet --package relapse --no-default-features
    binary=${CARGO_TARGET_DIR:-target}/release/relapse
fi

base=$OFFICIAL_BASE
if ! present "$base" && { present "$BASE" || ! pull "$base"; }; then
    debian_base
    base=$BASE
fi

step "image $IMAGE from $base"
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
cp "$binary" "$context/relapse"
quietly docker build --tag "$IMAGE" --file Dockerfile --build-arg "BASE=$base" --build-arg BINARY=relapse "$context"

[ "${1:-}" = --try ] || exit 0
step "replays in a privileged container"
docker run --rm --privileged "$IMAGE" run --require netns policy-route-lost mss-clamp-raised
step "replays in a container with the capabilities that labs need"
docker run --rm --cap-add SYS_ADMIN --cap-add NET_ADMIN --security-opt seccomp=unconfined \
    --security-opt systempaths=unconfined --security-opt apparmor=unconfined "$IMAGE" run --require netns policy-route-lost
