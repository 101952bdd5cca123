#!/bin/sh
# The tests with every C module under AddressSanitizer and UBSan: a copy of the tree in out/sanitize, built there, so that
# the modules in use stay as they are. Leaks are not looked for: the interpreter leaves memory at its end.
set -eu
cd "$(dirname "$0")/.."
copy=out/sanitize
rm -rf "$copy"
mkdir -p "$copy"
git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$copy"
python="$PWD/.venv/bin/python"
cd "$copy"
R2P2_SANITIZE=address,undefined "$python" cffi_build.py
LD_PRELOAD="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so)"
ASAN_OPTIONS=detect_leaks=0
export LD_PRELOAD ASAN_OPTIONS
# Not: tests that compile sanitized programs themselves, and those whose children drop their rights and this preload.
if [ $# -eq 0 ]; then
    set -- tests/requests tests/engine tests/node tests/server tests/apps tests/ports tests/uv tests/router tests/scapy tests/storage \
        --deselect tests/ports/test_sanitized.py
fi
exec "$python" -m pytest -q -p no:cacheprovider --timeout 400 "$@"
