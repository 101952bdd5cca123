#!/bin/sh
# Installs what `make compare` sets beside this project, and nothing that the project itself needs: Debian packages, and
# Python packages in a virtual environment of their own (.venv-compare). Skipped while its inputs are the same.
#
# No service is left behind: packages start theirs when they are installed unless policy-rc.d forbids it, so where there is
# none one is put there meanwhile; and a service that came with this installation is not started at the next boot either.
set -eu
cd "$(dirname "$0")/.."

venv=.venv-compare
stamps=.stamps
policy=/usr/sbin/policy-rc.d
mkdir -p "$stamps"

say() { printf 'compare: %s\n' "$*" >&2; }
stop() {
    printf 'compare: %s\n' "$@" >&2
    exit 1
}

may_install=no
as_root() { "$@"; }
if [ "$(id -u)" = 0 ]; then
    may_install=yes
elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
    may_install=yes
    as_root() { sudo -n "$@"; }
fi

# --- Debian packages -------------------------------------------------------------------------------------------------
packages=
services=
need() { # $1: a program, $2: its package, $3: the service that comes with it, if one does
    command -v "$1" >/dev/null 2>&1 || {
        packages="$packages $2"
        services="$services ${3:-}"
    }
}
need etcd etcd-server etcd.service
need etcdctl etcd-client
need h2load nghttp2-client
need redis-server redis-server redis-server.service
need memcached memcached memcached.service

if [ "$packages" ]; then
    if [ "$may_install" = no ] || ! command -v apt-get >/dev/null 2>&1; then
        stop "not installed:$packages" "As root on Debian:  apt-get update && apt-get install$packages" \
            "or leave systems out:  make compare COMPARE=\"--only pysyncobj,grpc\" once the rest is there"
    fi
    say "installing:$packages"
    if ! [ -e "$policy" ]; then
        trap 'as_root rm -f "$policy"' EXIT
        trap 'exit 130' INT TERM
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod 755 "$policy"
    fi
    # shellcheck disable=SC2086  # a list of package names
    as_root env DEBIAN_FRONTEND=noninteractive sh -c \
        'apt-get update -q && apt-get install -q -y --no-install-recommends "$@"' sh $packages >"$stamps/compare-apt.log" 2>&1 || {
        tail -n 5 "$stamps/compare-apt.log" >&2
        stop "apt-get failed (all it said: $stamps/compare-apt.log)"
    }
    for service in $services; do
        command -v systemctl >/dev/null 2>&1 || break
        as_root systemctl disable "$service" >/dev/null 2>&1 || say "$service starts at the next boot: could not be disabled"
    done
fi

# --- Python packages -------------------------------------------------------------------------------------------------
python=.venv/bin/python
key="compare $PWD $("$python" -V) $(sha256sum <requirements/compare.txt)"
if [ "$(cat "$stamps/compare" 2>/dev/null)" != "$key" ] || ! [ -x "$venv/bin/python" ]; then
    say "making $venv and installing the locked packages"
    rm -rf "$venv" "$stamps/compare"
    "$python" -m venv "$venv"
    "$venv/bin/python" -m pip install -q --disable-pip-version-check --require-hashes -r requirements/compare.txt ||
        stop "the locked packages (requirements/compare.txt) could not be installed; pip's reason is above."
    printf '%s' "$key" >"$stamps/compare"
fi
