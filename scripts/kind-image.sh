#!/usr/bin/env bash
# Builds a kind node image without any registry: Kubernetes, etcd and CoreDNS from their Go modules, the
# rest from Debian's packages, and kind's own files from kind's module. About eight minutes on two cores
# from nothing, half a minute when only images are made again.
#
#   kind-image.sh            build it, unless it is up to date
#   kind-image.sh --check    status 0: it is up to date
set -euo pipefail
recipe_file=$(realpath "$0")
# shellcheck source=scripts/kind-common.sh
. "${recipe_file%/*}/kind-common.sh"

commands=(kubelet kubeadm kubectl kube-apiserver kube-controller-manager kube-scheduler kube-proxy)

recipe=$(printf '%s\n' "$KUBERNETES $ETCD_TAG $ETCD $COREDNS $PAUSE $KIND $(base_recipe)" | cat - "$recipe_file" | fingerprint)
up_to_date() { [ "$(built_from "$OWN_NODE")" = "$recipe" ]; }
if [ "${1:-}" = --check ]; then
    up_to_date && exit 0
    exit 1
fi
if up_to_date; then
    step "$OWN_NODE is up to date"
    exit 0
fi

need_go
cd "$CACHE"
need_space "$CACHE" "the cache"

# The folder of a Go module, downloaded.
module() { go mod download -json "$1" | sed -n 's/^[[:space:]]*"Dir": "\(.*\)",*$/\1/p'; }

# Packages of a module that cannot be installed by `go install` (its go.mod has replace directives) are
# built from a module of our own that names them: own_module FOLDER PACKAGE... with go.mod's lines on
# standard input.
own_module() {
    local folder=$1 package
    mkdir -p "$folder"
    { printf 'module relapse.test/%s\n\ngo 1.24.0\n\n' "$folder" && cat; } >"$folder/go.mod"
    {
        printf '//go:build tools\n\npackage tools\n\nimport (\n'
        for package in "${@:2}"; do printf '\t_ "%s"\n' "$package"; done
        printf ')\n'
    } >"$folder/tools.go"
    quietly go -C "$folder" mod tidy -e
}

# One binary, by way of a new name, so that what is there is whole: build FOLDER PACKAGE BINARY FLAGS
build() {
    quietly go -C "$1" build -trimpath -ldflags "-s -w $4" -o "$CACHE/bin/$3.new" "$2"
    mv "bin/$3.new" "bin/$3"
}

# --- binaries, each kept by its version

step "Kubernetes $KUBERNETES, its source"
kubernetes=$(module "k8s.io/kubernetes@v$KUBERNETES")
missing=()
for c in "${commands[@]}"; do [ -x "bin/$c-$KUBERNETES" ] || missing+=("$c"); done
if [ ${#missing[@]} -gt 0 ]; then
    # Kubernetes replaces its staging repositories by paths; they are published under the same minor.
    {
        printf 'require k8s.io/kubernetes v%s\n\nreplace (\n' "$KUBERNETES"
        sed -n 's#^[[:space:]]*\(k8s.io/[^ ]*\) => ./staging.*#\1#p' "$kubernetes/go.mod" |
            while read -r staging; do printf '\t%s => %s v0.%s\n' "$staging" "$staging" "${KUBERNETES#1.}"; done
        printf ')\n'
    } | own_module kubernetes "${commands[@]/#/k8s.io/kubernetes/cmd/}"
    minor=${KUBERNETES#1.}
    component=k8s.io/component-base/version
    version="-X $component.gitVersion=v$KUBERNETES -X $component.gitMajor=1 -X $component.gitMinor=${minor%.*}"
    version+=" -X $component.gitTreeState=clean -X k8s.io/client-go/pkg/version.gitVersion=v$KUBERNETES"
    for c in "${missing[@]}"; do
        step "Kubernetes $KUBERNETES, $c"
        build kubernetes "k8s.io/kubernetes/cmd/$c" "$c-$KUBERNETES" "$version"
    done
fi

if [ ! -x "bin/etcd-$ETCD" ]; then
    step "etcd $ETCD"
    printf 'require go.etcd.io/etcd/server/v3 v%s\n' "$ETCD" | own_module etcd go.etcd.io/etcd/server/v3
    build etcd go.etcd.io/etcd/server/v3 "etcd-$ETCD" ""
fi

if [ ! -x "bin/coredns-$COREDNS" ]; then
    step "CoreDNS $COREDNS"
    GOBIN=$CACHE/bin quietly go install -trimpath -ldflags '-s -w' "github.com/coredns/coredns@v$COREDNS"
    mv bin/coredns "bin/coredns-$COREDNS"
fi

if [ ! -x "bin/pause-$PAUSE" ]; then
    step "pause $PAUSE"
    cc -Os -s -static -DVERSION="$PAUSE" -o bin/pause.new "$kubernetes/build/pause/linux/pause.c" ||
        fail "A C compiler with a static C library is needed (Debian: gcc libc6-dev; Fedora: gcc glibc-static)."
    mv bin/pause.new "bin/pause-$PAUSE"
fi

step "kind $KIND, its files"
kind_module=$(module "sigs.k8s.io/kind@v$KIND")

# --- images

debian_base

builder=relapse-node-build-$$
root=$CACHE/root-$$
images=$CACHE/images-$$.tar
components=()
cleanup() {
    docker rm -f -v "$builder" >/dev/null 2>&1 || true
    docker image rm "${components[@]}" >/dev/null 2>&1 || true
    rm -rf "$root" "$images"
}
trap cleanup EXIT

step "component images"
# An image that is one program: component NAME:TAG BINARY PATH. On this machine it has a name of ours, lest
# it take that of an image that is here; in the node it gets its own.
component() {
    mkdir -p "$root/${3%/*}"
    cp "bin/$2" "$root/$3"
    components+=("relapse-build/$1")
    import "relapse-build/$1" "$root" "ENTRYPOINT [\"$3\"]"
    rm -rf "$root"
}
for c in kube-apiserver kube-controller-manager kube-scheduler; do
    component "$c:v$KUBERNETES" "$c-$KUBERNETES" "/usr/local/bin/$c"
done
component "etcd:$ETCD_TAG" "etcd-$ETCD" /usr/local/bin/etcd
component "coredns/coredns:v$COREDNS" "coredns-$COREDNS" /coredns
component "pause:$PAUSE" "pause-$PAUSE" /pause
# kube-proxy calls iptables, nft and conntrack.
mkdir -p "$root"
docker run --rm --network none "$BASE" bash -euc "$COLLECT"'
    collect /usr/sbin/{iptables,ip6tables}{,-save,-restore} /usr/sbin/nft /usr/sbin/conntrack \
        /usr/lib/*-linux-gnu/xtables /etc/protocols /etc/services' | tar -C "$root" -x
mkdir -p "$root/run"
component "kube-proxy:v$KUBERNETES" "kube-proxy-$KUBERNETES" /usr/local/bin/kube-proxy
docker save -o "$images" "${components[@]}"

step "node image"
docker run -d --name "$builder" --entrypoint sleep --stop-signal SIGRTMIN+3 --security-opt seccomp=unconfined \
    "$BASE" infinity >/dev/null
inside() { docker exec -i "$builder" "$@"; }
tar -C "$kind_module/images/base/files" --owner=0 --group=0 --mode=u+w -c usr/local/bin kind etc |
    inside tar -C / --no-overwrite-dir -x
for c in kubelet kubeadm kubectl; do docker cp -q "bin/$c-$KUBERNETES" "$builder:/usr/bin/$c"; done
inside env KUBERNETES="$KUBERNETES" PAUSE="$PAUSE" bash -eu <<'IN'
chmod 755 /kind /kind/bin /kind/bin/* /usr/local/bin/* /usr/bin/kube*
# Only what a node wants is started.
rm -f /lib/systemd/system/sysinit.target.wants/systemd-tmpfiles-setup.service \
    /lib/systemd/system/{multi-user,local-fs,basic}.target.wants/* /etc/systemd/system/*.wants/* \
    /lib/systemd/system/sockets.target.wants/*{udev,initctl}*
systemctl --quiet enable kubelet.service containerd.service undo-mount-hacks.service
systemctl --quiet mask systemd-binfmt.service
echo ReadKMsg=no >>/etc/systemd/journald.conf
# Where kind expects things.
ln -sf /usr/bin/containerd /usr/bin/ctr /usr/local/bin/
ln -sf /usr/sbin/runc /usr/local/sbin/runc
mkdir -p /opt/cni /etc/kubernetes/manifests /kind/manifests
ln -s /usr/lib/cni /opt/cni/bin
printf 'v%s' "$KUBERNETES" >/kind/version
# Without CAP_SYS_RESOURCE nobody may lower an oom score, nor raise a limit.
mkdir -p /etc/systemd/system/containerd.service.d
printf '[Service]\nOOMScoreAdjust=0\n' >/etc/systemd/system/containerd.service.d/20-oom.conf
sed -i "s/restrict_oom_score_adj = false/restrict_oom_score_adj = true/; s#/pause:[0-9.]*\"#/pause:$PAUSE\"#" \
    /etc/containerd/config.toml
ctr oci spec |
    jq '.hooks.createContainer += [{"path": "/kind/bin/mount-product-files.sh"}] | del(.process.rlimits)' \
        >/etc/containerd/cri-base.json
IN

# The images go into the node's containerd, which runs for that long.
# shellcheck disable=SC2016  # the shell inside expands it
inside bash -euc '
    containerd >/var/log/build.log 2>&1 & daemon=$!
    for try in {1..100}; do
        ctr version >/dev/null 2>&1 && break
        [ $try -lt 100 ] || { cat /var/log/build.log >&2; exit 1; }
        sleep 0.1
    done
    ctr -n k8s.io images import --all-platforms --no-unpack - >/dev/null
    for image in $(ctr -n k8s.io images ls -q | grep ^docker.io/relapse-build/); do
        ctr -n k8s.io images tag "$image" "registry.k8s.io/${image#docker.io/relapse-build/}"
        ctr -n k8s.io images rm "$image"
    done >/dev/null
    ctr -n k8s.io images ls -q | sort >/tmp/have
    kill $daemon; wait $daemon || true
    rm -f /var/log/build.log' <"$images"
wanted=$(inside kubeadm config images list --kubernetes-version "v$KUBERNETES" | sort)
lacking=$(comm -23 <(printf '%s\n' "$wanted") <(inside cat /tmp/have))
[ -z "$lacking" ] || fail "kubeadm wants images that the node image does not have:" "$lacking"
inside rm /tmp/have

old=$(docker image inspect --format '{{.Id}}' "$OWN_NODE" 2>/dev/null || true)
docker commit --change 'ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]' --change 'ENV container docker' \
    --change "LABEL relapse.recipe=$recipe" "$builder" "$OWN_NODE" >/dev/null
# The one before takes a gigabyte; where a cluster still runs on it, Docker keeps it.
[ -z "$old" ] || docker image rm "$old" >/dev/null 2>&1 || true
step "$OWN_NODE is built"
