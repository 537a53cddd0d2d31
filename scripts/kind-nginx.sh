#!/usr/bin/env bash
# Builds a small nginx image without any registry, from Debian's package: the program, its libraries, and
# a configuration laid out as in the official image, so that either takes the same mounted files.
#
#   kind-nginx.sh            build it, unless it is up to date
#   kind-nginx.sh --check    status 0: it is up to date
set -euo pipefail
recipe_file=$(realpath "$0")
# shellcheck source=scripts/kind-common.sh
. "${recipe_file%/*}/kind-common.sh"

recipe=$({ base_recipe && cat "$recipe_file"; } | fingerprint)
up_to_date() { [ "$(built_from "$OWN_NGINX")" = "$recipe" ]; }
if [ "${1:-}" = --check ]; then
    up_to_date && exit 0
    exit 1
fi
if up_to_date; then
    step "$OWN_NGINX is up to date"
    exit 0
fi

debian_base
step "nginx image"
root=$CACHE/root-$$
trap 'rm -rf "$root"' EXIT
mkdir -p "$root"
# --network host: a package is fetched as the machine itself would fetch it.
docker run --rm -i --network host "$BASE" bash -euc "$COLLECT"'
    {
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nginx
    } >/tmp/log 2>&1 || { cat /tmp/log >&2; exit 1; }
    collect /usr/sbin/nginx /etc/nginx/mime.types' | tar -C "$root" -x

cd "$root"
mkdir -p etc/nginx/conf.d run tmp var/log/nginx var/lib/nginx usr/share/nginx/html
# The official image logs to the container's output and runs its workers as nginx.
ln -s /dev/stdout var/log/nginx/access.log
ln -s /dev/stderr var/log/nginx/error.log
printf 'root:x:0:0:root:/:\nnginx:x:101:101:nginx:/:\nnobody:x:65534:65534:nobody:/:\n' >etc/passwd
printf 'root:x:0:\nnginx:x:101:\nnogroup:x:65534:\n' >etc/group
echo 'relapse: nginx answers' >usr/share/nginx/html/index.html
cat >etc/nginx/nginx.conf <<'IN'
user nginx;
worker_processes 1;
error_log /var/log/nginx/error.log notice;
pid /run/nginx.pid;
events { worker_connections 1024; }
http {
    include /etc/nginx/mime.types;
    default_type application/octet-stream;
    access_log /var/log/nginx/access.log;
    include /etc/nginx/conf.d/*.conf;
}
IN
cat >etc/nginx/conf.d/default.conf <<'IN'
server {
    listen 80;
    location / { root /usr/share/nginx/html; index index.html; }
}
IN
import "$OWN_NGINX" "$root" 'CMD ["nginx", "-g", "daemon off;"]' 'EXPOSE 80' "LABEL relapse.recipe=$recipe"
step "$OWN_NGINX is built"
