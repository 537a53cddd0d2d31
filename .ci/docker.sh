#!/usr/bin/env bash
# Starts a Docker engine on a CI machine: by systemd where it runs, by hand where no init system does.
# Installs Debian's where none is. Needs root; safe to run again, an engine that answers is left alone.
#
# Where the machine's capability bounding set lacks CAP_SYS_RESOURCE, runc refuses `--privileged`
# containers: it does not grant what the caller does not have. There it is put behind a wrapper that takes
# this one capability out of what is asked for, at the start and at `docker exec --privileged`.
set -euo pipefail

say() { echo "docker: $*"; }
answers() { docker version --format '{{.Server.Version}}' 2>/dev/null; }

if version=$(answers); then
    say "engine $version is already running"
    exit 0
fi
[ "$(id -u)" = 0 ] || {
    echo "docker: only root can start an engine" >&2
    exit 1
}

for tool in docker dockerd jq iptables; do
    command -v "$tool" >/dev/null && continue
    say "$tool is missing: apt-get update && apt-get install -y docker.io jq iptables"
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
# runc, without CAP_SYS_RESOURCE: this machine does not have it to give.
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
# drop FILE PATH: out of every set of capabilities in FILE
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
    say "CAP_SYS_RESOURCE is missing here: runc is put behind $state/runc"
fi

# The process id in FILE is that of PROGRAM. After a crash it may be anyone's, or nobody's that was not reaped
# yet, and would keep an engine from starting.
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
    # A session of its own, and nothing held open of the caller's: neither its end nor its pipes wait for us.
    (
        cd /
        for descriptor in /proc/self/fd/*; do
            descriptor=${descriptor##*/}
            [ "$descriptor" -le 2 ] || eval "exec $descriptor>&-"
        done
        exec setsid nohup dockerd "${arguments[@]}" >"$log" 2>&1 </dev/null
    ) &
    started=$!
    # Whoever may want to stop it: it is ours, and nobody else's.
    echo "$started" >"$state/dockerd.pid"
fi

# Twenty seconds; an engine that has died is not waited for.
for _ in {1..100}; do
    if version=$(answers); then
        say "engine $version is running"
        exit 0
    fi
    [ -z "$started" ] || kill -0 "$started" 2>/dev/null || break
    sleep 0.2
done
[ ! -f "$log" ] || tail -n 20 "$log" >&2
echo "docker: the engine did not come up" >&2
exit 1
