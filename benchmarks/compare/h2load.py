"""gRPC calls made by nghttp2's h2load: HTTP/2 requests with a fixed body, the same for every call.

A client in C that needs about 4 us a call, so that it is not what limits an etcd or a gRPC server. It takes any answer
of HTTP for a success and does not look at gRPC's own status, which comes in the trailers; so the bytes of the answers
are held against what they must be at least, and each system counts on its side, too.
"""

from __future__ import annotations

import re
import resource
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.compare.measure import Load, Sample, Stage, Times, run_to_end
from r2p2.processes import ManagedProcess, ProcessFailed

BEGINS = "Main benchmark duration is started"
ENDS = "Main benchmark duration is over"
GRPC_PREFIX_BYTES = 5  # before each message: compressed or not, and its length


@dataclass(frozen=True, slots=True)
class Summary:
    """What h2load prints at the end, of the measured time alone."""

    done: int
    succeeded: int
    failed: int
    data_bytes: int


_REQUESTS = re.compile(
    r"requests: (\d+) total, (\d+) started, (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout"
)
_TRAFFIC = re.compile(r"traffic: .*\((\d+)\) total, .*\((\d+)\) headers .*, .*\((\d+)\) data")


def parse_summary(text: str) -> Summary:
    """From h2load's output. ProcessFailed when it is not one."""
    requests, traffic = _REQUESTS.search(text), _TRAFFIC.search(text)
    if requests is None or traffic is None:
        raise ProcessFailed(f"h2load printed no summary:\n{text[-2000:]}")
    _, _, done, succeeded, failed, errored, timeout = (int(number) for number in requests.groups())
    return Summary(done, succeeded, failed + errored + timeout, int(traffic.group(3)))


def parse_log(lines: Sequence[str]) -> list[int]:
    """The latencies in h2load's log (start, status and duration of each request), sorted, in microseconds."""
    rows = (line.split("\t") for line in lines)
    return sorted(int(row[2]) for row in rows if len(row) == 3 and row[1] == "200")


def percentile(values: Sequence[int], fraction: float) -> float:
    """Of sorted values; 0 of none."""
    return float(values[min(len(values) - 1, int(fraction * len(values)))]) if values else 0.0


def check_answers(summary: Summary, outstanding: int, answer_bytes_min: int) -> None:
    """ProcessFailed when there are none, or answers without a message, which is what an error of gRPC looks like.

    The bytes of those that waited when the measured time began may have been counted to the warm-up.
    """
    counted = max(1, summary.succeeded - outstanding)
    if not summary.succeeded or summary.data_bytes < counted * answer_bytes_min:
        raise ProcessFailed(f"{summary.succeeded} answers in {summary.data_bytes} bytes: some are errors of gRPC")


def grpc_body(message: bytes) -> bytes:
    """A request body: one message, not compressed."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def run(
    stage: Stage,
    url: str,
    message: bytes,
    load: Load,
    times: Times,
    servers: Sequence[ManagedProcess],
    answer_bytes_min: int,
) -> Sample:
    """Calls `url` with `message`; each answer is a message of at least so many bytes. ProcessFailed otherwise."""
    body, log = stage.folder / "request.bin", stage.folder / "h2load.tsv"
    body.write_bytes(grpc_body(message))
    argv = ["h2load", "-t", "1", "-c", str(load.connections), "-m", str(load.depth)]
    argv += ["-D", f"{round(times.measure_s * 1000)}ms", "--warm-up-time", f"{round(times.warmup_s * 1000)}ms"]
    argv += ["-H", "content-type: application/grpc", "-H", "te: trailers", "-d", str(body), "--log-file", str(log)]
    used_before = _children_seconds()
    client = stage.supervisor.start("h2load", [*argv, url])
    _, server_cores = run_to_end(
        stage, client, servers, times, lambda line: line.startswith(BEGINS), lambda line: line.startswith(ENDS)
    )
    # With that of its warm-up: it says nothing of its own, and ends too soon after the last line to be asked.
    client_cores = (_children_seconds() - used_before) / (times.warmup_s + times.measure_s)
    summary = parse_summary("\n".join(client.lines))
    check_answers(summary, load.outstanding, GRPC_PREFIX_BYTES + answer_bytes_min)
    latencies = parse_log(read_lines(log))
    p50_us, p99_us = percentile(latencies, 0.5), percentile(latencies, 0.99)
    return Sample(summary.succeeded / times.measure_s, p50_us, p99_us, server_cores, client_cores, summary.failed)


def _children_seconds() -> float:
    """Processor time of the children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def read_lines(path: Path) -> list[str]:
    """Of a log, which is gone afterwards."""
    lines = path.read_text().splitlines()
    path.unlink()
    return lines
