"""What the statuses of members say together: who is a member, who is missing, whether the cluster is healthy.

Who is a member is for the cluster's own configuration to say, not for the file that it was started from: the newest
configuration that any member tells. Pure: statuses in, judgements out. Leaves to others: asking (`status.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

__all__ = ["Status", "Statuses", "View"]

Status: TypeAlias = dict[str, Any]
"""What a member says of itself (:meth:`r2p2.node.Node.status`), or ``{"error": why it said nothing}``."""

Statuses: TypeAlias = dict[str, Status]
"""By address, ``IP:PORT``."""


HELD_BYTES_MIN: Final = 1 << 16
"""Of log that is held back: less is not worth a word."""


@dataclass(frozen=True, slots=True)
class View:
    """One look at a cluster.

    Attributes:
        statuses: of every address that was asked.
        named: the addresses that the operator named, in a file or on the command line.
        slots: of those in a file: address -> slot.
    """

    statuses: Statuses
    named: Sequence[str] = ()
    slots: dict[str, int] = field(default_factory=dict)

    @property
    def answered(self) -> Statuses:
        """Those that said something."""
        return {address: status for address, status in self.statuses.items() if "error" not in status}

    @property
    def leader(self) -> Status | None:
        """The status of who leads in the highest term."""
        leading = [status for status in self.answered.values() if status.get("role") == "leader"]
        return max(leading, key=lambda status: int(status.get("term", 0)), default=None)

    @property
    def _told(self) -> list[dict[str, Any]]:
        """The members of the newest configuration that anybody tells, with an address; of a member that was launched
        anew there may be two, the launch that votes and the one that catches up.
        """
        told = [status for status in self.answered.values() if isinstance(status.get("configuration"), dict)]
        if not told:
            return []
        leader = self.leader
        newest = leader or max(told, key=lambda status: int(status["configuration"]["configuration_index"]))
        return [row for row in newest["configuration"]["members"] if row["address"]]

    def _is_who_answers(self, row: dict[str, Any]) -> bool:
        """Whether the launch that a row is of is the one that answers at its address, as far as both are known."""
        incarnation = self.answered.get(row["address"], {}).get("incarnation")
        return None in (incarnation, row.get("incarnation")) or incarnation == row["incarnation"]

    @property
    def rows(self) -> dict[str, dict[str, Any]]:
        """The members of the newest configuration that anybody tells, by address; empty where none is told. Of two
        launches at one address that which answers.
        """
        return {row["address"]: row for row in sorted(self._told, key=self._is_who_answers)}

    @property
    def voters(self) -> set[str]:
        """The addresses of those who vote by the newest configuration."""
        return {row["address"] for row in self._told if row["voter"]}

    def votes(self, address: str) -> bool:
        """Whether who answers there is a voter, and no later launch that has forgotten what the voter knew."""
        found = [row for row in self._told if row["address"] == address and row["voter"]]
        return address in self.answered and any(map(self._is_who_answers, found))

    @property
    def unasked(self) -> list[str]:
        """Members that somebody tells of and nobody has asked."""
        return [address for address in self.rows if address not in self.statuses]

    @property
    def is_healthy(self) -> bool:
        """Whether every member answers and follows one leader in one term, every voter is the launch that the
        configuration has, and none has lost its memory for good.

        An address that is named and is not a member does not count. Servers without replicas are healthy when all
        answer.
        """
        rows = self.rows
        if not rows:
            statuses = self.statuses.values()
            return bool(statuses) and all("error" not in s and s.get("replicated") is False for s in statuses)
        members = [self.statuses.get(address, {"error": "not asked"}) for address in rows]
        if any("error" in status or status.get("majority_lost") for status in members):
            return False
        if not all(map(self.votes, self.voters)):
            return False
        views = {(status.get("leader"), status.get("term")) for status in members}
        return len(views) == 1 and views.pop()[0] is not None

    def is_member(self, address: str) -> bool:
        """Whether the configuration has it; where no configuration is known, everybody asked is taken for one."""
        rows = self.rows
        return not rows or address in rows

    def held_bytes(self, address: str) -> int:
        """Bytes of log that this member holds back, as the leader says."""
        held = (self.leader or {}).get("log_held_by")
        return int(held["bytes"]) if held and held["address"] == address else 0

    def silent_ms(self, address: str) -> float | None:
        """How long the leader has not heard of a member, milliseconds; None: nobody can say."""
        silent = self.rows.get(address, {}).get("silent_ms")
        return None if silent is None else float(silent)

    def kind(self, address: str) -> str:
        """What it is to the cluster: its role, ``learner``, ``joining``, ``no member``, ``down``, ``alone``."""
        status = self.statuses[address]
        row = self.rows.get(address)
        if "error" in status:
            return "down" if self.is_member(address) else "no member"
        if not status.get("replicated"):
            return "alone"
        is_new = row is None or not self._is_who_answers(row)
        if "role" not in status or (self.rows and is_new):
            return "joining" if status.get("joining") or self.rows else "forming"
        if row is not None and row["learner"]:
            return "learner"
        return str(status["role"])

    def slot(self, address: str) -> int | None:
        """Its slot: as it says itself, as the configuration says, or as the file says."""
        status, row = self.statuses[address], self.rows.get(address)
        if "node_id" in status:
            return int(status["node_id"])
        return int(row["slot"]) if row is not None else self.slots.get(address)

    def state(self, address: str) -> str:
        """What an operator should know of it; ``ok`` where there is nothing."""
        status, row = self.statuses[address], self.rows.get(address)
        notes: list[str] = []
        kind = self.kind(address)
        if kind == "no member":
            return "not in the cluster's configuration, and does not run"
        if kind == "down":
            notes.append(str(status["error"]).removesuffix("; is a server running there?"))
            silent = self.silent_ms(address)
            if silent is not None:
                notes.append(f"the leader has not heard of it for {silent / 1000:.1f} s")
        elif kind == "forming":
            waiting = status.get("waiting_for")
            notes.append(f"waits for the members in slots {waiting}" if waiting else "waits for the cluster to form")
        elif kind == "joining" and row is not None:
            notes.append("started anew, waits to be let in")
        elif kind == "joining":
            notes.append(f"waits to be let in: r2p2 member add {self.slot(address)} {address} --cluster ...")
        elif kind == "learner":
            behind = int((self.leader or {}).get("commit_index", 0)) - int(status.get("applied_index", 0))
            notes.append(f"catches up, {max(0, behind)} entries behind; does not vote yet")
        elif status.get("replicated") and status.get("leader") is None:
            notes.append("knows no leader")
        if row is not None and row["outgoing"] and not row["voter"]:
            notes.append("is being removed")
        held = self.held_bytes(address)
        # A member that keeps up holds a moment's worth of log, always; who is silent holds it back.
        if held >= HELD_BYTES_MIN and (kind in ("down", "learner") or (self.silent_ms(address) or 0) > 1000):
            notes.append(f"holds back {held / (1 << 20):.1f} MiB of log")
        lost = status.get("majority_lost")
        if lost:
            notes.append(f"a majority lost its memory: slots {lost}")
        differs = (status.get("determinism") or {}).get("differs")
        if differs:
            notes.append(f"not deterministic: differed from member {differs['other']} at index {differs['index']}")
        return "; ".join(notes) or "ok"

    @property
    def notes(self) -> list[str]:
        """What concerns no single member, a sentence each."""
        found = []
        rows, leader = self.rows, self.leader
        for address in self.named if rows else ():
            if address not in rows:
                found.append(
                    f"{address} is named, but is no member: take it out of the file, or let it in (r2p2 member add)."
                )
        if self.slots:
            for address, row in rows.items():
                if address not in self.slots:
                    found.append(f"slot {row['slot']} at {address} is a member and is not in the file: add it there.")
        if leader is not None:
            if leader.get("evicted"):
                found.append(f"slots {leader['evicted']} were removed because they held the log: r2p2 member add.")
            found += [f"waiting: {o['op']} {o['slot']}: {o['note']}" for o in leader["configuration"]["waiting"]]
        return found
