"""Builds in place those compiled modules whose inputs changed since the last time.

Why not ``python cffi_build.py``: that builds everything always. Here each module has a stamp (``.stamps/module-NAME``)
with the hash of all it is made from: its C files and headers, the engine's headers, cffi_build.py, the compiler, cffi,
Python, the sanitizers and libdpdk's version. tools/setup.sh calls this with ``R2P2_WITH_DPDK`` set to that version or
``no``. How a module is compiled is cffi_build.py's business.

Exit code 0, or 1 with the compiler's output on stderr.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STAMPS = ROOT / ".stamps"
sys.path.insert(0, str(ROOT))

import cffi  # noqa: E402

import cffi_build  # noqa: E402

# Builder in cffi_build -> the module it makes.
MODULES = {
    "engine": "r2p2._engine",
    "udp": "uv_backend._udp",
    "dpdk": "dpdk_backend._dpdk",
    "batch": "r2p2.requests._batch",
    "kv": "r2p2.apps.kv._plain",
}


def inputs_key(builder: str) -> str:
    """The hash over everything the module of `builder` is made from."""
    package = MODULES[builder].rpartition(".")[0].replace(".", "/")
    files = {ROOT / "cffi_build.py", *(ROOT / "r2p2" / "csrc").glob("*.h"), *(ROOT / package / "csrc").glob("*.[ch]")}
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
    facts = [sys.version, cffi.__version__, os.environ.get("R2P2_SANITIZE", ""), os.environ.get("CC", ""), str(ROOT)]
    facts += [os.environ.get("CFLAGS", ""), os.environ.get("R2P2_WITH_DPDK", "") if builder == "dpdk" else ""]
    digest.update("\0".join(facts).encode())
    return digest.hexdigest()


def built_files(module: str) -> list[Path]:
    """The shared objects of a module, under whatever suffix they were built."""
    package, _, name = module.rpartition(".")
    return sorted((ROOT / package.replace(".", "/")).glob(f"{name}.*so"))


def is_current(builder: str) -> bool:
    """True where the module is there and was made from what is here now."""
    stamp = STAMPS / f"module-{builder}"
    return bool(built_files(MODULES[builder])) and stamp.exists() and stamp.read_text() == inputs_key(builder)


def start(builder: str) -> subprocess.Popen[str]:
    """Starts the build of one module in a process of its own."""
    (STAMPS / f"module-{builder}").unlink(missing_ok=True)
    for old in built_files(MODULES[builder]):
        old.unlink()
    code = f"import cffi_build; cffi_build.{builder}().compile(verbose=False)"
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def main() -> int:
    """Builds what is stale."""
    STAMPS.mkdir(exist_ok=True)
    builders = [name.partition(":")[2] for name in cffi_build.modules()] + ["batch", "kv"]
    if os.environ.get("R2P2_WITH_DPDK") == "no" and "dpdk" in builders:
        builders.remove("dpdk")
    # A package whose C files are not there has no module to build.
    builders = [name for name in builders if cffi_build.c_sources(MODULES[name].rpartition(".")[0].replace(".", "/"))]
    stale = [name for name in builders if not is_current(name)]
    if not stale:
        return 0
    print("set-up: compiling", ", ".join(MODULES[name] for name in stale), file=sys.stderr, flush=True)
    keys = {name: inputs_key(name) for name in stale}
    failed = 0
    for name, build in [(name, start(name)) for name in stale]:
        output, _ = build.communicate()
        if build.returncode == 0 and built_files(MODULES[name]):
            (STAMPS / f"module-{name}").write_text(keys[name])
        else:
            failed += 1
            compiler = sysconfig.get_config_var("CC")
            # The compiler's own words; the traceback of the build tools below them says nothing more.
            said = output.partition("Traceback (most recent call last)")[0].strip() or output
            print(f"{said}\nset-up: {MODULES[name]} did not compile ({compiler}); see above.", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
