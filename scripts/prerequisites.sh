#!/bin/sh
# Installs what a build needs besides cargo: a C compiler, as linker and for one dependency's
# assembly, with the headers of the C library. The command is shown
# first. Without permission to install, prints the command to run.
set -eu

need_cargo() {
    echo "relapse is built with cargo, which is not installed. Install it with" >&2
    echo "    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh" >&2
    echo "(https://rustup.rs), or from your distribution (Rust 1.95 or later)." >&2
    exit 1
}

# The command for this distribution's package manager; empty if unknown.
install_line() {
    if command -v apt-get >/dev/null; then
        echo "apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev"
    elif command -v dnf >/dev/null; then
        echo "dnf install -y gcc glibc-devel"
    elif command -v zypper >/dev/null; then
        echo "zypper --non-interactive install gcc glibc-devel"
    elif command -v pacman >/dev/null; then
        echo "pacman -S --needed --noconfirm gcc"
    elif command -v apk >/dev/null; then
        echo "apk add gcc musl-dev"
    fi
}

# Compiles and links a program, which fails without headers.
compiles() {
    command -v cc >/dev/null || return 1
    out=$(mktemp) || return 1
    printf '#include <stdio.h>\nint main(void) { return 0; }\n' | cc -x c -o "$out" - 2>/dev/null
    status=$?
    rm -f "$out"
    return $status
}

command -v cargo >/dev/null || need_cargo
if compiles; then exit 0; fi

line=$(install_line)
if [ -z "$line" ]; then
    echo "A C compiler with the C library's headers is needed (cc), and no known package manager was found to install it." >&2
    exit 1
fi
echo "A C compiler is missing. To install it:"
if [ "$(id -u)" = 0 ]; then
    echo "    $line"
    DEBIAN_FRONTEND=noninteractive sh -c "$line"
elif command -v sudo >/dev/null; then
    echo "    sudo sh -c '$line'"
    sudo sh -c "$line" || { echo "Installation failed. As root, run: $line" >&2; exit 1; }
else
    echo "As root, run: $line" >&2
    exit 1
fi
compiles || { echo "There is still no working C compiler." >&2; exit 1; }
