"""A member's storage directory: who it belongs to, and that one process at a time uses it.

``member.json`` says which member of which cluster the directory is, under which incarnation it is known for ever, and
with whom its cluster was formed; it is replaced as a whole, durably. ``lock`` is held while a process uses the
directory, and let go by the kernel when that ends in whatever way. The log and the snapshots beside them are
:mod:`r2p2.storage`'s.
"""

from __future__ import annotations

import fcntl
import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from r2p2.errors import UserError
from r2p2.files import Files
from r2p2.storage import ANEW, SNAPSHOT_NAME, log_files
from raft import member_id

__all__ = ["MemberRecord", "StorageDirectory"]

FORMAT: Final = 1
_NAME: Final = "member.json"
_LOCK: Final = "lock"


@dataclass(frozen=True, slots=True)
class MemberRecord:
    """What ``member.json`` says.

    ``members``: identities (incarnation << 16 | slot) that Raft was started with; empty: no cluster yet. ``joining``:
    this member was not among them, and was added later. ``application``: the name of what is replicated; empty: nobody
    has said.
    """

    cluster_id: int
    slot: int
    incarnation: int
    members: tuple[int, ...] = ()
    joining: bool = False
    application: str = ""


class StorageDirectory:
    """One directory, locked until :meth:`close`.

    Args:
        path: made where it is missing.
        record: what a fresh directory becomes. One that is not fresh has to be of the same cluster, slot and
            application, and keeps its incarnation.
        files: the calls that write.

    Raises:
        UserError: another process uses it, it belongs to another member or application, or it cannot be used.
    """

    def __init__(self, path: Path, record: MemberRecord, files: Files) -> None:
        self.path = path
        self._files = files
        self._lock = -1
        try:
            if not (path / _NAME).exists():
                self._make(path)
            self._lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
            self._take_lock()
            self.record = self._read(record)
            self.is_fresh = self.record is record
            if self.is_fresh:
                self._check_empty()
                self.save(record)
            elif record.application and not self.record.application:
                self.save(replace(self.record, application=record.application))
        except OSError as error:
            self.close()
            why = "it is a file" if path.is_file() else error.strerror
            where = f" ({error.filename})" if error.filename else ""
            raise UserError(f"storage {path} cannot be used: {why}{where}", "Name a directory to write in.") from error
        except BaseException:
            self.close()
            raise

    def _make(self, path: Path) -> None:
        """The directory and those above it, as far as they are missing, with durable names."""
        missing: list[Path] = []
        while not path.exists():
            missing.append(path)
            path = path.parent
        # A start that ended in here may have made it. Where its parent cannot be opened, somebody else has.
        with suppress(PermissionError):
            self._files.sync_directory(path.parent)
        for each in reversed(missing):
            each.mkdir(exist_ok=True)
            self._files.sync_directory(each.parent)

    def save(self, record: MemberRecord) -> None:
        """Replaces ``member.json``; durable on return. OSError when it cannot be."""
        text = json.dumps({"format": FORMAT} | asdict(record) | {"incarnation": f"{record.incarnation:016x}"}, indent=1)
        temporary = self.path / f"{_NAME}.new"
        self._files.remove(temporary)
        handle = self._files.create(temporary)
        try:
            self._files.write(handle, text.encode())
            self._files.sync(handle)
        finally:
            self._files.close(handle)
        self._files.replace(temporary, self.path / _NAME)
        self._files.sync_directory(self.path)
        self.record = record

    def close(self) -> None:
        """Lets the directory go. Idempotent."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _take_lock(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(self._lock, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise UserError(
                f"storage {self.path} is in use by another process (pid {owner})",
                "Stop that one, or give each member a directory of its own.",
            ) from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    def _read(self, wanted: MemberRecord) -> MemberRecord:
        path = self.path / _NAME
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            return wanted
        try:
            read = json.loads(text)
            version = read.pop("format")
            if version != FORMAT:
                raise UserError(
                    f"{path} has format {version}, this version of the program reads {FORMAT}",
                    "Run the version that wrote the directory.",
                )
            incarnation = int(read.pop("incarnation"), 16)
            found = MemberRecord(incarnation=incarnation, members=tuple(read.pop("members")), **read)
            own = member_id(found.slot, incarnation)
            if not all(isinstance(member, int) for member in found.members):
                raise ValueError(f"members {found.members} are not numbers")
            if found.members and (own in found.members) is not (not found.joining):
                raise ValueError(f"joining is {found.joining}, members {found.members}, and this one is {own}")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path} is damaged: {error}", ANEW) from error
        if (found.cluster_id, found.slot) != (wanted.cluster_id, wanted.slot):
            raise UserError(
                f"storage {self.path} belongs to member {found.slot} of cluster {found.cluster_id}, and this is "
                f"member {wanted.slot} of cluster {wanted.cluster_id}",
                "Give each member its own directory, and the same one every time.",
            )
        if found.application and wanted.application and found.application != wanted.application:
            raise UserError(
                f"storage {self.path} holds what the application {found.application} has made, and this is "
                f"{wanted.application}",
                f"Start it with --app {found.application}. If only its name is new, change it in {path}.",
            )
        return found

    def _check_empty(self) -> None:
        log = [path for path in (*log_files(self.path), self.path / SNAPSHOT_NAME) if path.exists()]
        if log:
            raise UserError(
                f"storage {self.path} holds a log ({log[0].name}) and no {_NAME}, which says whose it is",
                ANEW,
            )
