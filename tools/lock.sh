#!/bin/sh
# Makes each requirements/NAME.txt from requirements/NAME.in: every package pinned, with the hashes of all its files, so
# that a lock serves every Python from 3.11 on and every architecture. No index is named in it. With names as arguments
# only these locks.
# pip-tools lives in a folder of its own, removed at the end.
set -eu
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check pip-tools
for name in ${*:-dev compare}; do
    "$work/venv/bin/pip-compile" -q --generate-hashes --allow-unsafe --strip-extras --no-config --no-header \
        --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options \
        -o "requirements/$name.txt" "requirements/$name.in"
done
