"""``r2p2 dissect`` as a user runs it: golden texts of the golden captures, options, and what can be wrong with a file.

``R2P2_REWRITE=1 pytest tests/dissect`` writes the golden texts anew; read the difference before you commit it.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from scapy.packet import Packet, Raw

from r2p2.capture import PcapWriter
from r2p2.cli import main
from scapy_layers import (
    R2P2,
    RaftAppend,
    RaftAppendReply,
    RaftPreVote,
    RaftReadIndex,
    RaftReadIndexReply,
    RaftTimeoutNow,
    RaftVote,
    RaftVoteTransfer,
    packets,
)

GOLDEN = Path(__file__).resolve().parent / "golden"
PCAPS = Path(__file__).resolve().parent.parent.parent / "pcaps"
T0 = 1_700_000_000_000_000_000

VIEWS = {
    "echo-in.txt": ["echo-in.pcap"],
    "echo-out.txt": ["echo-out.pcap"],
    "election.txt": ["election.pcap"],
    "election-raft.txt": ["election.pcap", "--raft"],
    "election-raft.ndjson": ["election.pcap", "--raft", "--json"],
    "replication.txt": ["replication.pcap", "--entries"],
    "replication-raft.txt": ["replication.pcap", "--raft"],
    "replication.ndjson": ["replication.pcap", "--json", "--entries", "--filter", "kind=APPEND"],
    "election.mmd": ["election.pcap", "--mermaid"],
    "forward.mmd": ["forward.pcap", "--mermaid", "--filter", "ip=10.0.0.9"],
    "forward.txt": ["forward.pcap"],
    "forward-pairs.txt": ["forward.pcap", "--pairs"],
    "forward-pairs.ndjson": ["forward.pcap", "--pairs", "--json", "--filter", "type=REQUEST"],
}


def dissect(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    """Exit code, output and errors of the command."""
    code = main(["dissect", *args])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def lines(capsys: pytest.CaptureFixture[str], name: str, *args: str) -> list[str]:
    """The lines of a golden capture, without error."""
    code, out, err = dissect(capsys, str(PCAPS / name), *args)
    assert (code, err) == (0, "")
    return out.splitlines()


@pytest.mark.parametrize("name", VIEWS)
def test_golden_texts(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    capture, *options = VIEWS[name]
    found = "\n".join(lines(capsys, capture, *options)) + "\n"
    path = GOLDEN / name
    if os.environ.get("R2P2_REWRITE"):
        path.write_text(found)
    assert found == path.read_text()


@pytest.mark.parametrize("name", [name for name in VIEWS if name.endswith(".ndjson")])
def test_json_is_an_object_a_line(name: str) -> None:
    found = [json.loads(line) for line in (GOLDEN / name).read_text().splitlines()]
    assert len(found) > 2
    assert all(isinstance(value, dict) for value in found)


@pytest.mark.parametrize(
    ("expressions", "count"),
    [
        ([], 45),
        (["type=RESPONSE"], 2),
        (["type=response,request"], 5),
        (["kind=VOTE"], 3),
        (["kind!=APPEND", "type=RAFT_REQ"], 6),
        (["rid=2", "ip=10.0.0.9"], 3),
        (["port=30000"], 5),
        (["member=3", "term=2"], 5),
        (["policy=REPLICATED_ROUTE"], 3),
        (["policy!=REPLICATED_ROUTE"], 42),
        (["problem=yes"], 0),
        (["problem=no"], 45),
    ],
)
def test_filters(expressions: list[str], count: int, capsys: pytest.CaptureFixture[str]) -> None:
    options = [part for expression in expressions for part in ("--filter", expression)]
    assert len(lines(capsys, "election.pcap", *options)) == count


def test_filter_by_reason_of_a_problem(capsys: pytest.CaptureFixture[str]) -> None:
    found = lines(capsys, "echo-in.pcap", "--filter", "problem=flags,order", "--filter", "type=REQUEST")
    assert len(found) == 7
    assert all("malformed (flags)" in line or "malformed (order)" in line for line in found if "rid" in line)


@pytest.mark.parametrize(
    ("option", "text"),
    [
        (["--filter", "nonsense"], "expected KEY=VALUE"),
        (["--filter", "colour=red"], "no key 'colour'; there are type, kind,"),
        (["--filter", "type=RAFT"], "no type 'RAFT'; there are ACK,"),
        (["--count", "0"], "0 is not positive"),
        (["--port", "70000"], "70000 is not a UDP port"),
        (["--pairs", "--raft"], "not allowed with"),
    ],
)
def test_wrong_usage_is_2_and_says_why(option: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = dissect(capsys, str(PCAPS / "election.pcap"), *option)
    assert (code, out) == (2, "")
    assert text in err


def test_count_stops(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(lines(capsys, "election.pcap", "--count", "3")) == 3


def test_missing_unreadable_foreign_and_empty_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing, foreign, empty = tmp_path / "no.pcap", tmp_path / "text", tmp_path / "empty"
    foreign.write_text("hello, this is text")
    empty.touch()
    for path, text in (
        (missing, "No such file or directory"),
        (tmp_path, "Is a directory"),
        (foreign, "neither pcap nor pcapng: it starts with the bytes 68 65 6c 6c"),
        (empty, "empty: not even a file header"),
    ):
        code, out, err = dissect(capsys, str(path))
        assert (code, out) == (1, "")
        assert err == f"r2p2: error: {path}: {text}\n"


def test_a_torn_file_is_printed_to_its_tear(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "torn.pcap"
    path.write_bytes((PCAPS / "election.pcap").read_bytes()[:1000])
    code, out, err = dissect(capsys, str(path))
    assert code == 1
    assert out.splitlines() == (GOLDEN / "election.txt").read_text().splitlines()[: len(out.splitlines())]
    assert len(out.splitlines()) == 8
    assert "truncated at byte 1000: record 9" in err
    code, out, err = dissect(capsys, str(path), "--raft")
    assert "end of the capture" in out and code == 1


def test_standard_input_and_a_reader_that_leaves(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "r2p2", "dissect", "-"]
    data = (PCAPS / "election.pcap").read_bytes()
    done = subprocess.run(command, input=data, capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode() == (GOLDEN / "election.txt").read_text()
    path = tmp_path / "long.pcap"
    with PcapWriter(path) as writer:
        for number in range(5000):
            writer.write(T0 + number, 1, 1, 2, 8000, bytes(R2P2(rid=1)))
    with subprocess.Popen(
        [*command[:-1], str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert "REQUEST" in process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=60) == 1


def test_other_ports_need_the_magic_or_the_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.pcap"
    with PcapWriter(path) as writer:
        writer.write(T0, 1, 1, 2, 7777, bytes(R2P2(rid=1)))
        writer.write(T0, 1, 1, 2, 7777, b"something else")
    _, out, _ = dissect(capsys, str(path))
    assert len(out.splitlines()) == 1
    _, out, _ = dissect(capsys, str(path), "--port", "7777")
    assert "malformed (magic)" in out.splitlines()[1]


def test_a_diagram_ends_and_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("r2p2.dissect.mermaid.MESSAGES_MAX", 2)
    path = tmp_path / "a.pcap"
    with PcapWriter(path) as writer:
        for number in range(5):
            writer.write(T0 + number, 1, 1, 2, 8000, bytes(R2P2(rid=number) / Raw(b"a;b#c<d>")))
    assert lines(capsys, str(path), "--mermaid") == [
        "sequenceDiagram",
        "    participant n0 as client 0.0.0.1:1",
        "    participant n1 as host 0.0.0.2:8000",
        "    n0->>n1: 0.0 us: REQUEST rid 0 LB_ROUTE 8 bytes #quot;a#59;b#35;c#60;d#62;#quot;",
        "    n0->>n1: 0.0 us: REQUEST rid 1 LB_ROUTE 8 bytes #quot;a#59;b#35;c#60;d#62;#quot;",
        "    Note over n0: 3 more messages left out",
    ]
    code, _, err = dissect(capsys, str(path), "--mermaid", "--json")
    assert code == 1 and "exclude each other" in err


class Terminal(io.StringIO):
    """Standard error on a terminal."""

    def isatty(self) -> bool:
        """Yes."""
        return True


def test_a_terminal_gets_a_summary_and_progress(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "long.pcap"
    with PcapWriter(path) as writer:
        for number in range(5000):
            writer.write(T0 + number, 1, 1, 2, 8000, bytes(R2P2(rid=1)))
    terminal, out = Terminal(), io.StringIO()
    monkeypatch.setattr("r2p2.dissect._PROGRESS_BYTES_MIN", 0)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(sys, "stdout", out)
    assert main(["dissect", str(path)]) == 0
    assert "4,096 packets" in terminal.getvalue()
    assert terminal.getvalue().endswith("5000 packets, 5000 messages\n")
    assert len(out.getvalue().splitlines()) == 5000
    assert main(["dissect", str(PCAPS / "echo-in.pcap")]) == 0
    assert "2 arp" in terminal.getvalue() and "2 fragment" in terminal.getvalue()


class Story:
    """A capture of Raft messages told in calls."""

    def __init__(self, path: Path) -> None:
        """An empty capture."""
        self.path = path
        self.writer = PcapWriter(path)
        self.time_ns = T0

    def send(self, source: int, target: int, message: Packet, after_ms: float = 1) -> None:
        """One message between members (addresses 1, 2, ...)."""
        self.time_ns += int(after_ms * 1e6)
        for part in packets(message):
            self.writer.write(self.time_ns, source, 8000, target, 8000, bytes(part))

    def append(self, leader: int, term: int, after_ms: float = 1, **fields: Any) -> None:
        """An APPEND to member 9."""
        message = RaftAppend(sender=leader, term=term, cluster_id=fields.pop("cluster_id", 1), **fields)
        self.send(leader, 9, R2P2(rid=1) / message, after_ms)

    def told(self, capsys: pytest.CaptureFixture[str]) -> list[str]:
        """The timeline, without times."""
        self.writer.close()
        _, out, _ = dissect(capsys, str(self.path), "--raft")
        return [line[12:] for line in out.splitlines()]


@pytest.fixture
def story(tmp_path: Path) -> Story:
    """A new capture."""
    return Story(tmp_path / "story.pcap")


def test_timeline_names_two_leaders_of_a_term(story: Story, capsys: pytest.CaptureFixture[str]) -> None:
    for leader in (1, 2, 2):
        story.append(leader, 3)
    told = story.told(capsys)
    assert [text for text in told if "TWO" in text] == ["TWO LEADERS in term 3: members 1 and 2"]


def test_timeline_tells_of_a_deposed_leader_once(story: Story, capsys: pytest.CaptureFixture[str]) -> None:
    for leader, term in ((1, 3), (2, 4), (1, 3), (1, 3)):
        story.append(leader, term)
    told = story.told(capsys)
    assert told[1] == "member 2 leads term 4, 1.00 ms after the last APPEND of member 1 in term 3"
    assert told.count("member 1 still sends APPEND of term 3; term is 4") == 1


def test_timeline_tells_commits_at_intervals_and_none_twice(story: Story, capsys: pytest.CaptureFixture[str]) -> None:
    for commit in range(1, 301):
        story.append(1, 3, commit=commit, global_commit=commit // 2)
    told = [text for text in story.told(capsys) if text.startswith("commit")]
    assert told == [
        "commit 1 (+1) in term 3",
        "commit 101 (+100) in term 3, forgotten through 50",
        "commit 201 (+100) in term 3, forgotten through 100",
        "commit 300 (+99) in term 3, forgotten through 150",
    ]


def test_timeline_measures_an_interruption_without_the_old_leaders_answers(
    story: Story, capsys: pytest.CaptureFixture[str]
) -> None:
    story.append(1, 3)
    story.append(2, 4, after_ms=100)
    story.send(1, 9, R2P2(type="RESPONSE"), after_ms=1)
    story.send(2, 9, R2P2(type="RESPONSE"), after_ms=4)
    told = [text for text in story.told(capsys) if "answer" in text]
    assert told == [
        "first answer to a client, from 0.0.0.2:8000: 105.00 ms after the last APPEND of the old leader",
    ]


def test_timeline_tells_a_transfer_of_leadership(story: Story, capsys: pytest.CaptureFixture[str]) -> None:
    story.append(1, 3)
    story.send(2, 1, R2P2(rid=1) / RaftAppendReply(sender=2, term=3, round=1, accepted=1, cluster_id=1))
    for _ in range(2):
        story.send(1, 2, R2P2(rid=2) / RaftTimeoutNow(sender=1, term=3, cluster_id=1))
    story.send(2, 9, R2P2(rid=3) / RaftVoteTransfer(sender=2, term=4, last_index=7, last_term=3, cluster_id=1))
    story.append(2, 4)
    assert story.told(capsys)[1:4] == [
        "member 1 asks member 2 to lead after it, in term 3",
        "member 2 stands, as its leader asked, in term 4, log ends at 7@3, 4.00 ms after the last APPEND",
        "member 2 leads term 4, 5.00 ms after the last APPEND of member 1 in term 3, 1.00 ms after the election began",
    ]


def _heartbeat(story: Story, term: int, round_: int, members: tuple[int, ...], leader: int = 1) -> None:
    for member in members:
        append = RaftAppend(sender=leader, term=term, round=round_, cluster_id=1)
        story.send(leader, member, R2P2(rid=round_) / append, after_ms=0.01)
    for member in members:
        reply = RaftAppendReply(sender=member, term=term, round=round_, accepted=1, cluster_id=1)
        story.send(member, leader, R2P2(rid=round_) / reply, after_ms=0.01)


def _stand(story: Story, kind: type[Packet], member: int, term: int, after_ms: float = 1) -> None:
    asks = kind(sender=member, term=term, last_index=7, last_term=3, cluster_id=1)
    story.send(member, 9, R2P2(rid=term) / asks, after_ms)


@pytest.mark.parametrize("seen", [(2, 3), (3,)], ids=["all answers", "one follower's own answers"])
def test_timeline_counts_no_failed_election_to_the_next(
    story: Story, capsys: pytest.CaptureFixture[str], seen: tuple[int, ...]
) -> None:
    _heartbeat(story, 3, 1, seen)
    _stand(story, RaftPreVote, 2, 4)  # the others hear the leader, refuse, and go on
    for round_ in range(2, 12):
        story.time_ns += 100_000_000
        _heartbeat(story, 3, round_, seen)
    _stand(story, RaftPreVote, 2, 4, after_ms=200)  # the same term again, and the leader is gone
    _stand(story, RaftVote, 2, 4)
    story.append(2, 4)
    (leads,) = (text for text in story.told(capsys) if text.startswith("member 2 leads"))
    assert leads.endswith(" in term 3, 2.00 ms after the election began")


def test_timeline_counts_a_late_candidate_of_the_leaders_own_term_to_no_election(
    story: Story, capsys: pytest.CaptureFixture[str]
) -> None:
    story.append(1, 3)
    _stand(story, RaftVote, 2, 3)  # it had not heard yet who had won
    _stand(story, RaftVote, 2, 4, after_ms=1000)
    story.append(2, 4)
    (leads,) = (text for text in story.told(capsys) if text.startswith("member 2 leads"))
    assert leads.endswith(", 1.00 ms after the election began")


def test_timeline_has_an_election_last_over_split_votes_and_a_minority_that_knows_of_none(
    story: Story, capsys: pytest.CaptureFixture[str]
) -> None:
    _heartbeat(story, 3, 1, (2, 3, 4, 5))
    _stand(story, RaftVote, 3, 4)
    story.send(3, 1, R2P2(rid=1) / RaftAppendReply(sender=3, term=3, round=1, accepted=1, cluster_id=1))  # late
    story.send(4, 1, R2P2(rid=1) / RaftAppendReply(sender=4, term=3, round=1, accepted=1, cluster_id=1))
    _heartbeat(story, 3, 2, (2,))  # cut off together with its leader
    _stand(story, RaftVote, 4, 5, after_ms=100)
    story.append(4, 5)
    (leads,) = (text for text in story.told(capsys) if text.startswith("member 4 leads"))
    assert leads.endswith(", 103.02 ms after the election began")


def test_timeline_counts_reads_and_names_a_stale_one(story: Story, capsys: pytest.CaptureFixture[str]) -> None:
    def read(context: int, index: int, term: int = 3) -> None:
        asked = RaftReadIndex(sender=2, term=term, cluster_id=1, context=context)
        told = RaftReadIndexReply(sender=1, term=term, cluster_id=1, context=context, index=index, granted=index > 0)
        story.send(2, 1, R2P2(rid=context) / asked)
        story.send(1, 2, R2P2(rid=context) / told)

    story.append(1, 3, commit=5)
    for context in range(60):
        read(context, 5 + context % 3)
    read(100, 4)
    read(101, 0)
    read(102, 0)
    told = [text for text in story.told(capsys) if "read" in text.lower()]
    assert told == [
        "reads granted to followers: 1 (+1), at most after 5",
        "reads granted to followers: 51 (+50), at most after 7",
        "STALE READ: member 2 asked when 5 was committed, and member 1 says 4",
        "member 1 refuses reads of member 2 in term 3",
        "reads granted to followers: 61 (+10), at most after 7",
    ]


def test_many_gaps_are_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "sample.pcap"
    with PcapWriter(path) as writer:
        for rid in range(9):
            writer.write(T0 + rid, 1, 1, 2, 8000, bytes(packets(R2P2(rid=rid) / Raw(bytes(2000)))[0]))
    assert dissect(capsys, str(path))[2] == ""
    with PcapWriter(path) as writer:
        for rid in range(9):
            writer.write(T0 + rid, 1, 1, 2, 8000, bytes(packets(R2P2(rid=rid) / Raw(bytes(2000)))[0]))
        writer.write(T0 + 9, 1, 1, 2, 8000, bytes(R2P2(rid=9) / Raw(b"whole")))
    assert dissect(capsys, str(path))[2] == ""
    code, _, err = dissect(capsys, str(path), "--pairs")
    assert (code, err) == (
        0,
        "r2p2: incomplete messages: 9, requests without an answer: 1; "
        "normal in a sample (r2p2 serve --pcap under load), losses in a full capture\n",
    )


def test_timeline_keeps_clusters_apart(story: Story, capsys: pytest.CaptureFixture[str]) -> None:
    story.append(1, 3, cluster_id=1)
    story.append(2, 8, cluster_id=2)
    told = story.told(capsys)
    assert told[:2] == ["member 1 leads term 3", "cluster 00000002: member 2 leads term 8"]


def test_log_runs_know_what_a_new_term_drops() -> None:
    from r2p2.dissect.timeline import _Log

    log = _Log()
    assert log.put(1, 10, 1) is None
    assert log.put(11, 20, 2) is None
    assert log.put(5, 8, 1) is None, "a repeated APPEND drops nothing"
    assert log.runs == [(1, 10, 1), (11, 20, 2)]
    assert log.put(15, 16, 3) == (15, 20, 2)
    assert log.runs == [(1, 10, 1), (11, 14, 2), (15, 16, 3)]
    assert log.put(8, 9, 4) == (8, 16, 1)
    assert log.runs == [(1, 7, 1), (8, 9, 4)]
    assert log.put(30, 31, 4) is None
    assert log.put(10, 29, 4) is None
    assert log.runs == [(1, 7, 1), (8, 31, 4)]


def test_requests_waiting_are_bounded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from r2p2.dissect.messages import Assembler
    from r2p2.dissect.pairs import PairsView

    monkeypatch.setattr("r2p2.dissect.pairs.WAITING_MAX", 3)
    view = PairsView(0, lambda message: True)
    assembler = Assembler()
    given_up = []
    for rid in range(5):
        one: Any = SimpleNamespace(
            number=1,
            time_ns=rid,
            source_ip=1,
            source_port=1,
            target_ip=2,
            target_port=8000,
            payload=bytes(R2P2(rid=rid) / Raw(b"x")),
            notes=(),
        )
        for message in assembler.add(one):
            given_up += list(view.message(message))
    assert [("rid 0 " in text, "rid 1 " in text) for text in given_up] == [(True, False), (False, True)]
    assert len(list(view.close())) == 3 + 1


def pairs_of(
    path: Path, calls: list[tuple[int, int, bool]], capsys: pytest.CaptureFixture[str]
) -> list[tuple[int, int]]:
    """Of requests and answers of one client (us, number of the call, is an answer): the rid and us of each pair."""
    with PcapWriter(path) as writer:
        for at_us, number, is_answer in sorted(calls):
            payload = bytes(R2P2(rid=1 + number & 0xFFFF, type="RESPONSE" if is_answer else "REQUEST") / Raw(b"x"))
            ends = (2, 8000, 1, 9000) if is_answer else (1, 9000, 2, 8000)
            writer.write(T0 + at_us * 1000, *ends, payload)
    objects = [json.loads(line) for line in dissect(capsys, str(path), "--pairs", "--json")[1].splitlines()]
    return [(o["request"]["rid"], o["latency_ns"] // 1000) for o in objects if o.get("answer")]


def test_an_answer_of_a_later_round_is_not_a_requests(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A sample of a million calls a second, each answered after 300 us: rids come again after 66 ms."""
    period_us = 1 << 16
    requests = [(us, us, False) for us in range(0, 400_000, 500)]
    answered = [(us + 300, us, True) for us in range(0, 400_000, 9_000)]
    # The same rids again, one and three rounds on; and after a second in which nothing of the client was taken.
    rounds = [500 * n + period_us * round_ for n in (1, 2) for round_ in (1, 3)]
    later = [(us + 300, us, True) for us in rounds]
    after_a_hole = [(1_000 + 20 * period_us + 300, 1_000 + 20 * period_us, True)]
    found = pairs_of(tmp_path / "sample.pcap", requests + answered + later + after_a_hole, capsys)
    assert len(found) == len(answered) and {latency for _, latency in found} == {300}


def test_a_request_may_wait_while_others_go_by(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A whole capture: bursts of requests, of which one waits for 20,000 others, and one alone for two seconds."""
    calls = [(us, us, is_answer) for us in range(1, 20_000) for is_answer in (False, True)]
    calls += [(0, 0, False), (20_000, 0, True), (20_001, 20_000, False), (2_020_001, 20_000, True)]
    found = pairs_of(tmp_path / "whole.pcap", calls, capsys)
    assert len(found) == 20_001
    assert (1, 20_000) in found and (20_001, 2_000_000) in found
