#!/usr/bin/env bash
# Starts a Docker engine on a CI machine, with systemd if it runs, otherwise directly.
# Installs Debian's docker.io if missing. Needs root; idempotent: a running engine is not touched.
#
# If the machine's capability bounding set lacks CAP_SYS_RESOURCE, runc refuses `--privileged`
# containers, because it cannot grant what it does not have. In that case runc is wrapped by a script that removes
# this capability from each request, on start and on `docker exec --privileged`.
set -euo pipefail

report() { echo "docker: $*"; }
answers() { docker version --format '{{.Server.Version}}' 2>/dev/null; }

if version=$(answers); then
    report "engine $version is already running"
    exit 0
fi
[ "$(id -u)" = 0 ] || {
    echo "docker: only root can start an engine" >&2
    exit 1
}

for tool in docker dockerd jq iptables; do
    command -v "$tool" >/dev/null && continue
    report "$tool is missing: apt-get update && apt-get install -y docker.io jq iptables"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends docker.io jq iptables >/dev/null
    break
done

state=/run/relapse-docker
log=$state/dockerd.log
mkdir -p "$state"
arguments=()
capability=24 # CAP_SYS_RESOURCE
bounding=$(awk '/^CapBnd:/ { print $2 }' /proc/self/status)
if (((0x$bounding >> capability & 1) == 0)); then
    cat >"$state/runc" <<'IN'
#!/bin/sh
# Runs runc without CAP_SYS_RESOURCE, which this machine cannot grant.
previous= bundle=. process= mode=
for argument in "$@"; do
    case $previous in
    --bundle | -b) bundle=$argument ;;
    --process | -p) process=$argument ;;
    esac
    case $argument in
    create | run | restore) mode=bundle ;;
    exec) mode=exec ;;
    esac
    previous=$argument
done
# drop FILE PATH: removes the capability from all sets under PATH in FILE
drop() {
    [ -f "$1" ] || return 0
    jq -c "($2 // {}) |= with_entries(.value -= [\"CAP_SYS_RESOURCE\"])" "$1" >"$1.new" &&
        cat "$1.new" >"$1" && rm -f "$1.new"
}
case $mode in
bundle) drop "$bundle/config.json" .process.capabilities ;;
exec) [ -z "$process" ] || drop "$process" .capabilities ;;
esac
exec runc "$@"
IN
    chmod 755 "$state/runc"
    name=runc-without-sys-resource
    printf '{"runtimes": {"%s": {"path": "%s/runc"}}, "default-runtime": "%s"}\n' "$name" "$state" "$name" >"$state/daemon.json"
    arguments=(--config-file "$state/daemon.json")
    report "CAP_SYS_RESOURCE is missing here: runc is wrapped by $state/runc"
fi

# runs FILE PROGRAM: whether the PID in FILE is that of PROGRAM. After a crash the file may contain the PID of
# another process or of a zombie, and would keep an engine from starting.
runs() {
    [ -f "$1" ] && awk -v name="$2" '
        /^Name:/ { named = $2 == name }
        /^State:/ { lives = $2 !~ /[ZX]/ }
        END { exit !(named && lives) }' "/proc/$(cat "$1")/status" 2>/dev/null
}
started=
if [ -d /run/systemd/system ] && [ ${#arguments[@]} = 0 ]; then
    systemctl start docker
elif ! runs /var/run/docker.pid dockerd; then
    rm -f /var/run/docker.pid
    runs /var/run/docker/containerd/containerd.pid containerd || rm -f /var/run/docker/containerd/containerd.pid
    # In a session of its own and without inherited descriptors, so that it is independent of the caller and its pipes.
    (
        cd /
        for descriptor in /proc/self/fd/*; do
            descriptor=${descriptor##*/}
            [ "$descriptor" -le 2 ] || eval "exec $descriptor>&-"
        done
        exec setsid nohup dockerd "${arguments[@]}" >"$log" 2>&1 </dev/null
    ) &
    started=$!
    # Marks the engine as started by this script, for tests that stop it.
    echo "$started" >"$state/dockerd.pid"
fi

# Wait up to twenty seconds, or until the engine has exited.
for _ in {1..100}; do
    if version=$(answers); then
        report "engine $version is running"
        exit 0
    fi
    [ -z "$started" ] || kill -0 "$started" 2>/dev/null || break
    sleep 0.2
done
[ ! -f "$log" ] || tail -n 20 "$log" >&2
echo "docker: the engine did not come up" >&2
exit 1
