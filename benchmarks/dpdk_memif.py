"""Packets a second and core between two processes over memif: ``python benchmarks/dpdk_memif.py [--rounds N]``.

Three measurements, each with one process that answers and one that keeps packets in flight, no NIC, no hugepages:

* ``port``: UDP datagrams through the R2P2 port (headers checked and written, echo in C through the engine's interface);
* ``macswap``: frames through the Python bindings, MACs swapped in C, the loop in Python;
* ``testpmd``: the same with DPDK's own testpmd as the one that answers, where it is installed: the reference.

A figure is packets received plus packets sent by the process that answers. "A core" divides them by that process's CPU
time; testpmd spins, so its CPU time is the clock's. "By the clock" is counted by the process that asks, which is the
same program for macswap and testpmd: those two figures of one round, one after the other, make the ratio. Both ends
want a core of their own: on a machine with other work the figures fall and the ratio wavers.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import dpdk_backend as dpdk
from dpdk_backend.forward import forward, txonly_frame

PORT_IP, PEER_IP = "10.0.0.1", "10.0.0.2"
OUTSTANDING = 512
LINK_TIMEOUT_S = 10.0
MARGIN_S = 1.0
LOAD_MAX = 0.7


def answer_port(path: str, seconds: float, size: int) -> None:
    """The port's echo."""
    device = dpdk.memif(0, path, role="server", routes=(PEER_IP,), ring_log2=11)
    with dpdk.DpdkPort(dpdk.PortConfig(PORT_IP, (device,))) as port:
        while not port.echo(0.01):
            pass
        start = time.thread_time()
        count = port.echo(seconds)
        report(2 * count, time.thread_time() - start)


def ask_port(path: str, seconds: float, size: int) -> None:
    """Keeps datagrams in flight."""
    device = dpdk.memif(0, path, role="client", routes=(PORT_IP,), ring_log2=11)
    with dpdk.DpdkPort(dpdk.PortConfig(PEER_IP, (device,))) as port:
        port.generate(PORT_IP, 9000, payload_bytes=size, outstanding=OUTSTANDING, duration_s=seconds + 2)


def answer_macswap(path: str, seconds: float, size: int) -> None:
    """Frames swapped over the bindings."""
    dpdk.start_eal()
    with dpdk.EthDev(dpdk.memif(0, path, role="server", ring_log2=11)) as device:
        while not forward([device], "macswap", duration_s=0.01):
            pass
        start = time.thread_time()
        count = forward([device], "macswap", duration_s=seconds)
        report(2 * count, time.thread_time() - start)
        forward([device], "macswap", duration_s=MARGIN_S)  # the other end may count a little longer


def ask_frames(path: str, seconds: float, size: int) -> None:
    """Keeps frames in flight; counts, from the first that comes back on, those that do."""
    dpdk.start_eal()
    frame = txonly_frame(max(60, size))
    burst = dpdk.Burst()
    with dpdk.EthDev(dpdk.memif(0, path, role="client", ring_log2=11)) as device:
        in_flight = received = 0
        heard = time.monotonic()
        begin, end = 0.0, heard + LINK_TIMEOUT_S
        while (now := time.monotonic()) < end:
            count = device.receive(burst)
            burst.free()
            received += count
            if count and not begin:
                begin, end, received = now, now + seconds, 0
            if count:
                heard, in_flight = now, max(0, in_flight - count)
            elif now - heard > 0.02:
                heard, in_flight = now, 0
            if in_flight < OUTSTANDING:
                device.repeat(burst, frame, 64)
                in_flight += device.send(burst)
            elif not count:
                os.sched_yield()
        report(2 * received, seconds)


def report(packets: int, cpu_seconds: float) -> None:
    """One JSON line for the parent."""
    print(json.dumps({"packets": packets, "cpu_seconds": cpu_seconds}), flush=True)


ROLES = {f.__name__: f for f in (answer_port, ask_port, answer_macswap, ask_frames)}


def start(role: str, path: str, seconds: float, size: int) -> subprocess.Popen[str]:
    """One of the two processes."""
    command = [sys.executable, __file__, "--role", role, "--path", path, "--seconds", str(seconds), "--size", str(size)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def start_testpmd(path: str) -> subprocess.Popen[str]:
    """DPDK's own; one forwarding core, which has no thread of ours on it."""
    vdev = f"net_memif0,role=server,id=0,socket={path},socket-abstract=no,rsize=11"
    command = ["dpdk-testpmd", "--lcores", "0@(0-1),1@(0-1)", "-m", "128", "--no-huge", "--no-shconf", "--no-pci"]
    command += ["--no-telemetry", "--vdev", vdev, "--", "--forward-mode=macswap", "--total-num-mbufs=8192"]
    command += ["--port-topology=loop", "--auto-start", "--stats-period=1"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True)


def rate(process: subprocess.Popen[str], seconds: float) -> float:
    """What a process reports, as packets a second."""
    out, _ = process.communicate(timeout=seconds + LINK_TIMEOUT_S + 10)
    result: dict[str, float] = json.loads(out.strip().splitlines()[-1])
    return result["packets"] / result["cpu_seconds"]


def measure(kind: str, seconds: float, size: int) -> tuple[float, float]:
    """Packets a second of the one that answers: by its CPU time, and by the clock of the one that asks.

    The port's processes know only the first (the second is 0), testpmd's only the second (it is both).
    """
    with tempfile.TemporaryDirectory(prefix="r2p2-") as folder:
        path = str(Path(folder) / "s")
        if kind == "testpmd":
            answers = start_testpmd(path)
            time.sleep(2)  # testpmd says nothing when it is ready
            asks = start("ask_frames", path, seconds, size)
        else:
            answers = start(f"answer_{kind}", path, seconds, size)
            asks = start("ask_port" if kind == "port" else "ask_frames", path, seconds, size)
        try:
            clock = 0.0
            if kind != "port":
                clock = rate(asks, seconds)
            core = clock if kind == "testpmd" else rate(answers, seconds)
            return core, clock
        finally:
            for process in (answers, asks):
                process.kill()
                process.wait()


def spread(values: list[float]) -> str:
    """Median, and the range where there is one."""
    text = f"{statistics.median(values):.2f}"
    return f"{text} ({min(values):.2f} to {max(values):.2f})" if len(values) > 1 else text


def main() -> int:
    """Runs all three, or one process of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--size", type=int, default=64, help="payload of the port's datagrams, bytes of a frame")
    parser.add_argument(
        "--rounds", type=int, default=3, help="of all measurements; the median is printed, with the range"
    )
    parser.add_argument("--role", choices=sorted(ROLES), help=argparse.SUPPRESS)
    parser.add_argument("--path", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role:
        ROLES[options.role](options.path, options.seconds, options.size)
        return 0
    if (load := os.getloadavg()[0]) > LOAD_MAX:
        print(f"the load is {load:.1f}: figures by the clock, and so the ratio, want a machine at rest")
    kinds = ["port", "macswap"]
    if shutil.which("dpdk-testpmd"):
        kinds.append("testpmd")
    else:
        print("dpdk-testpmd is not installed (apt install dpdk-dev): no reference")
    rounds = [{kind: measure(kind, options.seconds, options.size) for kind in kinds} for _ in range(options.rounds)]
    for kind in kinds:
        core, clock = ([figures[kind][i] / 1e6 for figures in rounds] for i in (0, 1))
        by_clock = f", by the clock {spread(clock)}" if clock[0] else ""
        print(f"{kind:8} {spread(core)} M packets/s a core{by_clock} ({options.size} bytes)")
    if "testpmd" in kinds:
        ratios = [figures["macswap"][1] / figures["testpmd"][1] for figures in rounds]
        print(f"macswap in Python to testpmd, by the clock: {spread(ratios)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
