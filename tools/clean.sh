#!/bin/sh
# Removes what was built or written: compiled modules, generated glue, caches, out/. The virtual environment stays.
set -eu
cd "$(dirname "$0")/.."
rm -rf build dist out .mypy_cache .ruff_cache .pytest_cache .hypothesis ./*.egg-info .stamps/module-*
rm -f r2p2/_engine.c uv_backend/_udp.c dpdk_backend/_dpdk.c
for package in r2p2 raft uv_backend dpdk_backend scapy_layers tests tools; do
    [ -d "$package" ] || continue
    find "$package" \( -name '*.so' -o -name '*.o' \) -type f -exec rm -f {} +
    find "$package" -name __pycache__ -type d -prune -exec rm -rf {} +
done
