#!/usr/bin/env bash
# Fetches promtool, a Prometheus and the exporters from Debian's packages, and unpacks them into the cache: they are not
# installed, so no service is started. `relapse run --record-series` and `relapse alerts` find them there. Quick if they are
# there already. Prints the folder of the programs.
set -euo pipefail
packages=(prometheus prometheus-node-exporter prometheus-blackbox-exporter prometheus-mysqld-exporter)
folder=${XDG_CACHE_HOME:-$HOME/.cache}/relapse/tools/prometheus
programs=$folder/usr/bin

fail() {
    printf '%s\n' "$@" >&2
    exit 1
}
missing() {
    local program
    for program in promtool "${packages[@]}"; do
        [ -x "$programs/$program" ] || echo "$program"
    done
}

if [ -z "$(missing)" ]; then
    echo "$programs"
    exit 0
fi
if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
    fail \
        "These programs are unpacked from Debian's packages with apt-get and dpkg-deb, which were not found." \
        "Install promtool, node_exporter and blackbox_exporter from your distribution or https://prometheus.io/download," \
        "so that they are in PATH."
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo "fetching ${packages[*]}" >&2
fetch() { (cd "$work" && apt-get -o APT::Sandbox::User=root download -qq "${packages[@]}" >/dev/null 2>"$work/errors"); }
if ! fetch; then
    # Without lists of packages, or with old ones.
    echo "failed to download them; trying again after: apt-get update" >&2
    if [ "$(id -u)" = 0 ]; then apt-get update -qq; else sudo apt-get update -qq; fi
    fetch || fail "failed to download ${packages[*]}:" "$(cat "$work/errors")"
fi
mkdir -p "$folder"
for package in "$work"/*.deb; do
    dpkg-deb -x "$package" "$folder"
done
left=$(missing)
[ -z "$left" ] || fail "not in the packages: ${left//$'\n'/ }"
echo "$programs"
