"""Calls over shared memory, past the kernel: a server in a process of its own and a client in Python, both on DPDK.

Run it: ``python examples/bypass.py``, as anybody, without a NIC or hugepages; ``--backend uv`` has the same over kernel
UDP, where DPDK is not built. The server is ``r2p2 serve``; between the two is one memif link. A client that polls
belongs to whoever has a loop: calls go out and replies come in where ``poll_once`` is called, and nowhere else.
"""

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from statistics import quantiles

import r2p2
from r2p2.ports import Link


def address_for(backend: str) -> str:
    """Where the server listens: over memif anywhere, over the kernel where nobody else does."""
    if backend == "dpdk":
        return "10.0.0.1:8000"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def serve(backend: str, server: str, socket_path: str) -> subprocess.Popen[bytes]:
    """An echo server as a process."""
    command = [sys.executable, "-m", "r2p2", "serve", "--app", "echo", "--backend", backend, "--bind", server]
    if backend == "dpdk":
        command += ["--link", f"server:10.0.0.2:{socket_path}"]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


class Caller:
    """Keeps so many calls waiting until so many have been answered."""

    def __init__(self, client: r2p2.PollClient, server: str, outstanding: int) -> None:
        self.client, self.server, self.outstanding = client, server, outstanding
        self.answered = 0
        self.took_us: list[float] = []

    def call(self) -> None:
        """One call; its reply makes room for the next."""
        began = time.perf_counter()

        def ended(reply: bytes | r2p2.CallError) -> None:
            if isinstance(reply, r2p2.CallError):
                raise reply
            self.took_us.append(1e6 * (time.perf_counter() - began))
            self.answered += 1

        self.client.call(self.server, b"hello", ended)

    def run(self, count: int) -> float:
        """Calls a second."""
        began = time.perf_counter()
        while self.answered < count:
            for _ in range(min(self.outstanding, count - self.answered) - self.client.waiting_count):
                self.call()
            if not self.client.poll_once():
                os.sched_yield()  # the server may have no other processor
        return count / (time.perf_counter() - began)


def wait_for(client: r2p2.PollClient, server: str) -> None:
    """Calls until one is answered: what is sent before both ends of a link are there is lost."""
    answers: list[bytes | r2p2.CallError] = []
    end = time.monotonic() + 30
    while not any(isinstance(answer, bytes) for answer in answers):
        if time.monotonic() > end:
            raise SystemExit(f"{server} does not answer: {answers[-1:]!r}")
        if not client.waiting_count:
            client.call(server, b"are you there?", answers.append, timeout_s=0.1)
        if not client.poll_once():
            os.sched_yield()


def main() -> None:
    """Starts the server, calls it one at a time and 64 at once, and says how fast that was."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=("dpdk", "uv"), default="dpdk")
    parser.add_argument("--calls", type=int, default=20_000)
    args = parser.parse_args()
    server = address_for(args.backend)
    with tempfile.TemporaryDirectory(prefix="r2p2-") as folder:
        socket_path = os.path.join(folder, "link")
        process = serve(args.backend, server, socket_path)
        try:
            if args.backend == "dpdk":
                spec = r2p2.PortSpec("dpdk", "10.0.0.2", 9000, (Link(socket_path, "client", "10.0.0.1"),))
            else:
                spec = r2p2.PortSpec("uv", "127.0.0.1")
            with r2p2.open_port(spec) as port:
                client = r2p2.PollClient(port)
                wait_for(client, server)
                for outstanding in (1, 64):
                    caller = Caller(client, server, outstanding)
                    rate = caller.run(args.calls)
                    p50, p99 = (quantiles(caller.took_us, n=100)[at] for at in (49, 98))
                    print(f"{outstanding} waiting: {rate:,.0f} calls/s, p50 {p50:.0f} us, p99 {p99:.0f} us")
                client.close()
        except r2p2.UserError as error:  # DPDK is not built, or has no memory
            raise SystemExit(str(error)) from None
        finally:
            process.terminate()
            process.wait()


if __name__ == "__main__":
    main()
