"""Who counts: what follows from the configuration in force, for elections, commits and reads (dissertation 4.3).

Left to others: how a configuration gets into the log (leading.py, following.py).
"""

from __future__ import annotations

from raft.configuration import Configuration
from raft.progress import Progress
from raft.quorum import majority
from raft.state import LEADER, State


class Members(State):
    """The members of the moment, from the newest configuration of the log."""

    __slots__ = ()

    @property
    def configuration_index(self) -> int:
        """Of the entry that holds the configuration in force; 0: how the cluster began."""
        return self._history.index

    @property
    def configuration_committed(self) -> bool:
        """Whether the configuration in force can no longer be taken back."""
        return self._history.index <= self.commit_index

    @property
    def is_voter(self) -> bool:
        """Whether this member's vote counts."""
        return self._history.current.is_voter(self._node_id)

    def peer(self, member: int) -> Progress | None:
        """What is known of another member, to be read; None for somebody else, and for this one. Good while leading."""
        return self._peers.get(member)

    def _may_stand(self) -> bool:
        """Whether this member may stand for election: a voter of the newest configuration that is committed as far as
        it knows, or of one after it.

        One whose removal is in its log, but perhaps nowhere else, may be the only one who can win (4.2.2). So may one
        whose vote somebody asked for and who could not give it, being ahead of the asker: it is a voter of a
        configuration that it has not got, and without it nobody may win.
        """
        if self._needed_term == self.term:
            return True
        committed = self._history.at(self.commit_index)
        return committed.is_voter(self._node_id) or any(
            configuration.is_voter(self._node_id)
            for index, configuration in self._history.entries()
            if index > self.commit_index
        )

    def _derive_members(self, now_ns: int) -> None:
        """Progress of old members is kept, of new ones begins; removed ones are told until they know, or a while."""
        current = self._history.current
        leading = self.role is LEADER
        others = [member for member in current.members if member != self._node_id]
        if leading:
            linger_ns = now_ns + 2 * self._config.election_max_ns
            for member in self._peers:
                if member not in others:
                    self._departing.setdefault(member, linger_ns)
        else:
            self._departing.clear()
        for member in others:
            self._departing.pop(member, None)
        peers = {}
        for member in (*others, *self._departing):
            peer = self._peers.get(member)
            if peer is None:
                peer = Progress(member)
                peer.reset(next_index=self.last_index + 1, now_ns=now_ns)
                # Its log is empty as far as anybody knows; an Append of a round before now is none of it.
                peer.epoch_round = self._round + 1
            peers[member] = peer
        self._peers = peers
        self._peers_list = list(peers.values())
        self._is_outsider = not current.is_voter(self._node_id)
        self._voters = self._progress_of(current.voters)
        self._outgoing = self._progress_of(current.outgoing)
        if self.transfer_target is not None and self.transfer_target not in current.voters:
            self.transfer_target = None
        self._configuration_changed = self._membership_open = True
        self._pending = True

    def _progress_of(self, members: tuple[int, ...]) -> list[Progress]:
        return [self._me if member == self._node_id else self._peers[member] for member in members]

    def _forget_departed(self, now_ns: int) -> None:
        """Removed members that know it, or were given time to, are no longer written to."""
        index = self._history.index
        gone = [
            member
            for member, until_ns in self._departing.items()
            if now_ns >= until_ns or self._peers[member].applied_index >= index
        ]
        for member in gone:
            del self._departing[member], self._peers[member]
        if gone:
            self._peers_list = list(self._peers.values())

    def _hears(self, half: list[Progress], since_ns: int) -> bool:
        heard = sum(voter is self._me or voter.heard_ns >= since_ns for voter in half)
        return heard >= majority(len(half))

    def _hears_majority(self, now_ns: int) -> bool:
        """Whether a majority, of both halves, has answered within the shortest election timeout; we hear ourselves."""
        since_ns = now_ns - self._config.election_min_ns
        return self._hears(self._voters, since_ns) and (not self._outgoing or self._hears(self._outgoing, since_ns))

    def _settle_membership(self) -> None:
        """Once a configuration is committed: whether it has this member in it, or has left it out."""
        self._membership_open = False
        inside = self._node_id in self._history.current.members
        self.removed = self._was_member and not inside
        self._was_member = self._was_member or inside

    def configurations(self) -> list[tuple[int, Configuration]]:
        """(index, configuration) of those the log still tells apart, oldest first."""
        return self._history.entries()
