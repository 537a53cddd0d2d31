#!/usr/bin/env bash
# Sets up what `relapse run --backend kind` needs besides Docker: kind, a node image, and images of nginx and MariaDB
# for servers.
# Uses the official images if a registry answers; otherwise builds them from Debian's
# packages and Go modules. Takes seconds if everything exists.
#
# Starts no engine and does not change Docker's configuration. RELAPSE_KIND_IMAGE names another node
# image. The choices are stored in ~/.cache/relapse/kind-node, one file each: kind, image, nginx-image,
# mariadb-image.
set -euo pipefail
here=$(dirname "$(realpath "$0")")
# shellcheck source=scripts/kind-common.sh
. "$here/kind-common.sh"

docker_answers() {
    command -v docker >/dev/null ||
        fail "The kind backend runs its nodes in Docker, which is not installed:" \
            "    https://docs.docker.com/engine/install, or docker.io on Debian and Ubuntu."
    local output
    # Not `docker info --format`, which succeeds without an engine in some versions.
    output=$(timeout 20 docker version --format '{{.Server.Version}}' 2>&1) && return
    output=${output#$'\n'}
    case $output in
    *"permission denied"*)
        fail "Docker runs, but $(id -un) may not use it. Either become root, or join its group and log in again:" \
            "    sudo usermod -aG docker $(id -un)" \
            "(members of that group effectively have root access to this machine)" ;;
    esac
    fail "${output:-docker: no answer within 20 seconds}" "Docker is installed, but no engine answers. Start it and try again:" \
        "    sudo systemctl start docker"
}

kind_version() { "$1" version 2>/dev/null | sed -n 's/^kind v\{0,1\}\([0-9.]*\).*/\1/p'; }

find_kind() {
    local version
    if kind=$(command -v kind); then
        version=$(kind_version "$kind")
        printf '%s\n' "$KIND_OLDEST" "${version:-0}" | sort -V -C && return
        step "kind ${version:-of no known version} ($kind) is too old or unknown: $KIND_OLDEST or later is needed"
    fi
    kind=$CACHE/bin/kind
    [ "$(kind_version "$kind")" != "$KIND" ] || return 0
    command -v go >/dev/null ||
        fail "kind is not installed, and there is no Go to build it with. Install either:" \
            "    kind $KIND: https://github.com/kubernetes-sigs/kind/releases/tag/v$KIND, as \`kind\` on your PATH" \
            "    Go 1.24 or later: https://go.dev/dl"
    step "kind $KIND, by go install"
    GOBIN=$CACHE/bin/new quietly go install -trimpath "sigs.k8s.io/kind@v$KIND"
    mv "$CACHE/bin/new/kind" "$kind"
    rmdir "$CACHE/bin/new"
}

# choose OFFICIAL OWN BUILDER: sets `chosen` to the official image if present, otherwise to ours if up to date,
# otherwise pulls the official one, otherwise builds ours.
registry=true
choose() {
    chosen=$1
    present "$chosen" && return
    chosen=$2
    "$here/$3" --check && return
    need_space "$docker_folder" "Docker's storage"
    if $registry; then
        chosen=$1
        pull "$chosen" && return
        registry=false
        step "no registry provided it: building images here, which takes minutes the first time"
    fi
    chosen=$2
    "$here/$3"
}

docker_answers
docker_folder=$(docker info --format '{{.DockerRootDir}}')
exec {lock}>"$CACHE/lock"
flock --nonblock "$lock" || {
    step "waiting for another \`make kind\`"
    flock "$lock"
}

find_kind
if [ -n "${RELAPSE_KIND_IMAGE:-}" ]; then
    node=$RELAPSE_KIND_IMAGE
    present "$node" || pull "$node" ||
        fail "RELAPSE_KIND_IMAGE names $node, which is not here and cannot be pulled."
else
    choose "$OFFICIAL_NODE" "$OWN_NODE" kind-image.sh
    node=$chosen
fi
choose "$OFFICIAL_NGINX" "$OWN_NGINX" kind-nginx.sh
nginx=$chosen
choose "$OFFICIAL_MARIADB" "$OWN_MARIADB" kind-mariadb.sh
mariadb=$chosen

# Atomically, for concurrent readers.
note() {
    printf '%s\n' "$2" >"$CACHE/$1.new"
    mv "$CACHE/$1.new" "$CACHE/$1"
}
note kind "$kind"
note image "$node"
note nginx-image "$nginx"
note mariadb-image "$mariadb"

cat <<IN
kind           $(kind_version "$kind") ($kind)
node image     $node
nginx image    $nginx
MariaDB image  $mariadb
Next: relapse run --backend kind
IN
