#!/usr/bin/env bash
# Replays incidents on other kernels: boots Debian's kernels under qemu, each with relapse in an initramfs, as root
# and as an ordinary user, and prints one table, scenario x kernel. Installs only qemu
# and the tools that build the initramfs on this machine; kernels are kept in the cache.
#
#   kernels.sh                     every kernel, each incident's base scenario with its twins, then machines
#                                  with missing parts (kernels-parts.sh)
#   kernels.sh --gate              bookworm's kernel, one trial of each incident
#   kernels.sh SUITE...            these kernels: bullseye (5.10), bookworm (6.1), trixie (6.12)
#   kernels.sh --parts             only machines with missing parts
#
# RELAPSE_BINARY is the program to test (default: a release build). RELAPSE_SCENARIOS names other scenarios.
# Exit status: 0 if every trial passed, or was skipped for a reason printed by `relapse doctor`; 1 otherwise.
set -euo pipefail
here=$(dirname "$(realpath "$0")")
project=${here%/*}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/relapse/kernels
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PATH=$PATH:/usr/sbin:/sbin

step() { printf '== %s (%d s)\n' "$*" "$SECONDS"; }
fail() {
    printf '%s\n' "$@" >&2
    exit 1
}

replay=yes parts='' only=''
suites=()
for argument in "$@"; do
    case $argument in
    --gate) suites=(bookworm) only='--only incident' ;;
    --parts) replay='' parts=yes ;;
    bullseye | bookworm | trixie) suites+=("$argument") ;;
    *) fail "$argument: no such kernel; available: bullseye, bookworm, trixie" ;;
    esac
done
if [ ${#suites[@]} -eq 0 ]; then
    suites=(bullseye bookworm trixie)
    [ -n "$parts" ] && suites=(bookworm) || parts=yes
fi

# --- prerequisites

command -v apt-get >/dev/null || fail "Debian's kernels are downloaded with apt-get, which was not found: use a Debian or Ubuntu machine."
packages=()
need() { command -v "$1" >/dev/null || packages+=("$2"); }
need qemu-system-x86_64 qemu-system-x86
need cpio cpio
need depmod kmod
need xz xz-utils
need python3 python3
[ -x /bin/busybox ] && ! ldd /bin/busybox >/dev/null 2>&1 || packages+=(busybox-static)
if [ ${#packages[@]} -gt 0 ]; then
    install=(apt-get install -y -qq --no-install-recommends "${packages[@]}")
    step "missing here: apt-get update && ${install[*]}"
    as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive "${install[@]}" >/dev/null
fi

binary=${RELAPSE_BINARY:-}
if [ -z "$binary" ]; then
    step "building relapse"
    (cd "$project" && cargo build --release --package relapse)
    binary=${CARGO_TARGET_DIR:-$project/target}/release/relapse
fi

# --- kernels

# The mirror configured on this machine.
mirror=$(grep -rhoE --include='*.sources' --include='*.list' 'https?://[^ ]*/debian/?( |$)' /etc/apt/ | head -n 1 | tr -d ' ')
[ -n "$mirror" ] || mirror=${DEBIAN_MIRROR:-}
[ -n "$mirror" ] || fail "No Debian mirror is configured in /etc/apt; name one: DEBIAN_MIRROR=https://..."
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -f "$keyring" ] || fail "The keys of Debian's archive are missing: apt-get install debian-archive-keyring"

# Downloads and unpacks a suite's kernel into the cache: boot/vmlinuz-VERSION and lib/modules/VERSION.
bring() {
    local suite=$1 folder=$cache/$1 package apt
    [ ! -e "$folder/ready" ] || return 0
    step "the kernel of $suite"
    rm -rf "$folder" && mkdir -p "$folder/lists/partial"
    # With security updates, as users have it.
    printf 'deb [signed-by=%s] %s main\n' "$keyring" "$mirror $suite" \
        "$keyring" "${mirror%/debian*}/debian-security $suite-security" >"$folder/sources.list"
    apt=(-o "Dir::Etc::sourcelist=$folder/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State::Lists=$folder/lists"
        -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o APT::Sandbox::User=root)
    (
        cd "$folder"
        apt-get "${apt[@]}" update -qq
        package=$(apt-cache "${apt[@]}" depends linux-image-amd64 | awk '/Depends: linux-image/ { print $2; exit }')
        apt-get "${apt[@]}" download -qq "$package" 2>/dev/null
        dpkg-deb -x "$package"_*.deb unpacked
        mv unpacked/boot .
        # Debian 13 has merged /usr.
        mv unpacked/usr/lib/modules modules 2>/dev/null || mv unpacked/lib/modules modules
        rm -rf unpacked lists "$package"_*.deb
        find modules -name '*.ko.xz' -exec xz -d {} +
        touch ready
    )
}

# An initramfs of busybox, the kernel's network modules, relapse with its libraries, scenarios, and the script to run.
initramfs() {
    local suite=$1 script=$2 root=$work/root version modules library
    version=$(basename "$cache/$suite"/boot/vmlinuz-* | sed 's/^vmlinuz-//')
    modules=lib/modules/$version
    rm -rf "$root"
    mkdir -p "$root"/{bin,sbin,proc,sys,dev,tmp,run,etc,root,work,var/lib} "$root/$modules/kernel/drivers/net"
    cp /bin/busybox "$root/bin/"
    # shellcheck disable=SC2016  # the shell in there expands it
    /bin/busybox --list | while read -r applet; do [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"; done
    ln -s ../bin/busybox "$root/sbin/modprobe"
    local from=$cache/$suite/modules/$version
    for part in net lib crypto; do cp -r "$from/kernel/$part" "$root/$modules/kernel/"; done
    cp "$from"/kernel/drivers/net/{veth,tun}.ko "$root/$modules/kernel/drivers/net/"
    cp "$from"/modules.* "$root/$modules/"
    depmod -b "$root" "$version"
    cp "$binary" "$root/bin/relapse"
    strip "$root/bin/relapse" 2>/dev/null || true
    for library in $(ldd "$binary" | grep -oE '/[^ ]+'); do
        mkdir -p "$root$(dirname "$library")"
        cp -L "$library" "$root$library"
    done
    cp -r "$project/scenarios" "$project/kind-configs" "$root/work/"
    cp "$here/$script" "$root/work/script"
    cp "$work/settings" "$root/work/"
    printf 'root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/tmp:/bin/sh\n' >"$root/etc/passwd"
    cat >"$root/init" <<'IN'
#!/bin/sh
export PATH=/bin:/sbin HOME=/root NO_COLOR=1
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp; mount -t tmpfs run /run
mkdir -p /run/lock /dev/pts /dev/shm /tmp/out
mount -t devpts devpts /dev/pts; mount -t tmpfs shm /dev/shm
chmod 1777 /tmp /run/lock
ip link set lo up
# PATH of a login shell.
ulimit -n 524288
stty -F /dev/ttyS1 raw
echo "=== kernel $(uname -r)"
cd /work
sh ./script
tar -C /tmp/out -c . >/dev/ttyS1
echo "=== end"
poweroff -f
IN
    chmod +x "$root/init"
    (cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) >"$work/initrd.gz"
}

# boot SUITE OUT ACCEL SECONDS: the guest's console goes to standard output, its files into the folder OUT.
boot() {
    local suite=$1 out=$2 accel=$3 seconds=$4
    rm -rf "$out" && mkdir -p "$out"
    timeout --foreground "$seconds" qemu-system-x86_64 -accel "$accel" -smp 2 -m 4096 -nic none -display none -no-reboot \
        -serial stdio -serial "file:$out/files.tar" -kernel "$cache/$suite"/boot/vmlinuz-* -initrd "$work/initrd.gz" \
        -append 'console=ttyS0 quiet panic=1' </dev/null 2>&1 | sed -un 's/\r//g; /=== kernel/,$p' || true
    tar -C "$out" -xf "$out/files.tar" 2>/dev/null ||
        fail "the kernel of $suite did not finish within $seconds s"
    rm "$out/files.tar"
}

# Use hardware virtualisation if it works. /dev/kvm alone is no proof: a nested guest may hang.
accelerator() {
    local suite=$1
    if [ -w /dev/kvm ]; then
        printf 'poweroff -f\n' >"$work/hello"
        if timeout 20 qemu-system-x86_64 -accel kvm -smp 2 -m 512 -nic none -display none -no-reboot \
            -kernel "$cache/$suite"/boot/vmlinuz-* -append 'panic=-1' >/dev/null 2>&1 </dev/null; then
            echo kvm
            return
        fi
    fi
    echo tcg,thread=multi
}

# --- replaying

# Time for a lab to come up on this machine, in milliseconds, as the baseline for the speed of a guest.
native_up_ms() {
    local best='' took
    for _ in 1 2; do
        (cd "$project" && "$binary" run policy-route-lost --only incident --reports "$work/measure" >/dev/null 2>&1) || true
        took=$(sed -n 's/.*"up":{"secs":\([0-9]*\),"nanos":\([0-9]*\)}.*/\1 \2/p' "$work/measure/latest/events.jsonl" |
            awk '{ printf "%d", $1 * 1000 + $2 / 1000000 }')
        [ -n "$best" ] && [ "$best" -le "$took" ] || best=$took
    done
    [ "${best:-0}" -gt 0 ] || fail "labs cannot run on this machine: run relapse doctor"
    echo "$best"
}

cat >"$work/settings" <<IN
native_up_ms=$(native_up_ms)
names="${RELAPSE_SCENARIOS:-policy-route-lost mss-clamp-raised coredns-single-replica-loss conntrack-cap-reset snat-port-collision}"
only="$only"
IN
for suite in "${suites[@]}"; do bring "$suite"; done
results=$cache/results
rm -rf "$results" && mkdir -p "$results"
accel=$(accelerator "${suites[0]}")
# An emulated CPU is too slow for two concurrent labs.
case $accel in kvm) jobs=2 ;; *) jobs=1 ;; esac
echo "jobs=$jobs" >>"$work/settings"
step "processors of the guests: $accel"
status=0
if [ -n "$replay" ]; then
    for suite in "${suites[@]}"; do
        step "$suite"
        initramfs "$suite" kernels-guest.sh
        boot "$suite" "$results/$suite" "$accel" 900 | tee "$results/$suite.log" |
            grep --line-buffered -E '^(===|PASS|FAIL|INCONCLUSIVE|DIRTY|SKIP|INTERNAL)'
    done
    python3 "$here/kernels-table.py" "$results" "${suites[@]}" || status=$?
fi
if [ -n "$parts" ]; then
    step "machines with missing parts"
    initramfs bookworm kernels-parts.sh
    boot bookworm "$results/parts" "$accel" 600 | tee "$results/parts.log" | grep --line-buffered -v '^=== '
    [ ! -e "$results/parts/failed" ] || status=1
fi
exit "$status"
