#!/bin/sh
# Compiles the DPDK backend against another DPDK than the installed one, and runs its tests on it, in a Debian of that version.
#
#   tools/check_dpdk_versions.sh [SUITE...]        (trixie, which has DPDK 24.11, unless others are named)
#
# As root, on Debian, with debootstrap (apt-get install debootstrap); a minute and some 700 MB the first time, of packages from the
# mirror apt is configured with. A suite's system is kept in out/dpdk-versions/SUITE and used again; `make clean` removes it.
# TESTS="tests/dpdk/test_memif.py -k killed" runs some of the tests. Everything is mounted in a namespace of this script's own, so
# nothing is left mounted however it ends.
# Exit code 0: every C file compiled without a warning, and every test that can run there passed.
set -eu
cd "$(dirname "$0")/.."
root=$PWD

say() { printf 'check_dpdk_versions: %s\n' "$*" >&2; }
stop() {
    say "$*"
    exit 1
}

[ "$(id -u)" = 0 ] || stop "as root, please: it makes a system to compile in"
command -v debootstrap >/dev/null 2>&1 || stop "debootstrap is missing: apt-get install debootstrap"
mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep '/debian$' | head -n 1)
[ -n "$mirror" ] || stop "apt is configured with no Debian mirror"

# What compiles the modules and runs tests/dpdk; scapy and hypothesis are the tests'.
packages="gcc libc6-dev pkg-config libdpdk-dev dpdk-dev python3-dev python3-cffi python3-setuptools
    python3-pytest python3-pytest-timeout python3-hypothesis python3-scapy iproute2 iputils-ping tcpdump procps"

make_system() { # $1: suite, $2: folder
    say "making a system of $1 in $2"
    rm -rf "$2"
    mkdir -p "$(dirname "$2")"
    debootstrap --variant=minbase "$1" "$2.new" "$mirror" >"$2.log" 2>&1 || stop "debootstrap failed; its log: $2.log"
    # shellcheck disable=SC2086  # a list of packages
    DEBIAN_FRONTEND=noninteractive chroot "$2.new" sh -c 'apt-get update -q && apt-get install -q -y --no-install-recommends "$@"' \
        sh $packages >>"$2.log" 2>&1 || stop "the packages could not be installed; the log: $2.log"
    mv "$2.new" "$2"
}

check() { # $1: suite
    system=$root/out/dpdk-versions/$1
    [ -d "$system" ] || make_system "$1" "$system"
    rm -rf "$system/src"
    mkdir "$system/src"
    # What is here now, committed or not, and nothing that was built here for another DPDK.
    git ls-files -z --cached --others --exclude-standard | tar --create --null --ignore-failed-read --files-from - 2>/dev/null |
        tar --extract --directory "$system/src"
    unshare --mount sh -eu -c "$mounts" sh "$system" "$inside"
}

# shellcheck disable=SC2016  # expanded by the shells they are for
mounts='
    mount --rbind /dev "$1/dev"
    mount -t proc proc "$1/proc"
    mount -t sysfs sysfs "$1/sys"
    exec chroot "$1" sh -eu -c "$2"
'
# shellcheck disable=SC2016
inside='
    cd /src
    echo "check_dpdk_versions: DPDK $(pkg-config --modversion libdpdk), $(gcc --version | head -n 1)"
    python3 tools/check_c.py
    python3 cffi_build.py
    R2P2_REQUIRE=none PYTHONPATH=/src python3 -m pytest -q -p no:cacheprovider ${TESTS:-tests/dpdk}
'

[ "$#" -gt 0 ] || set -- trixie
for suite; do
    check "$suite"
done
