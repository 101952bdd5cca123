"""``r2p2 craft``: the examples of its document, what the words mean, and errors with their place."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from r2p2.cli import main
from r2p2.craft import CraftError, craft
from r2p2.craft.language import Word, body, statements
from r2p2.craft.script import _VERBS
from r2p2.dissect.captures import Record, records
from r2p2.dissect.datagrams import Datagram, datagram
from scapy_layers import R2P2

ROOT = Path(__file__).resolve().parent.parent.parent
TEXT = (ROOT / "docs" / "craft.md").read_text()
EXAMPLES = re.findall(
    r"^```craft\n((?:.*\n)*?)```\n+```text\n(?:\$ r2p2 dissect OUT\.pcap ?(.*)\n)?((?:.*\n)*?)```$", TEXT, re.M
)
HOSTS = "host s 10.0.0.1\nhost c 10.0.0.2:30000\nmember m 10.0.0.3\n"


def captured(text: str) -> list[Record]:
    """The packets a description gives."""
    return list(records(io.BytesIO(craft(text))))


def payloads(text: str) -> list[bytes]:
    """The datagrams a description gives, after the hosts s, c and m."""
    found = [datagram(record) for record in captured(HOSTS + text)]
    assert all(isinstance(one, Datagram) and not one.notes for one in found), "headers and checksums are right"
    return [one.payload for one in found if isinstance(one, Datagram)]


@pytest.mark.parametrize(("text", "options", "shown"), EXAMPLES)
def test_the_examples_of_the_document(
    text: str, options: str, shown: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = tmp_path / "a.craft", tmp_path / "a.pcap"
    source.write_text(text)
    assert main(["craft", str(source), "-o", str(target)]) == 0
    capsys.readouterr()
    assert main(["dissect", str(target), *options.split()]) == 0
    assert capsys.readouterr().out == shown


def test_the_document_has_both_examples_and_every_verb() -> None:
    assert len(EXAMPLES) == 2
    for verb in _VERBS:
        assert f"`{verb} " in TEXT, verb


def test_the_same_bytes_each_time() -> None:
    for text, _, _ in EXAMPLES:
        assert craft(text) == craft(text)


def test_a_description_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, link = tmp_path / "a.craft", tmp_path / "link.pcap"
    source.write_text(EXAMPLES[0][0])
    link.symlink_to(source)
    for target in (source, link):
        assert main(["craft", str(source), "-o", str(target)]) == 1
        assert "is the description, which would be lost" in capsys.readouterr().err
    assert source.read_text() == EXAMPLES[0][0]


def test_the_error_of_the_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = tmp_path / "a.craft", tmp_path / "a.pcap"
    source.write_text("host server 10.0.0.1\nrequest nobody > server\n")
    assert main(["craft", str(source), "-o", str(target)]) == 1
    error = capsys.readouterr().err.replace(str(source), "FILE")
    assert error in TEXT and error.startswith("r2p2: error: FILE:2:9: no host 'nobody'")
    assert not target.exists()


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ("nonsense", 1, 1, "no verb 'nonsense'"),
        ("  +10 host a 10.0.0.1", 1, 4, "'10' is not a time"),
        ("+10us", 1, 1, "a time alone"),
        ("host a 10.0.0.1\nhost a 10.0.0.2", 2, 6, "there is a host 'a' already"),
        ("host a 10.0.0.999", 1, 8, "10.0.0.999"),
        ("host a,b 10.0.0.1", 1, 6, "not a name"),
        (HOSTS + "request c s", 4, 11, "followed by FROM > TO"),
        (HOSTS + "request c > x", 4, 13, "no host 'x'; there are s, c, m"),
        (HOSTS + "request c > s rid=70000", 4, 19, "70000 is more than 65535"),
        (HOSTS + "request c > s colour=1", 4, 15, "request has no option 'colour'"),
        (HOSTS + 'request c > s "x" "y"', 4, 19, "one body at most"),
        (HOSTS + 'request c > s "x', 4, 15, "a quotation that does not end"),
        (HOSTS + r'request c > s "ab\q"', 4, 18, "is not an escape"),
        (HOSTS + "request c > s hex:0g", 4, 19, "'0g' is not hexadecimal"),
        (HOSTS + "request c > s word", 4, 15, "'word' is not a body"),
        (HOSTS + "request c > s random:371000", 4, 1, "cannot be built: a message of 371000 bytes"),
        (HOSTS + "request c > s zero:2000 packets=9", 4, 33, "packet '9' of a message of 3"),
        (HOSTS + "request c > s rid=1 rid=2", 4, 25, "rid is given a second time"),
        (HOSTS + "packet c > s zero:70000", 4, 1, "cannot be built"),
        (HOSTS + "flood c > s", 4, 1, "flood needs count=N"),
        (HOSTS + "flood c > s count=9999999", 4, 19, "9999999 is more than 1000000"),
        (HOSTS + "@5us raw c > s\n@4us raw c > s", 5, 1, "@4us is before"),
        (HOSTS + 'ack c > s "x"', 4, 11, "ack has no body"),
        (HOSTS + "raft NOTE m > s", 4, 6, "no kind 'NOTE'; there are PRE_VOTE"),
        (HOSTS + "raft VOTE c > s", 4, 11, "c is a host, not a member"),
        (HOSTS + "raft VOTE m > s entry=noop", 4, 23, "VOTE has no entries"),
        (HOSTS + "raft APPEND m > s entry=c/1", 4, 25, "an entry is noop or CLIENT/RID/BODY"),
        (HOSTS + "elect m last=5", 4, 14, "'5' is not INDEX@TERM"),
        (HOSTS + "elect s", 4, 7, "s is a host, not a member"),
    ],
)
def test_errors_name_their_place(text: str, line: int, column: int, message: str) -> None:
    with pytest.raises(CraftError) as caught:
        craft(text)
    assert (caught.value.line, caught.value.column) == (line, column), str(caught.value)
    assert message in caught.value.message


def test_bodies() -> None:
    def made(text: str) -> bytes:
        return body(Word(text, 1, 1))

    assert made(r'"a\r\n\"\\\x41\xff\0"') == b'a\r\n"\\A\xff\0'
    assert made('"# ü"') == "# ü".encode()
    assert made("resp:GET:k") == b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"
    assert made("hex:00ff") == b"\0\xff"
    assert made("zero:3") == bytes(3)
    assert made("random:9") == made("random:9") != made("random:10")[:9]


def test_times_add_up() -> None:
    text = HOSTS + "raw c > s\nraw c > s\n+1.5us raw c > s\n@1ms raw c > s\nrequest c > s zero:2000"
    start, *times = [record.time_ns for record in captured(text)]
    assert [time_ns - start for time_ns in times] == [10_000, 11_500, 1_000_000, 1_010_000, 1_012_000, 1_014_000]


def test_a_flood_is_what_single_requests_are() -> None:
    flood = payloads('flood c > s count=3 rid=65535 policy=FIXED_ROUTE "n {i}"')
    single = [payloads(f'request c > s rid={rid} policy=1 "n {i}"')[0] for i, rid in enumerate((65535, 0, 1))]
    assert flood == single
    assert len(payloads("flood c > s count=2 zero:1465")) == 4
    assert [one[8:] for one in payloads("flood c > s count=11 resp:GET:k{i}")][9:] == [
        b"*2\r\n$3\r\nGET\r\n$2\r\nk9\r\n",
        b"*2\r\n$3\r\nGET\r\n$3\r\nk10\r\n",
    ]


def test_any_header_can_be_had() -> None:
    [found] = payloads('packet c > s magic=1 header_size=2 type=15 policy=9 flags=0x33 rid=7 p_order=300 "x" cut=8')
    assert found.hex() == "0102f9330007012c"
    [found] = payloads('packet c > s type=RESPONSE rid=7 "x"')
    assert R2P2(found).problem() is None


@given(st.text(max_size=60), st.sampled_from(sorted(_VERBS)))
@example('request c > s "\\', "raw")
@example("raft VOTE m > s term=" + "9" * 5000, "raw")
def test_any_text_is_built_or_refused_with_a_place(text: str, verb: str) -> None:
    for one in (text, HOSTS + f"{verb} c > s {text}", HOSTS + f"{verb} m {text}"):
        try:
            craft(one)
        except CraftError as error:
            assert 1 <= error.line <= len(one.splitlines())
            assert 1 <= error.column <= len(one.splitlines()[error.line - 1]) + 1


def test_statements_keep_places() -> None:
    [statement] = statements("# nothing\n\n  +1us raft VOTE a > b term=3 # end")
    assert (statement.verb, statement.when) == (Word("raft", 3, 8), Word("+1us", 3, 3))
    assert statement.options == ((Word("term", 3, 24), Word("3", 3, 29)),)
