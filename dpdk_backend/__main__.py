"""``python -m dpdk_backend``: testpmd's forwarding modes, in Python over the bindings.

    python -m dpdk_backend --vdev net_pcap0,rx_pcap=in.pcap,tx_pcap=out.pcap --forward macswap

With pcap devices alone it ends when every capture has been read; else after ``--duration`` or at Ctrl-C.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from dpdk_backend._attach import existing_names
from dpdk_backend.devices import Device
from dpdk_backend.eal import EalConfig, start_eal, stop_eal
from dpdk_backend.errors import DpdkError
from dpdk_backend.ethdev import EthDev
from dpdk_backend.forward import MODES, forward

_IDLE_ROUNDS_AT_END = 16


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m dpdk_backend", description="Forward frames between DPDK devices.")
    parser.add_argument("--vdev", action="append", default=[], metavar="NAME,ARGS", help="a virtual device; repeatable")
    parser.add_argument("--pci", action="append", default=[], metavar="ADDRESS", help="a NIC; repeatable")
    parser.add_argument("--forward", choices=MODES, default="io", help="what to do with frames (default: io)")
    parser.add_argument("--duration", type=float, metavar="S", help="seconds to run")
    parser.add_argument("--stats-period", type=float, metavar="S", help="print counters every so often")
    parser.add_argument("--frame-bytes", type=int, default=64, metavar="N", help="txonly: size without FCS, 60..1514")
    parser.add_argument("--mbufs", type=int, default=8_191, metavar="N", help="packet buffers of each device")
    parser.add_argument(
        "--queues", type=int, default=1, metavar="N", help="rx and tx queues of each device (default: 1)"
    )
    parser.add_argument("--hugepages", action="store_true", help="use hugepages")
    parser.add_argument("--eal", action="append", default=[], metavar="ARG", help="a raw EAL argument; repeatable")
    return parser


def _print_stats(devices: Sequence[EthDev], title: str) -> None:
    print(f"-- {title}")
    for device in devices:
        s = device.stats()
        print(
            f"{device.name:20} rx {s.rx_packets:>12,} packets {s.rx_bytes:>15,} bytes {s.rx_missed:,} missed "
            f"{s.rx_errors:,} errors {s.rx_no_mbuf:,} without a buffer | "
            f"tx {s.tx_packets:>12,} packets {s.tx_bytes:>15,} bytes {s.tx_errors:,} errors",
            flush=True,
        )


def _run(options: argparse.Namespace) -> int:
    if not options.vdev and not options.pci:
        raise DpdkError("no device", remedy="name one with --vdev or --pci")
    memory_mb = 32 + (len(options.vdev) + len(options.pci)) * (8 + options.mbufs * 4096 // 1_000_000)
    start_eal(
        EalConfig(
            memory_mb=memory_mb,
            hugepages=options.hugepages,
            vdevs=tuple(options.vdev),
            pci_addresses=tuple(options.pci),
            extra_arguments=tuple(options.eal),
        )
    )
    devices: list[EthDev] = []
    leaked = moved = 0
    try:
        for name in existing_names():
            is_client = any(v.startswith(f"{name},") and "role=server" not in v for v in options.vdev)
            described = Device(name, is_reconnecting=is_client and name.startswith("net_memif"))
            devices.append(EthDev(described, mbufs_count=options.mbufs, queues_count=options.queues))
        ends = options.duration is None and all(device.driver == "net_pcap" for device in devices)
        try:
            moved = forward(
                devices,
                options.forward,
                duration_s=options.duration,
                idle_rounds_max=_IDLE_ROUNDS_AT_END if ends else None,
                frame_bytes=options.frame_bytes,
                stats_period_s=options.stats_period,
                on_stats=lambda elapsed: _print_stats(devices, f"{elapsed:.1f} s"),
            )
        except KeyboardInterrupt:
            print("interrupted")
        _print_stats(devices, f"{options.forward}: {moved:,} frames moved")
        for device in devices:
            for name, value in device.xstats().items():
                if value:
                    print(f"{device.name}: {name} {value}")
    finally:
        for device in devices:
            device.close()
            leaked += device.leaked_mbufs
        stop_eal()
    if leaked:
        print(f"{leaked} packet buffers did not come back", file=sys.stderr)
    return 1 if leaked else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except (DpdkError, ValueError, OSError) as error:
        print(f"python -m dpdk_backend: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
