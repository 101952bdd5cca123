"""Interaction scripts: commands to a cluster, and the whole trace that has to come out.

A file is prose, commands, a line ``----``, the expected output, an empty line, and so on. Commands:

    cluster COUNT [FIELD=N ...] [slow-disk]   a fresh cluster; fields of raft.Config
    elect I                                   200 ms pass, member I is elected, all is delivered, nothing is traced
    tick I MS          the clock goes on by MS milliseconds, and member I looks at it
    deliver [FILTER]   what is in flight now arrives, in order; FILTER: from=I to=I kind=NAME nth=N, all optional
    settle             deliver until nothing is in flight
    lose [FILTER]      it does not arrive
    cut I              what member I sends or is sent is lost when it is delivered; heal: not any more
    copy [FILTER]      it is in flight twice
    propose I VALUE... at member I
    sync I [N]         the N oldest writes of member I (default: all) are durable (slow-disk)
    crash I            kill -9: writes that were not synced are gone; restart I starts it again from its disk
    read I             a linearizable read; transfer I J: member I hands over to J
    slow I             from here on member I's writes are durable only when synced
    quietly COMMAND    without its trace
    join               a new process, with the next number, that is no member yet
    change I add J | promote J [instead-of K] | remove J | voters J...
                       leader I changes the members
    snapshot I         member I keeps its state and lets the log before it go
    caught-up I J      whether leader I says that J keeps up
    show [I ...]       where members stand; members [I ...]: whom they hold for members

Times are virtual, chance is seeded: the same script has the same trace. ``REWRITE=1 pytest tests/raft/test_scripts.py``
writes what came out into the files, for a look at the difference.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from r2p2.sim.node import Disk, SimNode
from raft import (
    AbandonSnapshot,
    Append,
    AppendConfiguration,
    AppendNoop,
    AppendReply,
    ChangeRefused,
    Config,
    Configuration,
    InstallSnapshot,
    InstallSnapshotReply,
    LogOp,
    Message,
    NotLeader,
    PreVote,
    PreVoteReply,
    ReadIndex,
    ReadIndexReply,
    RestoreSnapshot,
    Role,
    SnapshotChunk,
    Truncate,
    Vote,
    VoteReply,
)
from raft.list_log import Entry
from raft.messages import NO_ROUND
from tests.raft.raft_harness import MS, over_the_wire

SEPARATOR = "----"


def listed(configuration: Configuration) -> str:
    """voters[+learners], a joint one as old->new."""
    text = ",".join(map(str, configuration.voters))
    if configuration.outgoing:
        text = f"{','.join(map(str, configuration.outgoing))}->{text}"
    if configuration.learners:
        text = f"{text}+{','.join(map(str, configuration.learners))}"
    return f"[{text}]"


def valued(entry: Entry) -> str:
    """What an entry holds."""
    return listed(entry[1]) if isinstance(entry[1], Configuration) else str(entry[1])


def done(op: LogOp) -> str:
    """One operation on a log."""
    if isinstance(op, Truncate):
        return f"truncates from {op.from_index}"
    if isinstance(op, AppendNoop):
        return f"appends no-op {op.index}@{op.term}"
    if isinstance(op, AppendConfiguration):
        return f"appends members {op.index}@{op.term}={listed(op.configuration)}"
    if isinstance(op, SnapshotChunk):
        return f"keeps bytes {op.offset}..{op.offset + op.bytes_count - 1} of {op.total_bytes}"
    if isinstance(op, AbandonSnapshot):
        return "lets go what has come of a snapshot"
    if isinstance(op, RestoreSnapshot):
        return f"restores the snapshot of {op.index}@{op.term}, members {listed(op.configuration)}"
    return f"appends {op.first_index}..{op.first_index + op.count - 1}@{op.term}"


def shown(message: Message) -> str:
    """One message on one line."""
    head = f"{message.sender}->{message.target} {type(message).__name__} term={message.term}"
    if isinstance(message, Append):
        entries = "none"
        if message.count:
            first = message.prev_index + 1
            entries = f"{first}..{message.prev_index + message.count}@{message.entries_term}"
            if message.configuration is not None:
                entries += f"={listed(message.configuration)}"
        return (
            f"{head} round={message.round} prev={message.prev_index}@{message.prev_term} entries={entries} "
            f"commit={message.commit} global={message.global_commit}"
        )
    if isinstance(message, AppendReply):
        round_ = "none" if message.round == NO_ROUND else message.round
        if message.accepted:
            return f"{head} round={round_} match={message.match_index} applied={message.applied_index}"
        return f"{head} round={round_} refused={message.match_index} hint={message.hint_index}@{message.hint_term}"
    if isinstance(message, InstallSnapshot):
        members = "" if message.configuration is None else f" members={listed(message.configuration)}"
        last = message.offset + message.bytes_count - 1
        return (
            f"{head} index={message.index}@{message.index_term} bytes={message.offset}..{last} "
            f"of {message.total_bytes}{members}"
        )
    if isinstance(message, InstallSnapshotReply):
        state = "installed" if message.installed else f"has={message.offset}"
        return f"{head} index={message.index} {state} applied={message.applied_index}"
    if isinstance(message, PreVote | Vote):
        transfer = " transfer" if isinstance(message, Vote) and message.transfer else ""
        return f"{head} last={message.last_index}@{message.last_term}{transfer}"
    if isinstance(message, PreVoteReply | VoteReply):
        return f"{head} {'granted' if message.granted else 'refused'}"
    if isinstance(message, ReadIndex):
        return head
    if isinstance(message, ReadIndexReply):
        return f"{head} {f'index={message.index}' if message.granted else 'refused'}"
    return head


class Script:
    """One cluster and what is in flight between its members."""

    def __init__(self) -> None:
        """No cluster yet."""
        self.now = 0
        self.nodes: list[SimNode | None] = []
        self.flight: list[Message] = []
        self.lines: list[str] = []
        self.tickets: dict[int, int] = {}
        self.members: tuple[int, ...] = ()
        self.settings: dict[str, int] = {}
        self.disks: list[Disk] = []
        self.slow = False
        self.cut: set[int] = set()
        self.used: dict[int, Configuration] = {}  # the members each was last said to use

    def run(self, text: str) -> str:
        """The file again, with what really comes out."""
        out: list[str] = []
        commands: list[str] = []
        lines = iter(text.splitlines())
        for line in lines:
            out.append(line)
            if line == SEPARATOR:
                self.lines = []
                for command in commands:
                    self._command(command)
                commands = []
                out += self.lines or ["ok"]
                for expected in lines:  # what was expected goes, up to the empty line behind it
                    if not expected.strip():
                        break
                out.append("")
            elif line and not line.startswith("#") and line.split()[0] in self._commands():
                commands.append(line)
        while out and not out[-1]:
            out.pop()
        return "\n".join(out) + "\n"

    def _commands(self) -> dict[str, Callable[..., None]]:
        return {
            "cluster": self._cluster,
            "elect": self._elect,
            "tick": self._tick,
            "deliver": self._deliver,
            "settle": self._settle,
            "lose": self._lose,
            "cut": self._cut_off,
            "heal": self._heal,
            "copy": self._copy,
            "propose": self._propose,
            "sync": self._sync,
            "crash": self._crash,
            "restart": self._restart,
            "read": self._read,
            "transfer": self._transfer,
            "slow": self._slow,
            "quietly": self._quietly,
            "join": self._join,
            "change": self._change,
            "snapshot": self._snapshot,
            "caught-up": self._caught_up,
            "show": self._show,
            "members": self._show_members,
        }

    def _command(self, line: str) -> None:
        name, *arguments = line.split()
        self._commands()[name](*arguments)

    def _node(self, i: str | int) -> SimNode:
        node = self.nodes[int(i)]
        assert node is not None, f"member {i} is down"
        return node

    def _start(self, i: int, disk: Disk) -> SimNode:
        config = Config(i, self.members, **self.settings)  # type: ignore[arg-type]
        return SimNode(config, rng=random.Random(i), now_ns=self.now, disk=disk, sync_at_once=not self.slow)

    def _cluster(self, count: str, *settings: str) -> None:
        self.slow = "slow-disk" in settings
        self.settings = {key: int(value) for key, _, value in (item.partition("=") for item in settings) if value}
        self.members = tuple(range(int(count)))
        self.now, self.flight, self.tickets = 0, [], {}
        self.cut = set()
        self.used = dict.fromkeys(self.members, Configuration(self.members))
        self.disks = [Disk() for _ in self.members]
        self.nodes = [self._start(i, disk) for i, disk in enumerate(self.disks)]

    def _after(self, i: int) -> None:
        """The work of member i, as the trace tells it."""
        node = self._node(i)
        sent = node.work()
        for ready in node.readies:
            if ready.hard_state is not None:
                vote = "nobody" if ready.hard_state.vote is None else ready.hard_state.vote
                self.lines.append(f"  {i} term {ready.hard_state.term}, vote for {vote}")
            for op in ready.log_ops:
                self.lines.append(f"  {i} {done(op)}")
            if ready.configuration is not None and ready.configuration != self.used.get(i):
                self.used[i] = ready.configuration
                self.lines.append(f"  {i} uses members {listed(ready.configuration)}")
            if ready.forget_index:
                self.lines.append(f"  {i} forgets through {ready.forget_index}")
            for ticket, index in ready.reads:
                self.lines.append(f"  {i} read {self.tickets[ticket]} at {index}")
            for ticket in ready.reads_failed:
                self.lines.append(f"  {i} read {self.tickets[ticket]} failed")
        node.readies.clear()
        if node.applied:
            self.lines.append(f"  {i} applies {', '.join(f'{index}={valued(entry)}' for index, entry in node.applied)}")
            node.applied.clear()
        self._sent(sent)

    def _sent(self, sent: list[Message]) -> None:
        self.flight += sent
        self.lines += [f"  {shown(message)}" for message in sent]

    def _said(self, i: int, before: tuple[object, int]) -> None:
        raft = self._node(i).raft
        if (raft.role, raft.term) != before:
            self.lines.append(f"  {i} is {raft.role.value} in term {raft.term}")

    def _do(self, i: int, action: Callable[[SimNode], object]) -> None:
        node = self._node(i)
        before = (node.raft.role, node.raft.term)
        action(node)
        self._said(i, before)
        between = (node.raft.role, node.raft.term)
        self._after(i)
        self._said(i, between)

    def _tick(self, i: str, ms: str) -> None:
        self.now += int(ms) * MS
        self._do(int(i), lambda node: node.raft.tick(self.now))

    def _elect(self, i: str) -> None:
        lines, self.lines = self.lines, []
        self._tick(i, "200")
        self._settle()
        assert self._node(i).raft.role is Role.LEADER, self.lines
        self.lines = lines

    def _chosen(self, filters: tuple[str, ...]) -> list[Message]:
        wanted = dict(item.split("=") for item in filters)
        chosen = [
            message
            for message in self.flight
            if wanted.get("from", str(message.sender)) == str(message.sender)
            and wanted.get("to", str(message.target)) == str(message.target)
            and wanted.get("kind", type(message).__name__) == type(message).__name__
        ]
        return [chosen[int(wanted["nth"])]] if "nth" in wanted else chosen

    def _take(self, filters: tuple[str, ...]) -> list[Message]:
        chosen = self._chosen(filters)
        self.flight = [message for message in self.flight if not any(message is one for one in chosen)]
        return chosen

    def _deliver(self, *filters: str) -> None:
        for message in self._take(filters):
            if self.cut & {message.sender, message.target}:
                self.lines.append(f"lost {shown(message)}")
                continue
            self.lines.append(shown(message))
            if self.nodes[message.target] is None:
                self.lines.append(f"  {message.target} is down")
                continue
            self._do(message.target, lambda node, m=message: node.raft.step(over_the_wire(m), self.now))  # type: ignore[misc]

    def _settle(self) -> None:
        while self.flight:
            self._deliver()

    def _lose(self, *filters: str) -> None:
        self.lines += [f"lost {shown(message)}" for message in self._take(filters)]

    def _cut_off(self, i: str) -> None:
        self.cut.add(int(i))

    def _heal(self) -> None:
        self.cut.clear()

    def _copy(self, *filters: str) -> None:
        self.flight += [replace(message) for message in self._chosen(filters)]  # apart, so that each can be named

    def _propose(self, i: str, *values: str) -> None:
        try:
            self._do(int(i), lambda node: node.propose(values, self.now))
        except NotLeader as error:
            self.lines.append(str(error))

    def _sync(self, i: str, count: str = "") -> None:
        def sync(node: SimNode) -> None:
            self._sent(node.sync(int(count) if count else None))

        self._do(int(i), sync)

    def _crash(self, i: str) -> None:
        node = self._node(i)
        node.crash()
        self.nodes[int(i)] = None

    def _restart(self, i: str) -> None:
        self.nodes[int(i)] = self._start(int(i), self.disks[int(i)])
        self._show(i)

    def _read(self, i: str) -> None:
        def ask(node: SimNode) -> None:
            ticket = node.raft.read_index(self.now)
            self.tickets[ticket] = len(self.tickets) + 1

        try:
            self._do(int(i), ask)
        except NotLeader as error:
            self.lines.append(str(error))

    def _transfer(self, i: str, target: str) -> None:
        self._do(int(i), lambda node: node.raft.transfer(int(target), self.now))

    def _slow(self, i: str) -> None:
        self._node(i).sync_at_once = False

    def _quietly(self, *command: str) -> None:
        lines, self.lines = self.lines, []
        self._command(" ".join(command))
        self.lines = lines

    def _join(self) -> None:
        i = len(self.nodes)
        config = Config(i, self.members, joining=True, **self.settings)  # type: ignore[arg-type]
        self.disks.append(Disk())
        node = SimNode(config, rng=random.Random(i), now_ns=self.now, disk=self.disks[i], sync_at_once=not self.slow)
        self.nodes.append(node)

    def _change(self, i: str, what: str, *members: str) -> None:
        current = self._node(i).raft.configuration
        if what == "add":
            target = current.with_learner(int(members[0]))
        elif what == "promote":
            target = current.with_voter(int(members[0]), instead_of=int(members[2]) if members[1:] else None)
        elif what == "remove":
            target = current.without(int(members[0]))
        else:
            target = Configuration(tuple(map(int, members)))
        try:
            self._do(int(i), lambda node: node.raft.propose_configuration(target, self.now))
        except (NotLeader, ChangeRefused) as error:
            self.lines.append(str(error))

    def _snapshot(self, i: str) -> None:
        self._do(int(i), SimNode.take_snapshot)

    def _caught_up(self, i: str, member: str) -> None:
        self.lines.append("yes" if self._node(i).raft.caught_up(int(member)) else "no")

    def _show_members(self, *members: str) -> None:
        for i in members or tuple(str(i) for i, node in enumerate(self.nodes) if node is not None):
            raft = self._node(i).raft
            said = "removed" if raft.removed else "voter" if raft.is_voter else "no voter"
            state = "" if raft.configuration_committed else ", not committed"
            self.lines.append(f"{i} {said}: {listed(raft.configuration)} of {raft.configuration_index}{state}")

    def _show(self, *members: str) -> None:
        for i in members or tuple(map(str, range(len(self.nodes)))):
            if self.nodes[int(i)] is None:
                self.lines.append(f"{i} down")
                continue
            node = self._node(i)
            raft = node.raft
            entries = " ".join(
                f"{index}@{entry[0]}={valued(entry)}"
                for index, entry in enumerate(node.log.entries, node.log.first_index)
            )
            self.lines.append(
                f"{i} {raft.role.value} term={raft.term} vote={raft.vote} leader={raft.leader_id} "
                f"commit={raft.commit_index} applied={raft.applied_index} log=[{entries}]"
            )
