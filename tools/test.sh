#!/bin/sh
# Runs pytest in the project's virtual environment. On a machine that can run every test (Linux, root, libdpdk, tshark, redis-server,
# network namespaces) a skipped test counts as a failure: tests/conftest.py does that when R2P2_REQUIRE=all.
set -eu
cd "$(dirname "$0")/.."
if [ -z "${R2P2_REQUIRE+set}" ] && [ "$(id -u)" = 0 ] && [ -z "${R2P2_NO_DPDK:-}" ] &&
    pkg-config --exists libdpdk 2>/dev/null && command -v tshark >/dev/null 2>&1 &&
    command -v redis-server >/dev/null 2>&1 && unshare -n true 2>/dev/null; then
    R2P2_REQUIRE=all
    export R2P2_REQUIRE
fi
[ $# -eq 0 ] || exec .venv/bin/python -m pytest "$@"
# A whole run takes both processors of a small machine: a worker for what only computes beside one for the rest. Their
# folders have short names, since a socket's holds 107 bytes; they stay when something failed.
folder=$(mktemp -d "${TMPDIR:-/tmp}/r2p2.XXXXXX")
.venv/bin/python -m pytest -n 2 --basetemp "$folder"
rm -rf "$folder"
