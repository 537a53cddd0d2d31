# shellcheck shell=bash disable=SC2034,SC2016
# Shared by kind.sh, kind-image.sh, kind-nginx.sh, kind-mariadb.sh and image.sh: versions, names, and the Debian base
# of images that are built here. Only sourced.

# The last minor of Kubernetes that starts on hosts with cgroup v1 without further settings.
KUBERNETES=1.34.4
ETCD=3.6.5
ETCD_TAG=3.6.5-0
COREDNS=1.12.1
PAUSE=3.10.1
KIND=0.33.0
# The first release of kind for this minor.
KIND_OLDEST=0.30.0

# Images for kind 0.33.0, by digest, from its release notes.
OFFICIAL_NODE=kindest/node:v1.34.11@sha256:44e222ee2132dab25ff87301682f89eb82c7880ea3a1bf543bfe9708fd08d67d
OFFICIAL_NGINX=nginx:stable
OFFICIAL_MARIADB=mariadb:lts
OWN_NODE=relapse/kind-node:v$KUBERNETES
OWN_NGINX=relapse/nginx:bookworm
OWN_MARIADB=relapse/mariadb:bookworm
BASE=relapse/node-debian:bookworm

BASE_PACKAGES=systemd,systemd-sysv,dbus,libseccomp2,conntrack,iptables,nftables,iproute2,ethtool,socat,kmod,procps
BASE_PACKAGES+=,hostname,ca-certificates,curl,jq,containerd,runc,containernetworking-plugins,iputils-ping,tcpdump

CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/relapse/kind-node
mkdir -p "$CACHE/bin"

# Ignore the user's Go flags and workspace.
export CGO_ENABLED=0 GOFLAGS=-buildvcs=false GOWORK=off

step() { printf '== %s (%d s)\n' "$*" "$SECONDS"; }

fail() {
    printf '%s\n' "$@" >&2
    exit 1
}

# Runs a command with verbose output, which is shown only if it fails.
quietly() {
    local log=$CACHE/log
    "$@" >"$log" 2>&1 || {
        cat "$log" >&2
        fail "failed to run: $*"
    }
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

present() { docker image inspect "$1" >/dev/null 2>&1; }

# pull IMAGE: fails with a message if no registry starts to answer within 20 seconds.
pull() {
    local line client
    step "$1, from a registry"
    exec {output}< <(exec docker pull "$1" 2>&1)
    client=$!
    if ! read -r -t 20 -u "$output" line; then
        kill "$client" 2>/dev/null || true
        line="no answer within 20 seconds"
    fi
    { printf '%s\n' "$line" && cat <&"$output"; } | sed 's/^/   /'
    exec {output}<&-
    wait "$client"
}

# Each image built here has a label with the fingerprint of its versions and recipe.
fingerprint() { sha256sum | cut -c 1-16; }
built_from() { docker image inspect --format '{{index .Config.Labels "relapse.recipe"}}' "$1" 2>/dev/null; }

# Makes an image of the folder ROOT: import NAME ROOT CHANGE...
import() {
    local name=$1 root=$2 change changes=()
    for change in "${@:3}"; do changes+=(--change "$change"); done
    tar -C "$root" --owner=0 --group=0 -c . | docker import "${changes[@]}" - "$name" >/dev/null
}

# For a shell in the Debian base: copies files and the libraries they load to /r, and writes a tar archive of it.
COLLECT='collect() {
    for file in "$@"; do mkdir -p "/r${file%/*}"; cp -rL "$file" "/r$file"; done
    for library in $(find /r -type f -exec ldd {} + 2>/dev/null | grep -o "/[^ ]* (0x" | cut -d " " -f 1 | sort -u); do
        mkdir -p "/r${library%/*}"; cp -L "$library" "/r$library"
    done
    tar -C /r -c .
}'

# need_space FOLDER NAME: requires four gigabytes of free space in FOLDER. Not checked if the folder is not visible,
# as with Docker in a virtual machine.
need_space() {
    local free
    free=$(df -Pk "$1" 2>/dev/null | awk 'NR == 2 { print $4 }') || return 0
    [ -n "$free" ] || return 0
    [ "$free" -ge $((4 * 1024 * 1024)) ] ||
        fail "$2 ($1) has $((free / 1024)) MB left; 4 GB are needed." "Make room there and try again; \`docker system df\` shows what Docker holds."
}

need_go() {
    command -v go >/dev/null ||
        fail "Without a registry a node image is built from Go modules, and Go is not installed:" \
            "    Go 1.24 or later: https://go.dev/dl"
}

need_debootstrap() {
    command -v debootstrap >/dev/null && return
    # Debian installs it in a folder that is not in an ordinary user's PATH.
    PATH=$PATH:/usr/sbin:/sbin
    command -v debootstrap >/dev/null && return
    command -v apt-get >/dev/null ||
        fail "debootstrap is needed to build images without a registry; install it from your distribution."
    step "debootstrap is missing: apt-get update && apt-get install -y debootstrap"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends debootstrap >/dev/null
}

# Debian with the packages of a node. The images of nginx and MariaDB are made from it, too.
base_recipe() { printf 'bookworm %s' "$BASE_PACKAGES" | fingerprint; }
debian_base() {
    [ "$(built_from "$BASE")" != "$(base_recipe)" ] || return 0
    need_debootstrap
    step "Debian base, about a minute"
    local root=$CACHE/rootfs
    as_root rm -rf --one-file-system "$root"
    quietly as_root debootstrap --variant=minbase --include="$BASE_PACKAGES" bookworm "$root"
    as_root tar -C "$root" --exclude='./var/cache/apt/archives/*.deb' --exclude='./var/lib/apt/lists/*' \
        --exclude='./usr/share/doc/*' --exclude='./usr/share/man/*' --exclude='./usr/share/locale/*' -c . |
        docker import --change "LABEL relapse.recipe=$(base_recipe)" - "$BASE" >/dev/null
    as_root rm -rf --one-file-system "$root"
}
