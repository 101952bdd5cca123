"""The storage alone on a disk that loses its power at any call and keeps names in any order: what was synced is there,
and of the rest a beginning.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from r2p2.storage import Recovered, Snapshot, Storage
from raft import HardState
from tests.storage.crashing import PowerLost
from tests.storage.test_storage import some, values_of
from tests.storage.unordered import UnorderedFiles

# Term and vote, the snapshot's index, the entries behind it (index, term, value).
State = tuple[HardState | None, int, tuple[tuple[int, int, int], ...]]


def state_of(recovered: Recovered) -> State:
    index = recovered.snapshot.index if recovered.snapshot is not None else 0
    return recovered.hard_state, index, tuple(values_of(recovered))


class Life:
    """What is asked of one storage, and every state that a failure from the last sync on may leave."""

    def __init__(self, storage: Storage, rng: random.Random, value: int) -> None:
        recovered = storage.take_recovered()
        self.hard, self.base, log = state_of(recovered)
        self.log = list(log)
        self.base_term = recovered.base_term
        self.states = [self.state()]
        self.value = value
        self._storage = storage
        self._rng = rng

    def state(self) -> State:
        return self.hard, self.base, tuple(self.log)

    @property
    def last(self) -> tuple[int, int]:
        """Index and term of the log's end."""
        return self.log[-1][:2] if self.log else (self.base, self.base_term)

    def change(self, do: Callable[[], object]) -> None:
        """The states are told first: the power may fail within."""
        self.states.append(self.state())
        do()

    def sync(self) -> None:
        self._storage.sync()
        self.states = [self.state()]

    def save(self) -> None:
        hard = self.hard = HardState(
            max(self.hard.term if self.hard else 0, self.last[1]) + 1, self._rng.choice((None, 2))
        )
        self.change(lambda: self._storage.save(hard))

    def append(self) -> None:
        index, last_term = self.last
        term, count = max(last_term, self.hard.term if self.hard else 0, 1), self._rng.randint(1, 4)
        entries = some(range(self.value, self.value + count))
        self.log += [(index + 1 + i, term, self.value + i) for i in range(count)]
        self.value += count
        self.change(lambda: self._storage.append(index + 1, term, count, entries))

    def truncate(self) -> None:
        if self.log:
            del self.log[self._rng.randrange(len(self.log)) :]
            index, term = self.last
            self.change(lambda: self._storage.truncate(index + 1, term))

    def snapshot(self) -> None:
        """Of an entry that is applied, hence durable."""
        self.sync()
        if self.log:
            index, term, _ = self._rng.choice(self.log)
            snapshot = Snapshot(index, term, bytes(self._rng.randint(1, 60)))
            self._storage.write_snapshot(snapshot)
            self.base, self.base_term = index, term
            self.log = [entry for entry in self.log if entry[0] > index]
            self.change(lambda: self._storage.adopt_snapshot(snapshot))
            self.states = [self.state()]
            self._storage.drop_prefix(index)

    def install(self) -> None:
        """A snapshot of somebody who is ahead."""
        self.sync()
        index, term = self.last
        snapshot = Snapshot(index + self._rng.randint(1, 5), term + 1, bytes(40))
        self.base, self.base_term, self.log = snapshot.index, snapshot.term, []
        self.change(lambda: self._storage.install_snapshot(snapshot))
        self.states = [self.state()]

    def act(self) -> None:
        acts = [self.save, self.append, self.truncate, self.sync, self.snapshot, self.install]
        self._rng.choices(acts, (15, 40, 10, 20, 10, 4))[0]()


@pytest.mark.parametrize("seed", range(150))
def test_power_fails_and_names_survive_in_any_order(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    states: list[State] = [(None, 0, ())]
    value = 0
    for number in range(12):
        life: Life | None = None
        files = UnorderedFiles(tmp_path, rng, rng.choice([None, 2, 4, 7, 9, 12, 15, 30, 60]))
        try:
            storage = Storage(tmp_path, segment_bytes=rng.choice((150, 1000)), files=files)
            life = Life(storage, rng, value)
            assert life.state() in states, f"life {number}: neither what was synced nor a state after it"
            for _ in range(rng.randint(0, 25)):
                life.act()
        except PowerLost:
            pass
        files.lose_power()
        if life is not None:
            states, value = life.states, life.value
