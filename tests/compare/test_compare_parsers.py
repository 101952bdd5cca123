"""What the tools of the comparison print, read; and what its clients send."""

from __future__ import annotations

import json

import pytest

from benchmarks.compare import etcd, h2load, kv_stores, measure, ours
from benchmarks.compare.run import first_version
from r2p2.processes import ProcessFailed

H2LOAD = """\
Warm-up phase is over for thread #0.
Main benchmark duration is started for thread #0.
Main benchmark duration is over for thread #0. Stopping all clients.

finished in 4.02s, 14594.33 req/s, 1015.17KB/s
requests: 43783 total, 43783 started, 43783 done, 43780 succeeded, 1 failed, 0 errored, 2 timeout
status codes: 43783 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 2.97MB (3118608) total, 114.31KB (117052) headers (space savings 94.73%), 1.95MB (2046730) data
                     min         max         mean         sd        +/- sd
time for request:      441us     92.12ms      4.30ms      4.61ms    92.69%
"""


def test_h2loads_summary() -> None:
    assert h2load.parse_summary(H2LOAD) == h2load.Summary(43783, 43780, 3, 2046730)


def test_h2load_without_a_summary_is_a_failure() -> None:
    with pytest.raises(ProcessFailed, match="no summary"):
        h2load.parse_summary("starting benchmark...\nconnect failed\n")


def test_h2loads_log_gives_sorted_latencies_of_good_answers() -> None:
    lines = ["1700000000000001\t200\t300", "1700000000000002\t200\t100", "1700000000000003\t500\t1", "half a li"]
    assert h2load.parse_log(lines) == [100, 300]


def summary(succeeded: int, data_bytes: int) -> h2load.Summary:
    return h2load.Summary(succeeded, succeeded, 0, data_bytes)


def test_answers_that_began_in_the_warm_up_may_lack_their_bytes() -> None:
    h2load.check_answers(summary(595, 40_848), 1024, 69)
    h2load.check_answers(summary(5000, 69 * (5000 - 64)), 64, 69)


@pytest.mark.parametrize("found", [summary(0, 0), summary(5000, 0), summary(5000, 69 * 4000), summary(20, 0)])
def test_answers_of_http_without_a_message_are_errors_of_grpc(found: h2load.Summary) -> None:
    with pytest.raises(ProcessFailed, match="errors of gRPC"):
        h2load.check_answers(found, 64, 69)


@pytest.mark.parametrize(("fraction", "value"), [(0.0, 1), (0.5, 51), (0.99, 100), (1.0, 100)])
def test_percentiles(fraction: float, value: float) -> None:
    assert h2load.percentile(list(range(1, 101)), fraction) == value


def test_a_percentile_of_nothing() -> None:
    assert h2load.percentile([], 0.5) == 0


def test_a_grpc_body_is_a_flag_a_length_and_the_message() -> None:
    assert h2load.grpc_body(b"abc") == b"\0\0\0\0\x03abc"


def test_etcds_put_is_two_length_delimited_fields() -> None:
    assert etcd.put_message(b"key", b"value!") == b"\x0a\x03key\x12\x06value!"


def status(endpoint: str, member: int, leader: int, revision: int) -> dict[str, object]:
    header = {"cluster_id": 1, "member_id": member, "revision": revision, "raft_term": 2}
    return {"Endpoint": endpoint, "Status": {"header": header, "version": "3.4.23", "leader": leader}}


def test_etcds_status_names_the_leader_and_the_revision() -> None:
    text = json.dumps([status("http://a:1", 7, 9, 5), status("http://b:1", 9, 9, 6)])
    assert etcd.parse_status(text) == [
        etcd.Status("http://a:1", False, True, 5),
        etcd.Status("http://b:1", True, True, 6),
    ]


def test_etcds_status_before_an_election() -> None:
    row = status("http://a:1", 7, 0, 1)
    del row["Status"]["leader"]  # type: ignore[attr-defined]
    text = json.dumps([row | {"Status": row["Status"] | {"leader": 0}}])  # type: ignore[operator]
    assert etcd.parse_status(text) == [etcd.Status("http://a:1", False, False, 1)]


def test_the_sizes_are_the_same_for_all() -> None:
    assert len(measure.resp_set(5)) == measure.REQUEST_BYTES
    assert measure.key(5) in measure.resp_set(5)
    assert kv_stores.memcached_set(5) == b"set key:00000005 0 0 25\r\n" + b"v" * 25 + b"\r\n"
    assert len(etcd.VALUE) == measure.VALUE_BYTES and len(measure.key(16_383)) == measure.KEY_BYTES


def test_our_bench_report_is_split_into_servers_and_client() -> None:
    report = {
        "throughput_rps": 500_000.0,
        "p50_us": 90.0,
        "p99_us": 300.0,
        "cpu_us_per_request": {"replica0": 1.0, "replica1": 0.8, "replica2": 0.8, "generator": 0.5},
        "timeouts": 1,
        "dropped": 2,
        "wrong": 0,
    }
    sample = ours.parse_report(report)
    assert (sample.rate_rps, sample.p50_us, sample.failed) == (500_000, 90, 3)
    assert sample.server_cores == pytest.approx(1.3)
    assert sample.client_cores == pytest.approx(0.25)


def test_a_clients_result() -> None:
    line = '{"answered": 3000, "failed": 1, "seconds": 1.5, "p50_us": 10.0, "p99_us": 20.0, "cpu_seconds": 0.75}'
    assert measure.sample_of(line, 0.5) == measure.Sample(2000, 10, 20, 0.5, 0.5, 1)


def test_a_caller_inside_a_server_has_no_cores_of_its_own() -> None:
    line = '{"answered": 3000, "failed": 0, "seconds": 1.5, "p50_us": 10.0, "p99_us": 20.0}'
    assert measure.sample_of(line, 0.5) == measure.Sample(2000, 10, 20, 0.5, None, 0)


def test_a_client_without_answers_is_a_failure() -> None:
    with pytest.raises(ProcessFailed, match="nothing was answered"):
        measure.sample_of('{"answered": 0, "failed": 9, "seconds": 1.5, "p50_us": 0, "p99_us": 0}', 0.5)


@pytest.mark.parametrize(
    ("program", "text", "wanted"),
    [
        ("etcd", "etcd Version: 3.4.23\nGit SHA: Not provided\nGo Version: go1.19.8\n", "etcd 3.4.23"),
        ("h2load", "h2load nghttp2/1.52.0\n", "h2load 1.52.0"),
        ("redis-server", "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0\n", "redis-server 7.0.15"),
        ("memcached", "memcached 1.6.18\n", "memcached 1.6.18"),
        ("memcached", "", "memcached ?"),
    ],
)
def test_versions(program: str, text: str, wanted: str) -> None:
    assert first_version(program, text) == wanted


@pytest.mark.parametrize(("outstanding", "connections", "depth"), [(1, 1, 1), (256, 4, 64), (64, 64, 1)])
def test_a_load_is_shared_by_its_connections(outstanding: int, connections: int, depth: int) -> None:
    assert measure.Load(outstanding, connections).depth == depth
