#!/usr/bin/env bash
# Builds a MariaDB image without any registry: the Debian base with the package mariadb-server, whose installation also
# initialises the data directory.
#
#   kind-mariadb.sh            build it, unless it is up to date
#   kind-mariadb.sh --check    status 0: it is up to date
set -euo pipefail
recipe_file=$(realpath "$0")
# shellcheck source=scripts/kind-common.sh
. "${recipe_file%/*}/kind-common.sh"

recipe=$({ base_recipe && cat "$recipe_file"; } | fingerprint)
up_to_date() { [ "$(built_from "$OWN_MARIADB")" = "$recipe" ]; }
if [ "${1:-}" = --check ]; then
    up_to_date && exit 0
    exit 1
fi
if up_to_date; then
    step "$OWN_MARIADB is up to date"
    exit 0
fi

debian_base
step "MariaDB image"
container=relapse-mariadb-$$
trap 'docker rm --force --volumes "$container" >/dev/null 2>&1 || true' EXIT
# --network host: a package is fetched as the machine itself would fetch it.
docker run --name "$container" --network host "$BASE" bash -euc '
    {
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends mariadb-server
    } >/tmp/log 2>&1 || { cat /tmp/log >&2; exit 1; }
    rm -rf /tmp/log /var/lib/apt/lists/* /var/cache/apt/archives/*.deb'
docker commit --change "LABEL relapse.recipe=$recipe" "$container" "$OWN_MARIADB" >/dev/null
step "$OWN_MARIADB is built"
