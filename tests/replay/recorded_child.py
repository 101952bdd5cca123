"""What test_recorded.py runs in a network of its own: ``recorded_child.py FOLDER``. Prints JSON.

Three members as docs/replay.md starts them, a client that writes and reads, and the command that each member names at
its end.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path

import r2p2
from r2p2.apps.kv import encode_command
from r2p2.processes import Supervisor

R2P2_COMMAND = [sys.executable, "-m", "r2p2"]
MEMBERS = [f"10.7.0.{n}:8201" for n in (1, 2, 3)]
CLIENT = "10.7.0.9"


async def load() -> None:
    """Writes in batches, so that the leader's clock ticks between them; and a read of whoever answers."""
    async with r2p2.Client(*MEMBERS, bind=CLIENT, session=True, timeout_s=20) as client:
        for number in range(40):
            await client.call_many([encode_command("SET", f"key{number}", str(n)) for n in range(10)])
            await asyncio.sleep(0.013)
        assert await client.call(encode_command("GET", "key39"), policy=r2p2.REPLICATED_READ) == b"$1\r\n9\r\n"


def entry_times(capture: Path) -> dict[str, int]:
    """Of the entries that were sent on, by the index of the one before: the log's time."""
    words = ["dissect", "--json", "--entries", "--filter", "kind=APPEND", str(capture)]
    done = subprocess.run([*R2P2_COMMAND, *words], capture_output=True, text=True, check=True)
    found = {}
    for raft in (json.loads(line)["raft"] for line in done.stdout.splitlines()):
        for entry in raft.get("entries", [])[:1]:
            if "time_ms" in entry:
                found[str(raft["prev_index"])] = entry["time_ms"]
    return found


def main(folder: Path) -> None:
    """Everything."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for address in [*(member.partition(":")[0] for member in MEMBERS), CLIENT]:
        subprocess.run(["ip", "address", "add", f"{address}/32", "dev", "lo"], check=True)
    result: list[dict[str, object]] = []
    with Supervisor(folder / "logs") as supervisor:
        servers = []
        for slot, member in enumerate(MEMBERS):
            command = [*R2P2_COMMAND, "serve", "--app", "kv", "--bind", member, "--members", ",".join(MEMBERS)]
            command += ["--pcap", str(folder / f"{slot}.pcap"), "--pcap-rate", "1000000"]
            servers.append(supervisor.start(f"member{slot}", command))
        for server in servers:
            server.wait_line(lambda line: "leader of term" in line or "follows member" in line, 30, what="a leader")
        asyncio.run(load())
        for server in servers:
            server.signal(signal.SIGTERM)
            server.wait(20)
        for slot, server in enumerate(servers):
            (told,) = [line for line in server.lines if "replay it with r2p2 replay" in line]
            words = told.partition("r2p2 replay ")[2].replace("OUT.pcap", str(folder / f"{slot}-again.pcap")).split()
            done = subprocess.run([*R2P2_COMMAND, "replay", *words], capture_output=True, text=True, check=False)
            one: dict[str, object] = {"code": done.returncode, "said": done.stdout + done.stderr}
            if any("leader of term" in line for line in server.lines):
                one["times"] = [entry_times(folder / f"{slot}{name}.pcap") for name in ("", "-again")]
            result.append(one)
    print(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
