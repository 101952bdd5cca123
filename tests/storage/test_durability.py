"""The disk's thread: many Readies in one sync, messages let out in order, errors that end the process."""

from __future__ import annotations

import json
import threading
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from r2p2.engine import Engine, EngineConfig
from r2p2.errors import UserError
from r2p2.files import Files
from r2p2.memory import MemoryNetwork
from r2p2.node.durability import Durability
from r2p2.storage import Snapshot, Storage, StorageError
from r2p2.storage_directory import MemberRecord, StorageDirectory
from raft import HardState

RECORD = MemberRecord(cluster_id=1, slot=0, incarnation=77)
WAIT_SECONDS = 20.0


class SlowFiles(Files):
    """Whose syncs wait to be let go, once ``hold`` is set."""

    def __init__(self) -> None:
        self.hold = False
        self.waiting = threading.Semaphore(0)
        self.go = threading.Semaphore(0)
        self.syncs = 0
        self.error: OSError | None = None

    def sync(self, handle: int) -> None:
        if self.hold:
            self.waiting.release()
            assert self.go.acquire(timeout=WAIT_SECONDS)
        if self.error is not None:
            raise self.error
        self.syncs += 1
        super().sync(handle)


class Bench:
    """A durable member's disk, an engine for the entries, and an event for the wake-up."""

    def __init__(self, path: Path, record: MemberRecord = RECORD, log_bytes_max: int = 1 << 20) -> None:
        self.path = path
        self.network = MemoryNetwork(packets_max=1024)
        self.engine = Engine(self.network.open(1, 1), EngineConfig(reassembly_count_max=256))
        self.woken = threading.Semaphore(0)
        self.files = SlowFiles()
        self.disk = Durability(path, record, log_bytes_max=log_bytes_max, files=self.files)
        self.disk.wake = self.woken.release

    def ready(self, number: int) -> None:
        self.engine.append_noop()
        index = self.engine.log_last_index
        self.disk.append(self.engine, index, index, 1)
        assert not self.disk.submit(number, None)

    def wait(self) -> int:
        assert self.woken.acquire(timeout=WAIT_SECONDS)
        return self.disk.done()

    def close(self) -> None:
        self.files.hold = False
        self.files.go.release(100)
        self.disk.close()
        self.engine.close()
        self.network.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path / "member")
    yield made
    made.close()


def test_all_that_comes_during_a_sync_shares_the_next(bench: Bench) -> None:
    bench.files.hold = True
    before = bench.files.syncs
    bench.ready(1)
    assert bench.files.waiting.acquire(timeout=WAIT_SECONDS)
    for number in range(2, 52):
        bench.ready(number)
    assert bench.disk.done() == 0, "nothing is durable yet"
    bench.files.go.release()
    assert bench.wait() == 1
    assert bench.files.waiting.acquire(timeout=WAIT_SECONDS)
    bench.files.go.release()
    assert bench.wait() == 51
    assert bench.files.syncs == before + 2
    assert bench.disk.status()["entries_per_sync"] == 25.5


def test_a_ready_that_writes_nothing_does_not_overtake(bench: Bench) -> None:
    assert bench.disk.submit(1, None), "there is nothing to wait for"
    bench.files.hold = True
    bench.ready(2)
    assert not bench.disk.submit(3, None), "what it lets out stands behind what is not durable"
    assert bench.files.waiting.acquire(timeout=WAIT_SECONDS)
    bench.files.go.release()
    assert bench.wait() == 3
    assert bench.disk.submit(4, None)


def test_an_error_of_the_disk_is_told_and_stays(bench: Bench) -> None:
    bench.files.error = OSError(5, "Input/output error")
    bench.ready(1)
    assert bench.woken.acquire(timeout=WAIT_SECONDS)
    for _ in range(2):
        with pytest.raises(StorageError, match=r"sync failed: .*Input/output error.*Mend the disk"):
            bench.disk.done()


def test_members_want_their_snapshots_one_after_the_other(tmp_path: Path) -> None:
    wanted = []
    for slot in range(9):
        bench = Bench(tmp_path / f"member{slot}", MemberRecord(1, slot, 77), log_bytes_max=6400)
        entries = 0
        while not bench.disk.wants_snapshot:
            entries += 1
            bench.ready(entries)
        wanted.append(entries * 16)
        bench.close()
    assert wanted[0] == wanted[8] == 3216, "the first beyond half of the bound"
    assert wanted[:8] == sorted(set(wanted[:8])) and wanted[7] < 6400 * 5 // 8


def test_a_snapshot_does_not_keep_the_log_waiting(bench: Bench) -> None:
    bench.ready(1)
    assert bench.wait() == 1
    bench.files.hold = True
    planned = bench.disk.plan_snapshot(bench.engine, 1, b"configuration")
    assert not bench.disk.wants_snapshot, "one is on its way"
    bench.disk.save_snapshot(planned, planned.front + b"state")
    assert bench.files.waiting.acquire(timeout=WAIT_SECONDS)  # the snapshot's own sync
    bench.files.hold = False
    bench.ready(2)
    assert bench.wait() == 2
    assert bench.disk.snapshot_index == 0
    assert not bench.disk.wants_snapshot
    bench.files.go.release()
    assert bench.woken.acquire(timeout=WAIT_SECONDS)
    bench.disk.done()
    assert bench.disk.snapshot_index == 1
    assert bench.disk.counters["storage_snapshots"] == 1
    assert bench.disk.log_bytes == 16, "one entry behind it"


def test_no_snapshot_begins_while_the_leaders_is_not_durable(bench: Bench) -> None:
    """Both would be written to the same file, and one renamed in the place of the other."""
    bench.ready(1)
    assert bench.wait() == 1
    bench.files.hold = True
    planned = bench.disk.plan_snapshot(bench.engine, 1, b"")
    bench.disk.save_snapshot(planned, planned.front + b"own")
    assert bench.files.waiting.acquire(timeout=WAIT_SECONDS)  # ours is on its way
    bench.engine.reset_log(100, 0, 0)
    bench.disk.restore(100, 1, b"", b"the leader's")
    assert not bench.disk.submit(2, None)
    for number in range(3, 3 + (1 << 20) * 5 // 8 // 16):
        bench.ready(number)
    assert (bench.disk.log_bytes > 1 << 19, bench.disk.wants_snapshot) == (True, False)
    bench.files.hold = False
    bench.files.go.release(100)
    while bench.wait() != number:
        pass
    assert bench.disk.wants_snapshot and bench.disk.snapshot_index == 100


def test_what_takes_the_place_of_entries_that_came_back_is_new(tmp_path: Path) -> None:
    """Truncated, or replaced by a snapshot: a restart's replay goes no further."""
    bench = Bench(tmp_path)
    for number in range(1, 6):
        bench.ready(number)
    while bench.wait() != 5:
        pass
    bench.disk.close()
    again = Durability(tmp_path, MemberRecord(1, 0, 99), log_bytes_max=1 << 20)
    try:
        assert again.replay_through == 5
        again.truncate(bench.engine, 4)
        assert again.replay_through == 3
        again.append(bench.engine, 4, 5, 2)
        again.truncate(bench.engine, 5)
        assert again.replay_through == 3, "never raised"
        again.restore(2, 1, b"", b"")
        assert again.replay_through == 2
    finally:
        again.close()
        bench.close()


def test_a_log_of_the_smallest_entries_comes_back(tmp_path: Path) -> None:
    """The disk's share is counted in bytes: as many entries as it takes are more than are admitted to a log at once."""
    bench = Bench(tmp_path)
    entries = (1 << 20) // 16
    bench.engine.append_noop()
    noop = bytes(bench.engine.log_copy(1, 1))
    bench.disk.close()
    storage = Storage(tmp_path)
    storage.append(1, 1, entries, noop * entries)
    storage.sync()
    storage.close()
    again = Durability(tmp_path, RECORD, log_bytes_max=1 << 20)
    port = bench.network.open(2, 1)
    engine = Engine(port, EngineConfig(log_bytes_max=1 << 20, log_entries_max=1024, reassembly_count_max=256))
    recovered, _, _ = again.take_recovered()
    again.load(engine, recovered)
    assert engine.log_last_index == entries and again.is_full(has_snapshots=True)
    again.close()
    engine.close()
    bench.close()


def test_what_was_handed_over_comes_back(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.disk.started((77 << 16, 78 << 16 | 1), joining=False)
    for number in range(1, 4):
        bench.ready(number)
    assert not bench.disk.submit(4, HardState(3, 78 << 16 | 1))
    while bench.wait() != 4:
        pass
    bench.disk.truncate(bench.engine, 3)
    bench.engine.truncate_suffix(3)
    assert not bench.disk.submit(5, None)
    assert bench.wait() == 5
    bench.close()
    again = Durability(tmp_path, MemberRecord(1, 0, 99), log_bytes_max=1 << 20)
    try:
        assert again.record == MemberRecord(1, 0, 77, (77 << 16, 78 << 16 | 1))
        recovered, configurations, snapshot = again.take_recovered()
        assert recovered.hard_state == HardState(3, 78 << 16 | 1)
        assert (recovered.last_index, configurations, snapshot) == (2, [], None)
        assert again.replay_through == 2
    finally:
        again.close()


def test_a_snapshot_is_in_memory_twice_at_most_when_it_is_read(tmp_path: Path) -> None:
    size = 8 << 20
    Durability(tmp_path, RECORD, log_bytes_max=1 << 20, threaded=False).close()
    storage = Storage(tmp_path)
    storage.append(1, 1, 1, bytes(16))
    storage.save_snapshot(Snapshot(1, 1, bytes(4 + size)))
    storage.close()
    tracemalloc.start()
    try:
        again = Durability(tmp_path, RECORD, log_bytes_max=1 << 20, threaded=False)
        recovered, _, node_snapshot = again.take_recovered()
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    again.close()
    assert node_snapshot == bytes(size) and recovered.snapshot is not None
    assert held < size * 3 // 2 and peak < size * 5 // 2


def test_a_directory_is_of_one_application(tmp_path: Path) -> None:
    kv = MemberRecord(1, 0, 77, application="kv")
    directory = StorageDirectory(tmp_path, kv, Files())
    directory.save(replace(kv, members=(77 << 16,)))
    directory.close()
    with pytest.raises(UserError, match="holds what the application kv has made, and this is echo") as refused:
        StorageDirectory(tmp_path, replace(kv, application="echo"), Files())
    assert f"change it in {tmp_path / 'member.json'}" in refused.value.remedy
    for application in ("kv", ""):  # who embeds a node may say nothing
        again = StorageDirectory(tmp_path, replace(kv, application=application), Files())
        assert again.record == replace(kv, members=(77 << 16,))
        again.close()


def test_a_fresh_directory_may_hold_files_of_others(tmp_path: Path) -> None:
    (tmp_path / "serve.log").write_text("waits for 10.0.0.2:8000")
    StorageDirectory(tmp_path, MemberRecord(1, 0, 77), Files()).close()
    (tmp_path / "member.json").unlink()
    (tmp_path / "0000000000000001.log").touch()
    with pytest.raises(UserError, match=r"holds a log \(0000000000000001\.log\) and no member\.json"):
        StorageDirectory(tmp_path, MemberRecord(1, 0, 77), Files())


class WatchedDirectories(Files):
    """Tells which directories were synced; ``closed`` may not be opened."""

    def __init__(self, closed: Path | None = None) -> None:
        self.closed = closed
        self.synced: list[Path] = []

    def sync_directory(self, path: Path) -> None:
        if path == self.closed:
            raise PermissionError(13, "Permission denied", str(path))
        super().sync_directory(path)
        self.synced.append(path)


def test_every_directory_that_is_made_has_a_durable_name(tmp_path: Path) -> None:
    files = WatchedDirectories()
    StorageDirectory(tmp_path / "a" / "b" / "c", RECORD, files).close()
    assert files.synced[:4] == [tmp_path.parent, tmp_path, tmp_path / "a", tmp_path / "a" / "b"]


def test_a_directory_that_is_there_may_have_a_parent_that_cannot_be_opened(tmp_path: Path) -> None:
    path = tmp_path / "member"
    path.mkdir()
    StorageDirectory(path, RECORD, WatchedDirectories(tmp_path)).close()
    with pytest.raises(UserError, match=f"cannot be used: Permission denied .{tmp_path}"):
        StorageDirectory(tmp_path / "other", RECORD, WatchedDirectories(tmp_path))


class FullFiles(Files):
    def write(self, handle: int, data: bytes | bytearray) -> None:
        raise OSError(28, "No space left on device")


def test_a_disk_that_fails_at_the_start_is_an_error_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="fresh cannot be used: No space left on device"):
        Durability(tmp_path / "fresh", RECORD, log_bytes_max=1 << 20, files=FullFiles())
    path = tmp_path / "old"
    for files, message in ((None, ""), (FullFiles(), r"start failed: .*No space left"), (None, "")):
        if message:
            with pytest.raises(StorageError, match=message):
                Durability(path, RECORD, log_bytes_max=1 << 20, files=files)
        else:
            Durability(path, RECORD, log_bytes_max=1 << 20, files=files).close()
    (path / "ffffffffffffffff.log").mkdir()
    with pytest.raises(StorageError, match=r"start failed: .*Is a directory: .*ffffffffffffffff"):
        Durability(path, RECORD, log_bytes_max=1 << 20)


def test_a_record_of_the_member_that_is_no_text_is_damaged(tmp_path: Path) -> None:
    StorageDirectory(tmp_path, RECORD, Files()).close()
    path = tmp_path / "member.json"
    data = bytearray(path.read_bytes())
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x80]) + data[at + 1 :])
        with pytest.raises(UserError, match=r"member\.json is damaged"):
            StorageDirectory(tmp_path, RECORD, Files())


@pytest.mark.parametrize(
    "change",
    [
        {"incarnation": "00000000000000cd"},
        {"members": [(77 + (1 << 30)) << 16, 78 << 16 | 1]},
        {"members": ["77"]},
        {"members": {"77": 1}},
        {"members": 77},
        {"joining": True},
        {"slot": []},
    ],
)
def test_a_record_of_the_member_that_contradicts_itself_is_damaged(tmp_path: Path, change: dict[str, object]) -> None:
    """A flipped bit may leave it readable; the member would come back as nobody."""
    directory = StorageDirectory(tmp_path, RECORD, Files())
    directory.save(replace(RECORD, members=(77 << 16, 78 << 16 | 1)))
    directory.close()
    path = tmp_path / "member.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=r"member\.json is damaged"):
        StorageDirectory(tmp_path, RECORD, Files())


def test_a_directory_that_names_no_application_takes_the_first(tmp_path: Path) -> None:
    StorageDirectory(tmp_path, MemberRecord(1, 0, 77), Files()).close()
    StorageDirectory(tmp_path, MemberRecord(1, 0, 78, application="kv"), Files()).close()
    directory = StorageDirectory(tmp_path, MemberRecord(1, 0, 79), Files())
    assert directory.record == MemberRecord(1, 0, 77, application="kv")
    directory.close()
