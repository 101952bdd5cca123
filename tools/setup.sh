#!/bin/sh
# Sets this folder up: system packages, the virtual environment, the compiled modules.
#
# Why a script: `make demo` and `make test` must work in a fresh clone on a machine that has only git, make, Python and
# gcc. Each step is skipped while the stamp of its inputs (.stamps/) still holds, so a second run costs a moment.
# System packages are installed where we are root or `sudo -n` works. Elsewhere: without libdpdk the project runs on the
# kernel-UDP backend, and this script says what was left out; without a compiler, Python's headers or venv it stops.
# What each module is built from is tools/build_modules.py's business.
set -eu
cd "$(dirname "$0")/.."

stamps=.stamps
venv=.venv
mkdir -p "$stamps"

say() { printf 'set-up: %s\n' "$*" >&2; }
stop() {
    printf 'set-up: %s\n' "$@" >&2
    exit 1
}

# --- which Python ----------------------------------------------------------------------------------------------------
new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }
python=
for candidate in "${PYTHON:-python3}" python3.14 python3.13 python3.12 python3.11 /usr/bin/python3; do
    found=$(command -v "$candidate" 2>/dev/null) || continue
    # With .venv activated that is the environment itself, which is about to be made anew: the Python it was made of.
    case $found in
    "$PWD/.venv/"*) found=$("$found" -c 'import sys; print(sys._base_executable)' 2>/dev/null) || continue ;;
    esac
    if new_enough "$found"; then
        python=$found
        break
    fi
done
[ -n "$python" ] || stop "Python 3.11 or newer is needed; ${PYTHON:-python3} is not." \
    "Install it, or name one: make PYTHON=/path/to/python3 ..."

# --- who may install system packages ---------------------------------------------------------------------------------
as_root=none
if command -v apt-get >/dev/null 2>&1; then
    if [ "$(id -u)" = 0 ]; then
        as_root=
    elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
        as_root="sudo -n"
    fi
fi

# --- what is missing -------------------------------------------------------------------------------------------------
have_dpdk() { command -v pkg-config >/dev/null 2>&1 && pkg-config --exists libdpdk; }
have_venv() { "$python" -c 'import ensurepip, venv' 2>/dev/null; }
have_headers() {
    "$python" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' 2>/dev/null
}
have_compiler() { printf '#include <stdio.h>\nint main(void){return 0;}\n' | "${CC:-cc}" -x c -fsyntax-only - 2>/dev/null; }

needed_packages() { # the Debian packages that would supply what the project cannot do without
    have_compiler || printf 'gcc libc6-dev '
    have_headers || printf '%s ' "$(python_package dev)"
    have_venv || printf '%s ' "$(python_package venv)"
}
dpdk_packages() {
    command -v pkg-config >/dev/null 2>&1 || printf 'pkg-config '
    printf 'dpdk libdpdk-dev'
}
python_package() {
    "$python" -c 'import sys; print("python%d.%d-%s" % (*sys.version_info[:2], sys.argv[1]))' "$1"
}

install_packages() { # $@: packages
    log="$stamps/apt.log"
    say "installing system packages: $*"
    # shellcheck disable=SC2086  # as_root is a command or nothing
    if ! $as_root env DEBIAN_FRONTEND=noninteractive sh -c '
        apt-get update -q && apt-get install -q -y --no-install-recommends "$@"' sh "$@" >"$log" 2>&1; then
        say "apt-get failed; its last lines (all of it: $log):"
        tail -n 5 "$log" >&2
        return 1
    fi
}

system_key="system tshark redis-server systemd $python $("$python" -V 2>&1) $as_root ${CC:-cc} ${R2P2_NO_DPDK:-}"
if [ "$(cat "$stamps/system" 2>/dev/null)" != "$system_key" ]; then
    if [ "$as_root" != none ]; then
        # shellcheck disable=SC2046  # lists of package names
        [ -z "$(needed_packages)" ] || install_packages $(needed_packages) || true
        # shellcheck disable=SC2046
        [ "${R2P2_NO_DPDK:-}" ] || have_dpdk || install_packages $(dpdk_packages) || true
        # For tests alone; without them those tests say so.
        command -v tshark >/dev/null 2>&1 || install_packages tshark || true
        command -v redis-server >/dev/null 2>&1 || install_packages redis-server || true
        command -v systemd-analyze >/dev/null 2>&1 || install_packages systemd || true
    fi
    left=$(needed_packages)
    [ -z "$left" ] || stop "a C compiler, Python's headers and venv are needed, and not all are here ($python)." \
        "As root, run:  apt-get update && apt-get install -y $left" "then the same make command again."
    # Where we may install, a failure is tried again next time.
    if [ "$as_root" = none ] || [ "${R2P2_NO_DPDK:-}" ] || have_dpdk; then
        printf '%s' "$system_key" >"$stamps/system"
    fi
fi

dpdk=no
if [ -z "${R2P2_NO_DPDK:-}" ] && have_dpdk; then
    dpdk=$(pkg-config --modversion libdpdk)
else
    say "no libdpdk: going on without the DPDK backend; the kernel-UDP backend (--backend uv) does everything else."
    [ "${R2P2_NO_DPDK:-}" ] ||
        say "to get it, as root:  apt-get update && apt-get install -y pkg-config dpdk libdpdk-dev   then make again."
fi

# --- the virtual environment -----------------------------------------------------------------------------------------
hash_of() { cat "$@" | sha256sum | cut -d' ' -f1; }
venv_key="venv $PWD $("$python" -c 'import sys; print(sys.base_prefix, sys.version)') $(hash_of requirements/dev.txt)"
if [ "$(cat "$stamps/venv" 2>/dev/null)" != "$venv_key" ] || ! [ -x "$venv/bin/python" ]; then
    say "making $venv and installing the locked packages"
    rm -rf "$venv" "$stamps/venv" "$stamps/project"
    "$python" -m venv "$venv" || stop "python -m venv failed." "As root, run:  apt-get install -y $(python_package venv)"
    "$venv/bin/python" -m pip install -q --disable-pip-version-check --require-hashes -r requirements/dev.txt ||
        stop "the locked packages (requirements/dev.txt) could not be installed; pip's reason is above." \
            "Is the package index reachable? Then run the same make command again."
    printf '%s' "$venv_key" >"$stamps/venv"
fi

# --- the compiled modules and the project ----------------------------------------------------------------------------
R2P2_WITH_DPDK=$dpdk "$venv/bin/python" tools/build_modules.py
# A plain path in place of an import hook, which type checkers do not follow.
project_key="project compat $venv_key $(hash_of pyproject.toml setup.py) $(echo */__init__.py)"
if [ "$(cat "$stamps/project" 2>/dev/null)" != "$project_key" ]; then
    say "linking the project into $venv"
    R2P2_MODULES=prebuilt "$venv/bin/python" -m pip install -q --disable-pip-version-check \
        --no-deps --no-build-isolation --config-settings editable_mode=compat -e . ||
        stop "pip install -e . failed; the reason is above."
    printf '%s' "$project_key" >"$stamps/project"
fi
