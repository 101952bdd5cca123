"""The durable log: what comes back after an orderly end, a crash, a torn tail, damage, a failing disk."""

from __future__ import annotations

import os
import random
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest

from r2p2.files import Files
from r2p2.storage import Recovered, Snapshot, Storage, StorageError, entries_bytes, holds_log, log_files
from raft import HardState, TermRuns


def entry(value: int, body_bytes: int = 8) -> bytes:
    """An entry in its wire form."""
    body = value.to_bytes(8, "big") + bytes(max(0, body_bytes - 8))
    return len(body).to_bytes(4, "big") + bytes(12) + body + bytes(-len(body) % 8)


def some(values: range) -> bytes:
    """Entries of these values, of different lengths."""
    return b"".join(entry(value, 8 + value % 13) for value in values)


def values_of(recovered: Recovered) -> list[tuple[int, int, int]]:
    """(index, term, value) of every entry."""
    out: list[tuple[int, int, int]] = []
    for piece in recovered.entries:
        data = piece.data
        for i in range(piece.count):
            out.append((piece.first_index + i, piece.term, int.from_bytes(data[16:24], "big")))
            data = data[entries_bytes(data, 1) :]
        assert data == b""
    return out


def reopened(path: Path) -> Recovered:
    """What a restart finds."""
    storage = Storage(path)
    recovered = storage.take_recovered()
    storage.close()
    return recovered


def test_a_fresh_directory_holds_nothing(tmp_path: Path) -> None:
    """And can be opened again and again."""
    for _ in range(3):
        recovered = reopened(tmp_path / "new")
        assert (recovered.hard_state, recovered.last_index, recovered.entries) == (None, 0, [])
    assert recovered.term_runs() == TermRuns()


def test_what_was_synced_comes_back(tmp_path: Path) -> None:
    """Term, vote, entries, truncations; in one piece with the core's view."""
    storage = Storage(tmp_path)
    storage.save(HardState(3, 1))
    storage.append(1, 2, 3, some(range(3)))
    storage.append(4, 3, 4, some(range(3, 7)))
    storage.truncate(6, 3)
    storage.append(6, 5, 1, some(range(70, 71)))
    storage.save(HardState(5, None))
    storage.sync()
    storage.close()
    recovered = reopened(tmp_path)
    assert recovered.hard_state == HardState(5, None)
    assert values_of(recovered) == [(1, 2, 0), (2, 2, 1), (3, 2, 2), (4, 3, 3), (5, 3, 4), (6, 5, 70)]
    assert recovered.term_runs() == TermRuns([(1, 2), (4, 3), (6, 5)], 6)
    assert recovered.torn_bytes == 0


class Model:
    """The states a crash may leave: one a write, from the last synced one on."""

    def __init__(self) -> None:
        """Empty."""
        self.hard: HardState | None = None
        self.log: list[tuple[int, int, int]] = []
        self.states = [self.state()]

    def state(self) -> tuple[HardState | None, tuple[tuple[int, int, int], ...]]:
        """Now."""
        return self.hard, tuple(self.log)


@pytest.mark.parametrize("seed", range(60))
def test_a_crash_keeps_what_was_synced_and_a_prefix_of_the_rest(tmp_path: Path, seed: int) -> None:
    """Random work, a crash that garbles the unsynced tail of the newest file, a restart, more work."""
    rng = random.Random(seed)
    model = Model()
    term = value = 0
    for life in range(5):
        storage = Storage(tmp_path, segment_bytes=rng.choice((200, 2_000, 1 << 20)))
        recovered = storage.take_recovered()
        state = recovered.hard_state, tuple(values_of(recovered))
        assert state in model.states, f"life {life}: neither what was synced nor a state after it"
        model.hard, model.log = state[0], list(state[1])
        assert recovered.last_index == storage.last_index == len(model.log)
        model.states = [model.state()]
        sizes = {path: path.stat().st_size for path in tmp_path.glob("*.log")}
        for _ in range(rng.randint(0, 30)):
            what = rng.random()
            if what < 0.2:
                term += 1
                model.hard = HardState(term, rng.choice((None, 0, 2)))
                storage.save(model.hard)
            elif what < 0.3 and model.log:
                cut = rng.randint(1, len(model.log))
                del model.log[cut - 1 :]
                storage.truncate(cut, model.log[-1][1] if model.log else 0)
            elif what < 0.75:
                term = max(1, term)
                count = rng.randint(1, 5)
                entries_term = max(term, model.log[-1][1] if model.log else 1)
                storage.append(len(model.log) + 1, entries_term, count, some(range(value, value + count)))
                for _ in range(count):
                    model.log.append((len(model.log) + 1, entries_term, value))
                    value += 1
            else:
                storage.sync()
                model.states = []
                sizes = {path: path.stat().st_size for path in tmp_path.glob("*.log")}
            model.states.append(model.state())
        if rng.random() < 0.7:
            storage._flush()  # the kernel has it, the disk perhaps
        storage.close()
        newest = max(tmp_path.glob("*.log"))
        data = bytearray(newest.read_bytes())
        synced = sizes.get(newest, 0)
        if len(data) > synced:
            del data[rng.randint(synced, len(data)) :]
            for _ in range(rng.choice((0, 0, 3))):
                if len(data) > synced:
                    data[rng.randrange(synced, len(data))] ^= 1 << rng.randrange(8)
            newest.write_bytes(data)


def test_a_torn_tail_is_cut_and_counted(tmp_path: Path) -> None:
    """Half a record at the end was never promised."""
    storage = Storage(tmp_path)
    storage.append(1, 1, 2, some(range(2)))
    storage.sync()
    storage.append(3, 1, 2, some(range(2, 4)))
    storage._flush()
    storage.close()
    path = max(tmp_path.glob("*.log"))
    path.write_bytes(path.read_bytes()[:-5])
    recovered = reopened(tmp_path)
    assert recovered.last_index == 2
    assert recovered.torn_bytes > 0
    assert reopened(tmp_path).torn_bytes == 0


def lookalike(number: int, durable: int, body: bytes = b"") -> bytes:
    """What a client may put into a request: a record that says that others are durable."""
    rest = struct.pack(">IIQQ", 1, len(body), number, durable) + body
    return b"R2LR" + zlib.crc32(rest).to_bytes(4, "big") + rest


def test_a_torn_entry_that_holds_what_looks_like_records_is_torn(tmp_path: Path) -> None:
    """Clients write what they like, and a member must come back after a crash whatever they wrote; wherever it tore."""
    storage = Storage(tmp_path / "good")
    storage.append(1, 1, 1, some(range(1)))
    storage.sync()
    start = max((tmp_path / "good").glob("*.log")).stat().st_size
    body = b"".join(lookalike(number, number - 1) for number in range(1, 9)) + lookalike(1 << 63, 1 << 62)
    for index in (2, 3):
        storage.append(index, 1, 1, len(body).to_bytes(4, "big") + bytes(12) + body)
    storage._flush()
    storage.close()
    path = max((tmp_path / "good").glob("*.log"))
    data = path.read_bytes()
    cut = [data[:at] for at in range(start, len(data), 5)]
    headers = 32  # a record that has lost its own is told from others by its number alone
    garbled = [data[:at] + b"?" + data[at + 1 : -1] for at in range(start + headers, (start + len(data)) // 2, 5)]
    for left in cut + garbled:
        path.write_bytes(left)
        copy = tmp_path / "torn"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(tmp_path / "good", copy)
        assert reopened(copy).last_index in (1, 2)


def test_a_torn_tail_takes_no_longer_for_what_is_in_it(tmp_path: Path) -> None:
    """Neither for its length nor for what looks like the beginnings of records."""
    storage = Storage(tmp_path)
    storage.append(1, 1, 1, some(range(1)))
    storage.sync()
    body = struct.pack(">4sIIIQQ", b"R2LR", 0, 1, 1 << 20, 1 << 40, 1 << 39) * (1 << 17)
    storage.append(2, 1, 1, len(body).to_bytes(4, "big") + bytes(12) + body)
    storage._flush()
    storage.close()
    path = max(tmp_path.glob("*.log"))
    os.truncate(path, path.stat().st_size - 1)
    with mock.patch.object(zlib, "crc32", wraps=zlib.crc32) as summed:
        assert reopened(tmp_path).last_index == 1
    assert summed.call_count < 20


def test_damage_inside_is_an_error_that_says_where_and_changes_nothing(tmp_path: Path) -> None:
    """Every bit of a record that was synced, flipped: never a shorter log in silence."""
    storage = Storage(tmp_path / "good")
    storage.append(1, 1, 1, some(range(1)))
    storage.sync()
    start = max((tmp_path / "good").glob("*.log")).stat().st_size
    storage.append(2, 1, 1, some(range(1, 2)))
    storage.sync()
    end = max((tmp_path / "good").glob("*.log")).stat().st_size
    storage.append(3, 1, 99, some(range(2, 101)))
    storage.sync()
    storage.close()
    for bit in range(8 * start, 8 * end):
        copy = tmp_path / "bad"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(tmp_path / "good", copy)
        path = max(copy.glob("*.log"))
        data = bytearray(path.read_bytes())
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        with pytest.raises(StorageError, match=f"record 3 at offset {start} is damaged") as told:
            Storage(copy)
        assert "Empty the directory" in told.value.remedy and "earlier time will not do" in told.value.remedy
        assert path.read_bytes() == data


def test_a_missing_file_is_damage_too(tmp_path: Path) -> None:
    """The first, without a snapshot in its place; one in the middle; the log's end is not seen."""
    storage = Storage(tmp_path / "good", segment_bytes=1)
    for i in range(1, 5):
        storage.append(i, 1, 1, some(range(i, i + 1)))
        storage.sync()
    storage.close()
    files = sorted(path.name for path in (tmp_path / "good").glob("*.log"))
    for gone, message in ((files[0], "no snapshot"), (files[2], "damaged")):
        copy = tmp_path / gone
        shutil.copytree(tmp_path / "good", copy)
        (copy / gone).unlink()
        with pytest.raises(StorageError, match=message):
            Storage(copy)


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    """What a program prints may be kept beside its log, and editors leave copies."""
    storage = Storage(tmp_path)
    storage.append(1, 1, 1, some(range(1)))
    storage.sync()
    storage.close()
    others = [tmp_path / name for name in ("serve.log", "0000000000000001 (copy).log", "0000000000000001.log.gz")]
    for path in others:
        path.write_bytes(b"what somebody else wrote")
    assert values_of(reopened(tmp_path)) == [(1, 1, 0)]
    assert [path.read_bytes() for path in others] == [b"what somebody else wrote"] * 3
    for path in log_files(tmp_path):
        path.unlink()
    assert not holds_log(tmp_path)


@pytest.mark.parametrize("call", ["fdatasync", "write"])
def test_a_failing_disk_is_final(tmp_path: Path, call: str) -> None:
    """The first error is told, and every later call refuses: a second fsync that "works" proves nothing."""
    storage = Storage(tmp_path)
    storage.append(1, 1, 1, some(range(1)))
    with (
        mock.patch.object(os, call, side_effect=OSError(5, "Input/output error")),
        pytest.raises(StorageError, match="Input"),
    ):
        storage.sync()
    for again in (
        storage.sync,
        lambda: storage.save(HardState(9, 1)),
        lambda: storage.append(2, 1, 1, some(range(1))),
        lambda: storage.drop_prefix(1),
    ):
        with pytest.raises(StorageError, match="nothing more is written"):
            again()
    storage.close()


class DroppingFiles(Files):
    """What a sync could not write stays in memory, is read from there, and counts as written: as Linux has it."""

    def __init__(self) -> None:
        self.fails = False
        self._paths: dict[int, Path] = {}
        self._disk: dict[Path, bytearray] = {}

    def create(self, path: Path) -> int:
        handle = super().create(path)
        self._paths[handle] = path
        self._disk[path] = bytearray()
        return handle

    def sync(self, handle: int) -> None:
        written = self._paths[handle].read_bytes()
        disk = self._disk[self._paths[handle]]
        disk += bytes(len(written) - len(disk)) if self.fails else written[len(disk) :]
        if self.fails:
            raise OSError(5, "Input/output error")

    def replace(self, source: Path, target: Path) -> None:
        super().replace(source, target)
        self._disk[target] = self._disk.pop(source)

    def lose_power(self) -> None:
        for path, data in self._disk.items():
            if path.exists():
                path.write_bytes(data)


def test_what_a_failed_sync_has_left_in_memory_is_written_anew(tmp_path: Path) -> None:
    """The next process reads it back and syncs with success, and nothing of it is on the disk."""
    files = DroppingFiles()
    storage = Storage(tmp_path, files=files)
    storage.append(1, 1, 1, some(range(1)))
    storage.sync()
    storage.append(2, 1, 1, some(range(1, 2)))
    files.fails = True
    with pytest.raises(StorageError, match="sync failed"):
        storage.sync()
    storage.close()
    files.fails = False  # the disk has been mended
    storage = Storage(tmp_path, files=files)
    known = values_of(storage.take_recovered())
    storage.append(storage.last_index + 1, 1, 1, some(range(2, 3)))
    storage.sync()
    storage.close()
    files.lose_power()
    assert values_of(reopened(tmp_path)) == [*known, (len(known) + 1, 1, 2)]


def test_a_prefix_goes_only_under_a_snapshot(tmp_path: Path) -> None:
    """Whole files, and a restart gets the snapshot and what is behind it."""
    storage = Storage(tmp_path, segment_bytes=1)
    storage.save(HardState(2, 0))
    for i in range(1, 11):
        storage.append(i, 1 + i // 6, 1, some(range(i, i + 1)))
        storage.sync()
    assert storage.drop_prefix(8) == 0
    storage.save_snapshot(Snapshot(7, 2, b"seven"))
    before = len(list(tmp_path.glob("*.log")))
    dropped = storage.drop_prefix(9)
    assert dropped >= 6
    assert len(list(tmp_path.glob("*.log"))) == before - dropped
    storage.close()
    recovered = reopened(tmp_path)
    assert recovered.hard_state == HardState(2, 0)
    assert recovered.snapshot == Snapshot(7, 2, b"seven")
    assert values_of(recovered) == [(8, 2, 8), (9, 2, 9), (10, 2, 10)]
    assert recovered.term_runs() == TermRuns([(8, 2)], 10, base_index=7, base_term=2)


def test_a_crash_while_a_snapshot_is_written_leaves_the_old_one(tmp_path: Path) -> None:
    """The new one is renamed into place only when it is whole."""
    storage = Storage(tmp_path)
    storage.append(1, 1, 3, some(range(3)))
    storage.save_snapshot(Snapshot(1, 1, b"one"))
    with (
        mock.patch.object(os, "replace", side_effect=OSError(28, "No space")),
        pytest.raises(StorageError, match="No space"),
    ):
        storage.save_snapshot(Snapshot(2, 1, b"two"))
    storage.close()
    assert (tmp_path / "snapshot.new").exists()
    recovered = reopened(tmp_path)
    assert recovered.snapshot == Snapshot(1, 1, b"one")
    assert not (tmp_path / "snapshot.new").exists()
    assert [index for index, _, _ in values_of(recovered)] == [2, 3]


@pytest.mark.parametrize(
    "damage", [lambda d: d[:10], lambda d: d[:-1], lambda d: d[:-1] + b"?", lambda d: b"?" + d[1:]]
)
def test_a_damaged_snapshot_is_an_error(tmp_path: Path, damage: object) -> None:
    """Not an empty state machine."""
    storage = Storage(tmp_path)
    storage.append(1, 1, 1, some(range(1)))
    storage.save_snapshot(Snapshot(1, 1, b"state"))
    storage.close()
    path = tmp_path / "snapshot"
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(StorageError, match="snapshot"):
        Storage(tmp_path)


def test_mistakes_of_the_caller_are_value_errors(tmp_path: Path) -> None:
    """Gaps, terms that fall, entries that are not there."""
    storage = Storage(tmp_path)
    storage.append(1, 2, 2, some(range(2)))
    mistakes: tuple[Callable[[], object], ...] = (
        lambda: storage.append(4, 2, 1, some(range(1))),
        lambda: storage.append(3, 1, 1, some(range(1))),
        lambda: storage.append(3, 2, 0, b""),
        lambda: storage.truncate(3, 2),
        lambda: storage.truncate(0, 0),
        lambda: storage.save_snapshot(Snapshot(3, 2, b"")),
    )
    for mistake in mistakes:
        with pytest.raises(ValueError):
            mistake()
    storage.take_recovered()
    with pytest.raises(ValueError, match="before"):
        storage.take_recovered()
    storage.close()
    with pytest.raises(StorageError, match="closed"):
        storage.sync()


def test_many_readies_share_one_sync(tmp_path: Path) -> None:
    """Group commit: the count of fsyncs is the caller's."""
    storage = Storage(tmp_path)
    with mock.patch.object(os, "fdatasync", wraps=os.fdatasync) as synced:
        for i in range(1, 101):
            storage.append(i, 1, 1, some(range(i, i + 1)))
        storage.sync()
        storage.sync()
    assert synced.call_count == 1
    storage.close()


def test_a_truncation_below_the_oldest_file_that_is_left(tmp_path: Path) -> None:
    """The entries it takes back stood in a file that went under a snapshot of a later index."""
    storage = Storage(tmp_path, segment_bytes=1)
    storage.append(1, 1, 3, some(range(3)))
    storage.sync()  # and a new file, whose head says that the log ends at 3
    storage.truncate(2, 1)
    storage.append(2, 2, 5, some(range(20, 25)))
    storage.sync()
    storage.save_snapshot(Snapshot(4, 2, b"four"))
    assert storage.drop_prefix(4) >= 1
    storage.close()
    assert values_of(reopened(tmp_path)) == [(5, 2, 23), (6, 2, 24)]


def test_a_snapshot_from_elsewhere_takes_the_logs_place(tmp_path: Path) -> None:
    """Whether the log ended before its index, or went on behind it with other entries."""
    for name, index in (("ahead", 100), ("inside", 3)):
        storage = Storage(tmp_path / name)
        storage.save(HardState(9, (5 << 64) | 2))
        storage.append(1, 1, 5, some(range(5)))
        storage.sync()
        storage.install_snapshot(Snapshot(index, 8, b"theirs"))
        storage.append(index + 1, 9, 2, some(range(70, 72)))
        storage.sync()
        storage.close()
        for _ in range(2):
            recovered = reopened(tmp_path / name)
            assert recovered.hard_state == HardState(9, (5 << 64) | 2)
            assert recovered.snapshot == Snapshot(index, 8, b"theirs")
            assert values_of(recovered) == [(index + 1, 9, 70), (index + 2, 9, 71)]
            assert (recovered.base_index, recovered.base_term) == (index, 8)
