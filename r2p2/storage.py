"""Raft's durable state on disk: term, vote and log in checksummed segment files, snapshots beside them.

The order of work is the core's: whatever one Ready wants is written (``save``, ``append``, ``truncate``), then made
durable by one ``sync`` for as many Readies as there are, then ``Raft.persisted`` is called.

A segment file is a sequence of records. Each carries its number in the whole history and the number through which
everything was durable when it was written. That tells a torn tail from damage: a bad record that nobody had been
promised is the end of the log and is cut; a bad record that a later one calls durable is an error with file and
offset, and nothing is touched. (A bad record with nothing behind it is taken for torn.)

An error of write or fsync is final: the kernel may have dropped the pages and will not say so twice, so every later
call raises too, and the process has to end. Nothing is promised that was not synced. The next process reads such pages
as if they were on the disk, and a sync of them has nothing to do: so it writes the newest file anew, the only one whose
records no later one calls durable.

Left to others: when to sync, the entries' meaning, a thread to do it in.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from struct import Struct
from typing import Final

from r2p2.errors import UserError
from r2p2.files import Files
from raft import HardState, TermRuns

SEGMENT_BYTES: Final = 64 << 20  # a file is closed once it is longer
RECORD_BYTES_MAX: Final = 1 << 30
ANEW: Final = (
    "Empty the directory and start this member again: the others bring it up. A copy of an earlier time will not do: "
    "it lacks what this member has acknowledged since."
)
SNAPSHOT_NAME: Final = "snapshot"
_MAGIC: Final = 0x52324C52
_MAGIC_BYTES: Final = _MAGIC.to_bytes(4, "big")
_RECORD: Final = Struct(">IIIIQQ")  # magic, crc of all that follows, kind, body bytes, number, durable number
_AFTER_CRC: Final = 8
# Version of the format, term, vote (its upper 64 bits, its lower 16; ffff: none), last index, last term.
_HEAD: Final = Struct(">IxxxxQQHxxxxxxQQ")
_HARD_STATE: Final = Struct(">QQHxxxxxx")  # term, vote
_VERSION: Final = 1
_VOTE_LOW_BITS: Final = 16
_NO_VOTE: Final = 0xFFFF  # a slot that no member has
_APPEND: Final = Struct(">QQQ")  # first index, term, count; then the entries
_TRUNCATE: Final = Struct(">QQ")  # from index, the term of the entry before
_SNAPSHOT: Final = Struct(">IIQQQ")  # magic, crc of all that follows, index, term, bytes
_HEAD_KIND, _HARD_STATE_KIND, _APPEND_KIND, _TRUNCATE_KIND = 1, 2, 3, 4
_BODY_BYTES: Final = {_HEAD_KIND: _HEAD.size, _HARD_STATE_KIND: _HARD_STATE.size, _TRUNCATE_KIND: _TRUNCATE.size}
_ENTRY_HEADER_BYTES: Final = 16
_SUFFIX: Final = ".log"
_NEW: Final = ".new"  # behind the name of what is not in force yet
_NAMES: Final = re.compile(r"[0-9a-f]{16}\.log")


class StorageError(UserError):
    """The disk failed, or what it holds is damaged. Not to be caught and gone on from: the process has to end."""


def _vote_fields(vote: int | None) -> tuple[int, int]:
    return (0, _NO_VOTE) if vote is None else (vote >> _VOTE_LOW_BITS, vote & _NO_VOTE)


def _vote_of(high: int, low: int) -> int | None:
    return None if low == _NO_VOTE else high << _VOTE_LOW_BITS | low


@dataclass(slots=True)
class StoredEntries:
    """Entries first_index.. of one term, in their wire form."""

    first_index: int
    term: int
    count: int
    data: bytes

    @property
    def last_index(self) -> int:
        """Of the last of them."""
        return self.first_index + self.count - 1


@dataclass(slots=True)
class Snapshot:
    """The state machine after applying ``index``, whose entry has ``term``."""

    index: int
    term: int
    data: bytes | bytearray


@dataclass(slots=True)
class Recovered:
    """What a restart finds: for the core (hard_state, term_runs), the state machine (snapshot), the log (entries)."""

    hard_state: HardState | None = None
    base_index: int = 0
    base_term: int = 0
    entries: list[StoredEntries] = field(default_factory=list)
    snapshot: Snapshot | None = None
    torn_bytes: int = 0  # cut from the tail: writes that had not been synced

    @property
    def last_index(self) -> int:
        """Of the log."""
        return self.entries[-1].last_index if self.entries else self.base_index

    @property
    def last_term(self) -> int:
        """Of the log's last entry."""
        return self.entries[-1].term if self.entries else self.base_term

    def term_runs(self) -> TermRuns:
        """The log's terms."""
        runs: list[tuple[int, int]] = []
        for piece in self.entries:
            if not runs or runs[-1][1] != piece.term:
                runs.append((piece.first_index, piece.term))
        return TermRuns(runs, self.last_index, base_index=self.base_index, base_term=self.base_term)

    def truncate(self, from_index: int, last_term: int) -> None:
        """Removes ``from_index`` and all behind it; the entry before has ``last_term``."""
        while self.entries and self.entries[-1].last_index >= from_index:
            piece = self.entries.pop()
            keep = from_index - piece.first_index
            if keep > 0:
                data = piece.data[: entries_bytes(piece.data, keep)]
                self.entries.append(StoredEntries(piece.first_index, piece.term, keep, data))
        if from_index <= self.base_index:
            # What it takes back stood in a file that is gone, for a snapshot reaches further.
            self.base_index, self.base_term = from_index - 1, last_term

    def begin_at(self, index: int, term: int) -> None:
        """The log goes on behind a snapshot of ``index``, whose entry has ``term``; what contradicts it goes."""
        if self.base_index <= index <= self.last_index and self.term_runs().term_at(index) == term:
            self.drop_prefix(index, term)
        else:
            self.entries, self.base_index, self.base_term = [], index, term

    def drop_prefix(self, through_index: int, term: int) -> None:
        """Forgets everything through ``through_index``, whose term is ``term``."""
        kept: list[StoredEntries] = []
        for piece in self.entries:
            gone = through_index + 1 - piece.first_index
            if gone <= 0:
                kept.append(piece)
            elif gone < piece.count:
                data = piece.data[entries_bytes(piece.data, gone) :]
                kept.append(StoredEntries(through_index + 1, piece.term, piece.count - gone, data))
        self.entries = kept
        self.base_index, self.base_term = through_index, term


def entries_bytes(data: bytes, count: int) -> int:
    """Bytes of the first ``count`` entries in their wire form."""
    offset = 0
    for _ in range(count):
        body_bytes = int.from_bytes(data[offset : offset + 4], "big")
        offset += (_ENTRY_HEADER_BYTES + body_bytes + 7) & ~7
    if offset > len(data):
        raise StorageError(f"{count} entries need {offset} bytes, there are {len(data)}")
    return offset


@dataclass(slots=True)
class _Segment:
    path: Path
    last_index: int = 0  # the highest index any of its records speaks of


def log_files(directory: Path) -> list[Path]:
    """The log's files, the oldest first. Whatever else has come to lie there is somebody else's."""
    return sorted(path for path in directory.iterdir() if _NAMES.fullmatch(path.name))


def holds_log(directory: Path) -> bool:
    """Whether a file there is as long as the head of one, which is durable before anything is promised."""
    least = _RECORD.size + _HEAD.size
    return any(path.stat().st_size >= least for path in log_files(directory))


class Storage:
    """One directory of one member."""

    def __init__(
        self, directory: str | os.PathLike[str], *, segment_bytes: int = SEGMENT_BYTES, files: Files | None = None
    ) -> None:
        """Opens or creates it, reads everything, cuts a torn tail. StorageError says where it is damaged."""
        self.directory = Path(directory)
        self._files = files or Files()
        self.segment_bytes = segment_bytes
        self._failed: str = ""
        self._number = 0  # of the last record written
        self._durable_number = 0
        self._buffer: list[bytes] = []
        self._segments: list[_Segment] = []
        self._file = -1
        self._file_bytes = 0
        self._hard_state = HardState(0, None)
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            recovered = self._recover()
        except OSError as error:
            raise self._fail("start", error) from error
        self._recovered: Recovered | None = recovered
        if recovered.hard_state is not None:
            self._hard_state = recovered.hard_state
        self._snapshot_index = recovered.snapshot.index if recovered.snapshot else 0
        self._last_index = recovered.last_index
        self._last_term = recovered.last_term
        self._base_index = recovered.base_index
        self._new_segment()

    # -- writing ------------------------------------------------------------------------------------------------------

    @property
    def last_index(self) -> int:
        """Of the log as written so far."""
        return self._last_index

    @property
    def snapshot_index(self) -> int:
        """Of the snapshot; 0: there is none."""
        return self._snapshot_index

    def save(self, hard_state: HardState) -> None:
        """Term and vote, as one."""
        self._hard_state = hard_state
        self._write(_HARD_STATE_KIND, _HARD_STATE.pack(hard_state.term, *_vote_fields(hard_state.vote)))

    def append(self, first_index: int, term: int, count: int, data: bytes | bytearray) -> None:
        """``count`` entries of one term, in their wire form, behind the last one. ValueError where they are not."""
        if first_index != self._last_index + 1 or count < 1 or term < self._last_term:
            raise ValueError(
                f"append {count} entries at {first_index} of term {term}: the log ends at {self._last_index}, "
                f"term {self._last_term}"
            )
        self._last_index = first_index + count - 1
        self._last_term = term
        self._write(_APPEND_KIND, _APPEND.pack(first_index, term, count) + data)

    def truncate(self, from_index: int, last_term: int) -> None:
        """Removes ``from_index`` and all behind it; the entry before has ``last_term``."""
        if not self._base_index < from_index <= self._last_index:
            raise ValueError(f"truncate from {from_index}: the log has {self._base_index + 1}..{self._last_index}")
        self._last_index = from_index - 1
        self._last_term = last_term
        self._write(_TRUNCATE_KIND, _TRUNCATE.pack(from_index, last_term))

    def sync(self) -> None:
        """Makes all that was written durable, with one fsync however much it is. StorageError: end the process."""
        self._check()
        if not self._buffer and self._durable_number == self._number:
            return
        try:
            self._flush()
            self._files.sync(self._file)
        except OSError as error:
            raise self._fail("sync", error) from error
        self._durable_number = self._number
        if self._file_bytes > self.segment_bytes:
            self._new_segment()

    def save_snapshot(self, snapshot: Snapshot) -> None:
        """Replaces the snapshot. A crash leaves the old one or the new one; the log is synced through it first."""
        self.write_snapshot(snapshot)
        self.adopt_snapshot(snapshot)

    def adopt_snapshot(self, snapshot: Snapshot) -> None:
        """Puts what :meth:`write_snapshot` has written in the place of the snapshot; the log is synced first."""
        if not self._snapshot_index <= snapshot.index <= self._last_index:
            raise ValueError(f"snapshot at {snapshot.index} is not in {self._snapshot_index}..{self._last_index}")
        self.sync()
        self._adopt(snapshot)

    def install_snapshot(self, snapshot: Snapshot) -> None:
        """A snapshot from elsewhere takes the place of the log: that begins anew behind it, empty. Durable on return.

        A crash on the way leaves the old log, or the snapshot and nothing else.
        """
        if snapshot.index < self._snapshot_index:
            raise ValueError(f"install a snapshot of {snapshot.index} over one of {self._snapshot_index}")
        self.sync()
        self.write_snapshot(snapshot)
        self._adopt(snapshot)
        self._last_index = self._base_index = snapshot.index
        self._last_term = snapshot.term
        old = self._segments[:]
        self._segments.clear()
        self._new_segment()
        try:
            for segment in old:
                self._remove(segment)
        except OSError as error:
            raise self._fail("install", error) from error

    def write_snapshot(self, snapshot: Snapshot) -> None:
        """Writes it beside the one that counts, durably; touches nothing else, so another thread than the log's may
        do it. One at a time.
        """
        self._check()
        head = _SNAPSHOT.pack(_MAGIC, 0, snapshot.index, snapshot.term, len(snapshot.data))[_AFTER_CRC:]
        crc = zlib.crc32(snapshot.data, zlib.crc32(head))
        try:
            # The data as it is: a copy of something large would keep every other thread waiting.
            self._write_beside(
                self.directory / SNAPSHOT_NAME,
                _MAGIC_BYTES + crc.to_bytes(4, "big") + head,
                snapshot.data,
            )
        except OSError as error:
            raise self._fail("snapshot", error) from error

    def _write_beside(self, path: Path, *pieces: bytes | bytearray) -> Path:
        """What is to take the place of ``path``, durably; returns where it is until then."""
        temporary = path.with_name(f"{path.name}{_NEW}")
        self._files.remove(temporary)
        handle = self._files.create(temporary)
        try:
            for piece in pieces:
                self._files.write(handle, piece)
            self._files.sync(handle)
        finally:
            self._files.close(handle)
        return temporary

    def _adopt(self, snapshot: Snapshot) -> None:
        try:
            self._files.replace(self.directory / f"{SNAPSHOT_NAME}{_NEW}", self.directory / SNAPSHOT_NAME)
            self._files.sync_directory(self.directory)
        except OSError as error:
            raise self._fail("snapshot", error) from error
        self._snapshot_index = snapshot.index

    def drop_prefix(self, through_index: int) -> int:
        """Deletes the files that hold nothing behind ``through_index``; without a snapshot none, for a restart
        applies the log again.

        Returns how many went.
        """
        self._check()
        through_index = min(through_index, self._snapshot_index)
        dropped = 0
        try:
            while len(self._segments) > 1 and self._segments[0].last_index <= through_index:
                self._remove(self._segments.pop(0))
                dropped += 1
        except OSError as error:
            raise self._fail("drop", error) from error
        return dropped

    def _remove(self, segment: _Segment) -> None:
        """One at a time, the oldest first: a gap in the middle would be damage."""
        self._files.remove(segment.path)
        self._files.sync_directory(self.directory)

    def take_recovered(self) -> Recovered:
        """What the directory held at the start; once."""
        recovered, self._recovered = self._recovered, None
        if recovered is None:
            raise ValueError("take_recovered: it was taken before")
        return recovered

    def close(self) -> None:
        """Closes the file. Does not sync: what was not synced was not promised. Idempotent."""
        if self._file >= 0:
            self._files.close(self._file)
            self._file = -1
        self._failed = self._failed or "closed"

    def _write(self, kind: int, body: bytes) -> None:
        self._check()
        self._number += 1
        self._segments[-1].last_index = max(self._segments[-1].last_index, self._last_index)
        rest = _RECORD.pack(0, 0, kind, len(body), self._number, self._durable_number)[_AFTER_CRC:] + body
        self._buffer.append(_MAGIC_BYTES + zlib.crc32(rest).to_bytes(4, "big") + rest)

    def _flush(self) -> None:
        data = b"".join(self._buffer)
        self._buffer.clear()
        self._files.write(self._file, data)
        self._file_bytes += len(data)

    def _new_segment(self) -> None:
        """Starts a file that makes sense without those before it: its head has term, vote and where the log ends."""
        try:
            if self._file >= 0:
                self._files.close(self._file)
                self._file = -1
            path = self.directory / f"{self._number + 1:016x}{_SUFFIX}"
            self._file = self._files.create(path)
            self._file_bytes = 0
            self._segments.append(_Segment(path))
            vote = _vote_fields(self._hard_state.vote)
            head = _HEAD.pack(_VERSION, self._hard_state.term, *vote, self._last_index, self._last_term)
            self._write(_HEAD_KIND, head)
            self._flush()
            self._files.sync(self._file)
            self._files.sync_directory(self.directory)
            self._durable_number = self._number
        except OSError as error:
            raise self._fail("new segment", error) from error

    def _check(self) -> None:
        if self._failed:
            raise StorageError(f"{self.directory}: {self._failed}; nothing more is written")

    def _fail(self, what: str, error: OSError) -> StorageError:
        self._failed = f"{what} failed: {error}"
        return StorageError(f"{self.directory}: {self._failed}")

    # -- reading ------------------------------------------------------------------------------------------------------

    def _recover(self) -> Recovered:
        found = Recovered(snapshot=self._read_snapshot())
        paths = log_files(self.directory)
        torn: list[Path] = []
        newest = b""
        for position, path in enumerate(paths):
            data = path.read_bytes()
            segment = _Segment(path)
            good = 0
            for end, kind, body in self._records(path, data, paths[position + 1 :]):
                self._replay(path, good, kind, body, found, segment)
                good = end
            found.torn_bytes += len(data) - good
            if good:
                self._segments.append(segment)
                newest = data[:good]
            else:
                torn.append(path)  # created, and torn before its head was durable
        if found.snapshot is not None and found.snapshot.index > found.base_index:
            # Behind the log's end, or of another term: it came from elsewhere, and the crash was before the log went.
            found.begin_at(found.snapshot.index, found.snapshot.term)
        elif found.base_index > (found.snapshot.index if found.snapshot else 0):
            raise StorageError(
                f"{self.directory}: the log starts behind {found.base_index} and no snapshot reaches there", ANEW
            )
        for path in torn:
            self._files.remove(path)
        if self._segments:
            path = self._segments[-1].path
            self._files.replace(self._write_beside(path, newest), path)
            self._files.sync_directory(self.directory)
        self._durable_number = self._number
        return found

    def _records(self, path: Path, data: bytes, later: list[Path]) -> Iterator[tuple[int, int, bytes]]:
        """(end, kind, body) of each record up to the first bad one, which has to be a torn tail."""
        offset = 0
        while offset < len(data):
            record = _record_at(data, offset)
            if record is None or record[2] != self._number + 1:
                if self._number or record is None:
                    self._must_be_torn(path, data, offset, later)
                    return
                self._number = record[2] - 1  # the first file that was kept
            end, kind, self._number, _, body = record
            yield end, kind, body
            offset = end

    def _must_be_torn(self, path: Path, data: bytes, offset: int, later: list[Path]) -> None:
        """StorageError when something behind a bad record says that this record was durable."""
        bad = self._number + 1
        promised = 0
        at, number = offset, bad
        while at < len(data) and promised < bad and (end := _extent(data, at, number)) > 0:
            if (record := _record_at(data, at)) is not None:
                promised = record[3]
            at, number = end, number + 1
        if at < len(data) and (record := _record_at(data, at)) is not None:
            promised = max(promised, record[3])  # its number is another: those before it are gone
        at = data.find(_MAGIC_BYTES, at + 1)
        while 0 <= at <= len(data) - _RECORD.size and promised < bad:
            *_, number, durable = _RECORD.unpack_from(data, at)
            # What clients sent may look like a record. Ours are numbered, and at most so many stand in between.
            if bad <= durable < number <= bad + (at - offset) // _RECORD.size and _record_at(data, at) is not None:
                promised = durable
            at = data.find(_MAGIC_BYTES, at + 1)
        for other in later:
            if (record := _record_at(other.read_bytes(), 0)) is not None:
                promised = max(promised, record[3])
        if promised >= bad:
            raise StorageError(
                f"{path}: record {bad} at offset {offset} is damaged, though it had been synced",
                ANEW,
            )

    def _replay(self, path: Path, offset: int, kind: int, body: bytes, found: Recovered, segment: _Segment) -> None:
        if kind == _HEAD_KIND:
            self._check_version(path, offset, body)
            _, term, high, low, last_index, last_term = _HEAD.unpack(body)
            found.hard_state = HardState(term, _vote_of(high, low)) if term else None
            if not self._segments:
                found.base_index, found.base_term = last_index, last_term
            elif (last_index, last_term) != (found.last_index, found.last_term):
                # The log began anew behind a snapshot from elsewhere; the files before were on their way out.
                found.entries, found.base_index, found.base_term = [], last_index, last_term
        elif kind == _HARD_STATE_KIND:
            term, high, low = _HARD_STATE.unpack(body)
            found.hard_state = HardState(term, _vote_of(high, low))
        elif kind == _APPEND_KIND:
            first, term, count = _APPEND.unpack_from(body)
            if first != found.last_index + 1:
                raise StorageError(
                    f"{path}: offset {offset}: entries from {first} on, but the log ends at {found.last_index}"
                )
            found.entries.append(StoredEntries(first, term, count, body[_APPEND.size :]))
        elif kind == _TRUNCATE_KIND:
            found.truncate(*_TRUNCATE.unpack(body))
        else:
            raise StorageError(f"{path}: offset {offset}: a record of kind {kind}, which this version does not know")
        segment.last_index = max(segment.last_index, found.last_index)

    def _check_version(self, path: Path, offset: int, body: bytes) -> None:
        version = int.from_bytes(body[:4], "big")
        if len(body) != _HEAD.size or version != _VERSION:
            raise StorageError(
                f"{path}: offset {offset}: format {version}, this version of the program reads {_VERSION}",
                "Run the version that wrote the directory.",
            )

    def _read_snapshot(self) -> Snapshot | None:
        path = self.directory / SNAPSHOT_NAME
        self._files.remove(self.directory / f"{SNAPSHOT_NAME}{_NEW}")
        if not path.exists():
            return None
        with path.open("rb") as file:  # apart: a copy of something large would take its memory once more
            head, body = file.read(_SNAPSHOT.size), file.read()
        if len(head) < _SNAPSHOT.size:
            raise StorageError(f"{path}: {len(head)} bytes are no snapshot", ANEW)
        magic, crc, index, term, length = _SNAPSHOT.unpack(head)
        if magic != _MAGIC or length != len(body) or crc != zlib.crc32(body, zlib.crc32(head[_AFTER_CRC:])):
            raise StorageError(f"{path}: the snapshot is damaged", ANEW)
        return Snapshot(index, term, body)


def _extent(data: bytes, offset: int, number: int) -> int:
    """Where record ``number`` ends, which begins at ``offset`` and may be torn or damaged: by its header or by what is
    in it, whichever is less, and at most the end of ``data``. 0: its header is not what was written.
    """
    body = offset + _RECORD.size
    if body > len(data):
        return len(data)
    magic, _, kind, body_bytes, found, durable_number = _RECORD.unpack_from(data, offset)
    if magic != _MAGIC or found != number or durable_number >= number:
        return 0
    at = body + _BODY_BYTES.get(kind, _APPEND.size)
    if kind == _APPEND_KIND and at <= len(data):
        *_, count = _APPEND.unpack_from(data, body)
        for _ in range(min(count, len(data))):
            at += (_ENTRY_HEADER_BYTES + int.from_bytes(data[at : at + 4], "big") + 7) & ~7
            if at >= len(data):
                break
    return min(body + int(body_bytes), at, len(data))


def _record_at(data: bytes, offset: int) -> tuple[int, int, int, int, bytes] | None:
    """(end, kind, number, durable number, body) of a whole record with a right checksum, or None."""
    if len(data) - offset < _RECORD.size:
        return None
    magic, crc, kind, body_bytes, number, durable_number = _RECORD.unpack_from(data, offset)
    end = offset + _RECORD.size + body_bytes
    if magic != _MAGIC or body_bytes > RECORD_BYTES_MAX or end > len(data):
        return None
    if zlib.crc32(data[offset + _AFTER_CRC : end]) != crc:
        return None
    return end, kind, number, durable_number, data[offset + _RECORD.size : end]
