"""A debug mode that holds the replicas' results together: ``check_determinism``.

Each member keeps, for every so many entries of the log, a digest of the replies to them and of the state behind them
(:meth:`r2p2.app.StateMachine.state_digest`, where the application has one). The leader writes its own into the log, as
a no-op with a body; a member that comes by it compares. A difference names the index and both members, is counted, and
stays in the status: from there on the replicas hold different states, and the application is why.

The body of such a no-op, big-endian: 4 bytes "R2DC", slot u16 of who wrote it, reserved 2 bytes, index u64, digest of
the replies 16 bytes, digest of the state 16 bytes (zeros: it has none).
Leaves to others: when batches end (:meth:`Determinism.batch_entries` has them end at the places compared).
"""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable
from struct import Struct
from typing import Any, Final, NamedTuple

from r2p2 import limits
from r2p2.app import StateMachine
from r2p2.engine import Engine
from r2p2.requests import ReplySequence, laid_out

__all__ = ["Determinism"]

log = logging.getLogger("r2p2.determinism")

_NOTE: Final = Struct(">4sHHQ16s16s")
_MAGIC: Final = b"R2DC"
_ENTRY: Final = Struct(">I8xB")  # body_length ... kind
_NOOP: Final = 0
_NOTHING: Final = bytes(16)
# Places that are kept for a leader's note to come: the log between a place and its note holds no more.
KEPT_MAX: Final = 4_096


class _Place(NamedTuple):
    replies: bytes
    state: bytes


class Determinism:
    """One member's part.

    Args:
        interval: entries between two places that are compared.
        slot: of this member.
        app, engine: the node's.
        counters: the node's: ``determinism_checks`` and ``determinism_differences`` are counted there.
        on_event: told of a difference.
    """

    def __init__(
        self,
        interval: int,
        slot: int,
        app: StateMachine,
        engine: Engine,
        counters: dict[str, int],
        on_event: Callable[[str], None],
    ) -> None:
        self._interval = interval
        self._slot = slot
        self._app = app
        self._engine = engine
        self._counters = counters
        self._on_event = on_event
        self._replies = hashlib.blake2b(digest_size=16)
        self._requests_count = 0
        # Since where the replies of this interval are known: not before, after a snapshot or a start half way.
        self._from_index = engine.applied_index
        self._places: OrderedDict[int, _Place] = OrderedDict()
        self._differs: dict[str, Any] | None = None
        counters["determinism_checks"] = counters["determinism_differences"] = 0

    def batch_entries(self) -> int:
        """How many entries the next batch may have at most, so that it ends at a place."""
        left = self._interval - self._engine.applied_index % self._interval
        return min(left, limits.APPLY_BATCH_ENTRIES_MAX)

    def notes(self, last_index: int) -> list[bytes]:
        """The notes among the entries that are about to be applied, through ``last_index``."""
        first_index = self._engine.applied_index + 1
        if last_index < first_index:
            return []
        data = bytes(self._engine.log_copy(first_index, last_index))
        found, at = [], 0
        while at < len(data):
            body_length, kind = _ENTRY.unpack_from(data, at)
            at += limits.ENTRY_HEADER_BYTES
            body = data[at : at + body_length]
            if kind == _NOOP and body_length == _NOTE.size and body.startswith(_MAGIC):
                found.append(body)
            at += body_length + -body_length % 8
        return found

    def applied(self, last_index: int, replies: ReplySequence, notes: list[bytes]) -> list[bytes]:
        """A batch has been applied through ``last_index``. Where that is a place: the note that a leader writes.

        A place whose entries held nothing for the application has no note: notes are entries themselves.
        """
        packed = laid_out(replies, limits.REPLICATED_REPLY_BYTES_MAX)
        self._replies.update(packed.lengths.tobytes())
        self._replies.update(packed.slab)
        self._requests_count += len(packed.lengths)
        for note in notes:
            self._compare(note)
        if last_index % self._interval:
            return []
        made = []
        if self._requests_count and self._from_index <= last_index - self._interval:
            state = self._app.state_digest()
            digest = hashlib.blake2b(state.encode(), digest_size=16).digest() if state else _NOTHING
            place = _Place(self._replies.digest(), digest)
            self._places[last_index] = place
            if len(self._places) > KEPT_MAX:
                self._places.popitem(last=False)
            made.append(_NOTE.pack(_MAGIC, self._slot, 0, last_index, *place))
        self._begin(last_index)
        return made

    def restored(self, index: int) -> None:
        """A snapshot of ``index`` has replaced the state: what came before it is not known."""
        self._places.clear()
        self._begin(index)

    def _begin(self, index: int) -> None:
        self._replies = hashlib.blake2b(digest_size=16)
        self._requests_count = 0
        self._from_index = index

    def _compare(self, note: bytes) -> None:
        _, slot, _, index, replies, state = _NOTE.unpack(note)
        mine = self._places.pop(index, None)
        if mine is None or slot == self._slot:
            return
        self._counters["determinism_checks"] += 1
        what = [name for name, a, b in (("replies", mine.replies, replies), ("state", mine.state, state)) if a != b]
        if not what:
            return
        self._counters["determinism_differences"] += 1
        if self._differs is None:
            self._differs = {"index": index, "member": self._slot, "other": slot, "what": what}
            text = (
                f"THE APPLICATION IS NOT DETERMINISTIC: at index {index} the {' and the '.join(what)} of member "
                f"{self._slot} and of member {slot} differ, within the {self._interval} entries before"
            )
            log.error("%s", text)
            self._on_event(text)

    def status(self) -> dict[str, Any]:
        """As JSON can say it; ``differs`` is the first difference, or None."""
        return {
            "interval": self._interval,
            "checks": self._counters["determinism_checks"],
            "differs": self._differs,
        }
