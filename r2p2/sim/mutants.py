"""Bugs put back into the core, one text replacement each: the simulator, or a scenario, has to notice.

A harness is trusted only as far as it kills these. ``r2p2 sim --mutant NAME`` runs seeds against one of them: a canary.

Left to others: the scenarios, and proof that each mutant is killed (tests/museum).
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from unittest import mock

from r2p2.sim import machine
from r2p2.sim import node as sim_node
from r2p2.sim.options import MS, Options


@dataclass(frozen=True)
class Mutant:
    """``old`` occurs exactly once in the core and becomes ``new``; ``row`` is what it is about.

    ``options`` instead of each seed's own; ``scenario``: what kills it instead of seeds, module:function; ``module``:
    whose text it is, where it is not the core's.
    """

    name: str
    row: str
    old: str
    new: str
    options: Options | None = None
    scenario: str = ""
    module: str = ""


# Leaders that come and go every few entries, and requests so rare that an old term's entry stays the last for a while.
_FIGURE_8 = Options(
    members_count=5,
    loss=0.3,
    straggler=0.3,
    straggler_max_ns=400 * MS,
    fault_mean_ns=20 * MS,
    pauses=False,
    clients_count=1,
    client_mean_ns=40 * MS,
    request_mean_ns=20 * MS,
    read_mean_ns=40 * MS,
    inflight_max=1,
    append_bytes_max=64,
    pre_vote=False,
    check_quorum=False,
)
# Nothing but changes of members, snapshots and crashes.
_CHANGES = Options(
    spares_count=2,
    loss=0.1,
    straggler=0.1,
    sync_max_ns=1 * MS,
    fault_mean_ns=40 * MS,
    change_mean_ns=10 * MS,
    snapshot_mean_ns=20 * MS,
    disk_losses=True,
    append_bytes_max=300,
)

# Members in memory that take the usual step outside the core, and leaders that come and go.
_STEADY = Options(
    steady=True,
    members_count=5,
    loss=0.2,
    straggler=0.2,
    fault_mean_ns=20 * MS,
    request_mean_ns=3 * MS,
    clients_count=2,
    pre_vote=False,
    check_quorum=False,
)

MUTANTS = [
    Mutant(
        "vote_not_persisted",
        "S1: a restarted member votes again in the same term",
        "HardState(self.term, self.vote) if",
        "HardState(self.term, None) if",
    ),
    Mutant(
        "term_not_persisted_with_a_vote_given",
        "S1: a vote in a term already known writes nothing",
        "                self.vote = message.sender\n                self._hard_changed = True\n",
        "                self.vote = message.sender\n",
        scenario="test_museum_safety:test_s01_a_vote_in_a_term_already_known_survives",
    ),
    Mutant(
        "old_term_committed_by_counting",
        "S2: figure 3.7",
        "if index > self.commit_index and index >= self._term_first_index:",
        "if index > self.commit_index:",
        options=_FIGURE_8,
    ),
    Mutant(
        "commit_beyond_the_match",
        "S3: a follower commits what its own log happens to hold",
        "self.commit_index = max(self.commit_index, min(message.commit, last))",
        "self.commit_index = max(self.commit_index, min(message.commit, self.last_index))",
    ),
    Mutant(
        "steady_behind_an_older_term",
        "S3: a follower takes the step that compares nothing, though its log ends in an older term",
        "            or self._runs.last_term != self.term\n",
        "",
        options=_STEADY,
    ),
    Mutant(
        "matching_append_truncates",
        "S4: a delayed short Append removes what came after it",
        "            if first > last:\n                return True\n",
        "            if first > last:\n"
        "                self._truncate(last + 1, now_ns) if last < self.last_index else None\n"
        "                return True\n",
    ),
    Mutant(
        "ack_beyond_the_append",
        "S5: the reply claims the whole local log",
        "self._answer_append(message, accepted=True, match=last)",
        "self._answer_append(message, accepted=True, match=self.last_index)",
        scenario="test_museum_safety:test_s05_the_answer_claims_what_the_append_proved",
    ),
    Mutant(
        "a_copy_of_the_first_append_after_compaction",
        "S6: what is behind the commit is compared though it is gone",
        "        first = max(message.prev_index, self.commit_index) + 1\n",
        "        first = message.prev_index + 1\n",
        scenario="test_museum_safety:test_s06_a_duplicate_first_append_after_compaction",
    ),
    Mutant(
        "match_falls",
        "S7: a reordered reply takes the match point back",
        "        if reached > peer.match_index:\n",
        "        if match:\n",
    ),
    Mutant(
        "votes_of_other_terms_count",
        "S8: a vote of an earlier term elects",
        '            self.ignored["old_term"] += 1\n            return False\n',
        '            self.ignored["old_term"] += 1\n            return message.KIND == 4\n',
        scenario="test_museum_safety:test_s08_votes_of_an_earlier_term_elect_nobody",
    ),
    Mutant(
        "pre_votes_count_as_votes",
        "S8: a late pre-vote makes a leader",
        "elif self.role is PRE_CANDIDATE and message.term == self.term + 1:",
        "elif self.role in (PRE_CANDIDATE, CANDIDATE) and message.term >= self.term:",
    ),
    Mutant(
        "a_vote_for_whoever_asks",
        "S8: two votes in one term",
        "and (self.vote == message.sender or (self.vote is None and self.leader_id is None))",
        "and self.role is FOLLOWER",
    ),
    Mutant(
        "vote_for_a_shorter_log",
        "leader completeness: the length of logs is not compared",
        "return message.last_index >= self.last_index",
        "return True",
    ),
    Mutant(
        "pre_vote_clears_the_vote",
        "a granted pre-vote forgets a vote already given",
        "        granted = message.term > self.term and is_current\n",
        "        granted = message.term > self.term and is_current\n        self.vote = None\n",
    ),
    Mutant(
        "nothing_is_withheld",
        "promises leave before they are durable",
        "            self._unpersisted.append(Unpersisted(number, self.last_index, vote_term, withheld))\n",
        "            self._unpersisted.append(Unpersisted(number, self.last_index, vote_term, []))\n"
        "            messages.extend(withheld)\n",
    ),
    Mutant(
        "leader_counts_unwritten_entries",
        "the leader's own match point is not what its disk holds",
        "            self._me.match_index = self._durable_index\n            self._advance_commit()\n",
        "            self._me.match_index = self.last_index\n            self._advance_commit()\n",
    ),
    Mutant(
        "aba_of_truncated_writes",
        "S16: the completion of a write whose entries were truncated since",
        "            waiting.last_index = min(waiting.last_index, self.last_index)\n",
        "            pass\n",
        scenario="test_museum_safety:test_s16_the_write_of_a_truncated_entry_proves_nothing",
    ),
    Mutant(
        "what_stands_in_the_place_of_a_durable_entry_counts",
        "S16: the entry that was on the disk is truncated, the one in its place is not there yet",
        "        self._durable_index = min(self._durable_index, self.last_index)\n        for waiting",
        "        for waiting",
        scenario="test_museum_safety:test_s16_an_entry_in_the_place_of_a_durable_one_is_not_durable",
    ),
    Mutant(
        "bytes_in_flight_are_not_given_back",
        "S17: the window shrinks to one message at a time",
        "                peer.inflight_bytes -= inflight.popleft()[1]\n",
        "                inflight.popleft()\n",
        scenario="test_museum_safety:test_s17_the_window_is_full_only_while_it_is",
    ),
    Mutant(
        "applied_reported_before_durable",
        "others forget what a crash can still take from the leader",
        "me.applied_index = min(self.applied_index, self._durable_index)",
        "me.applied_index = self.applied_index",
    ),
    Mutant(
        "global_commit_of_a_majority",
        "the prefix goes while somebody still needs it",
        "        if index > self.global_commit:\n            self.global_commit = index",
        "        index = reached_by_majority([voter.applied_index for voter in self._voters])\n"
        "        if index > self.global_commit:\n            self.global_commit = index",
    ),
    Mutant(
        "a_read_confirmed_by_old_answers",
        "S12: an answer to a round that began before the read",
        "self._reads.waiting.append(Read(self._round + 1, index,",
        "self._reads.waiting.append(Read(self._round, index,",
        scenario="test_museum_safety:test_s12_an_old_answer_confirms_no_later_read",
    ),
    Mutant(
        "the_round_of_an_older_term_is_echoed",
        "S12: rounds begin anew in each term, and the answer is of the new one",
        "hint=self.last_index, round_=NO_ROUND",
        "hint=self.last_index",
        scenario="test_museum_safety:test_s12_an_answer_to_an_older_term_confirms_no_round",
    ),
    Mutant(
        "tickets_start_over_after_a_restart",
        "the answer to a read before the restart confirms one after it; seen here first",
        "self.last_ticket = int(chance * (1 << 52)) << 10",
        "self.last_ticket = 0",
        options=Options(fault_mean_ns=60 * MS, straggler=0.3, straggler_max_ns=400 * MS, read_mean_ns=1 * MS),
    ),
    Mutant(
        "a_read_without_confirmation",
        "S10: a deposed leader answers from its own commit index",
        "self._reads.confirmed(round_)",
        "self._reads.confirmed(1 << 63)",
        scenario="test_museum_safety:test_s10_a_deposed_leader_answers_no_read",
    ),
    Mutant(
        "a_read_before_the_no_op",
        "S11: a fresh leader does not know what is committed",
        "index = max(self.commit_index, self._term_first_index)",
        "index = self.commit_index",
    ),
    Mutant(
        "match_survives_a_new_term",
        "L10: what a member had when we led before",
        "        self.match_index = 0\n        self.applied_index = 0\n        self.acked_round = 0\n"
        "        self.heard_ns = now_ns\n",
        "        self.applied_index = 0\n        self.acked_round = 0\n        self.heard_ns = now_ns\n",
        scenario="test_museum_liveness:test_l10_a_leader_that_comes_back_trusts_nothing_it_knew",
    ),
    Mutant(
        "no_pre_vote",
        "L1: a member that was cut off comes back with a higher term",
        "if not self._config.pre_vote:",
        "if True:",
        scenario="test_museum_liveness:test_l01_an_isolated_member_comes_back_without_an_election",
    ),
    Mutant(
        "pre_votes_while_a_leader_lives",
        "L1: a member that only the leader does not reach goes from term to term",
        "        if message.term > self.term and self._leader_alive(now_ns):\n",
        "        if False:\n",
        scenario="test_museum_liveness:test_l01_a_member_that_only_the_leader_does_not_reach_asks_in_vain",
    ),
    Mutant(
        "no_check_quorum",
        "L3: a leader that is not answered leads on",
        "if self._config.check_quorum and not self._hears_majority(now_ns):",
        "if False:",
        scenario="test_museum_liveness:test_l03_a_leader_that_hears_nobody_steps_down",
    ),
    Mutant(
        "a_lost_tail_stays_lost",
        "L7: silence is never noticed",
        "if peer.inflight and peer.progress_ns <= silent_ns:",
        "if False:",
    ),
    Mutant(
        "no_answer_to_an_older_term",
        "L4: a member ahead of its leader is stuck for ever",
        "self._answer_append(\n                message, accepted=False, match=message.prev_index, "
        "hint=self.last_index, round_=NO_ROUND\n            )",
        "pass",
        options=Options(pre_vote=False, crashes=False, fault_mean_ns=150 * MS),
    ),
    Mutant(
        "a_refused_pre_vote_tells_no_term",
        "L4: a candidate whose term is too low to be heard stays there",
        "        if not message.granted:\n            self._newer_or_same(message, now_ns)\n",
        "        if not message.granted:\n            pass\n",
        scenario="test_museum_liveness:test_l04_a_higher_term_with_an_older_log_does_not_keep_the_rest_from_electing",
    ),
    Mutant(
        "a_refused_append_is_no_sign_of_life",
        "L5: a follower that does not match its leader yet starts an election",
        "        self._election_deadline_ns = self.deadline_ns = now_ns + self._election_timeout_ns\n"
        "\n"
        "        prev = message.prev_index\n",
        "        if message.prev_index <= self.last_index:\n"
        "            self._election_deadline_ns = self.deadline_ns = now_ns + self._election_timeout_ns\n"
        "\n"
        "        prev = message.prev_index\n",
        scenario="test_museum_liveness:test_l05_a_follower_that_only_refuses_starts_no_election",
    ),
    Mutant(
        "no_heartbeats_while_appends_are_in_flight",
        "L5: a follower that is slow to answer hears nothing",
        "            known = peer.match_index if peer.state == REPLICATE else peer.next_index - 1\n"
        "            prev = max(known, self.first_index - 1)\n"
        "            shared = self._send_append(peer, prev, prev, shared)\n            if peer.state == SNAPSHOT:\n",
        "            if peer.inflight:\n                continue\n"
        "            known = peer.match_index if peer.state == REPLICATE else peer.next_index - 1\n"
        "            prev = max(known, self.first_index - 1)\n"
        "            shared = self._send_append(peer, prev, prev, shared)\n            if peer.state == SNAPSHOT:\n",
        scenario="test_museum_liveness:test_l05_heartbeats_are_sent_while_appends_are_in_flight",
    ),
    Mutant(
        "a_lost_timeout_now_is_not_said_again",
        "L6: one lost datagram ends a transfer",
        "        self._transfer_urged = False\n        if self.transfer_target is not None and now",
        "        if self.transfer_target is not None and now",
        scenario="test_museum_liveness:test_l06_a_lost_timeout_now_is_said_again",
    ),
    Mutant(
        "a_transfer_never_ends",
        "L6: its target is dead",
        "if self.transfer_target is not None and now_ns >= self._transfer_deadline_ns:",
        "if False:",
        scenario="test_museum_liveness:test_l06_a_transfer_to_the_dead_is_given_up",
    ),
    Mutant(
        "equal_election_timeouts",
        "L9: votes are split again and again",
        "int(self._rng.random() * span_ns)",
        "span_ns // 2",
        scenario="test_museum_liveness:test_l09_split_votes_end",
    ),
    Mutant(
        "a_no_op_is_missing",
        "L: a leader of an idle term never commits what it inherited",
        "        self._log_ops.append(AppendNoop(first, self.term))\n        self.last_index = first\n"
        "        self._runs.extend(first, self.term)\n",
        "",
        scenario="test_museum_liveness:test_an_idle_term_commits_what_it_inherited",
    ),
    Mutant(
        "withheld_messages_in_a_shared_list",
        "an answer leaves with an earlier write, seen here first",
        "self._log_ops, self._out, self._after = [], [], []",
        "self._log_ops, self._out, self._after = [], [], self._after if not withheld else []",
        scenario="test_museum_safety:test_an_answer_waits_for_its_own_write",
    ),
    Mutant(
        "a_change_before_the_no_op",
        "S9: a new leader changes members before it knows what an older one began",
        "if self.commit_index < self._term_first_index:",
        "if False:",
        options=_CHANGES,
    ),
    Mutant(
        "two_changes_at_once",
        "S9: a change while another is not committed",
        "if current.joint or not self.configuration_committed:",
        "if current.joint:",
        options=_CHANGES,
    ),
    Mutant(
        "new_voters_commit_alone",
        "S9: a joint configuration is counted by its new half",
        "index = min(index, reached_by_majority([voter.match_index for voter in self._outgoing]))",
        "pass",
        options=_CHANGES,
    ),
    Mutant(
        "new_voters_elect_alone",
        "S9: a joint configuration's old half is not asked for votes",
        "not configuration.outgoing or has_majority(configuration.outgoing, self._votes)",
        "True",
        options=_CHANGES,
    ),
    Mutant(
        "learners_count",
        "S9: a learner makes a majority",
        "self._voters = self._progress_of(current.voters)",
        "self._voters = self._progress_of(current.members)",
        options=_CHANGES,
    ),
    Mutant(
        "a_truncated_change_stays_in_force",
        "S9: the entry is gone, its members go on counting",
        "if self._history.truncate(from_index):",
        "if False:",
        scenario="test_membership:test_a_configuration_that_is_truncated_is_taken_back",
    ),
    Mutant(
        "a_removed_member_behind_the_log",
        "a leader reads entries that it has let go, for a member that is on its way out; seen here first",
        "if self.role is LEADER and (through_index > self.global_commit or self._departing):",
        "if self.role is LEADER and through_index > self.global_commit:",
        scenario="test_museum_members:test_a_removed_member_far_behind_does_not_end_the_leader",
    ),
    Mutant(
        "a_snapshot_older_than_the_commit",
        "S14: it takes the state machine back",
        "if index <= self.commit_index:  # all of it is in the log or applied",
        "if index < 0:",
        options=_CHANGES,
    ),
    Mutant(
        "a_snapshot_completed_with_another",
        "S14: chunks of two snapshots in one",
        "        if incoming is None or (index, message.total_bytes) != (incoming.index, incoming.total_bytes):\n",
        "        if incoming is None:\n",
        scenario="test_museum_members:test_s14_pieces_of_two_snapshots_make_none",
    ),
    Mutant(
        "a_snapshot_completed_by_another_leader",
        "S14: what came in one term is gone on with in the next",
        "            self._abandon_snapshot()\n            self.term = term\n",
        "            self.term = term\n",
        scenario="test_museum_members:test_s14_pieces_of_two_leaders_make_none",
    ),
    Mutant(
        "half_a_snapshot_stays",
        "S14: Appends have overtaken it, and its rest will not come; seen here",
        "            if self._incoming is not None and self._incoming.index <= self.commit_index:\n"
        "                self._abandon_snapshot()\n",
        "",
        scenario="test_snapshot_races:test_a_half_snapshot_goes_when_its_own_leaders_appends_overtake_it",
    ),
    Mutant(
        "a_newer_snapshot_while_one_is_on_its_way",
        "S14: the member it is being sent to has caught up meanwhile; seen here first",
        "                    peer.behind_log = False\n                    peer.probe(",
        "                    (lambda *_, **__: None)(",
        scenario="test_museum_members:test_s14_a_newer_snapshot_while_one_is_on_its_way",
    ),
    Mutant(
        "a_snapshot_acknowledged_before_it_is_durable",
        "S14: a crash takes back what the leader counts",
        "        self._after.append(\n            InstallSnapshotReply(",
        "        self._out.append(\n            InstallSnapshotReply(",
        options=_CHANGES,
    ),
    Mutant(
        "a_write_that_a_snapshot_overtook_counts",
        "S14: a tail that the snapshot has taken the place of is written meanwhile",
        "            waiting.last_index = min(waiting.last_index, before)\n",
        "            pass\n",
        scenario="test_museum_members:test_s14_an_earlier_write_that_a_snapshot_overtakes_proves_nothing",
    ),
    Mutant(
        "the_snapshot_of_a_logs_last_configuration",
        "S14: it carries members that are not committed at its index",
        "self._history.at(index))",
        "self._history.current)",
        scenario="test_museum_members:test_s14_a_snapshot_carries_the_members_of_its_index",
    ),
    Mutant(
        "a_retry_is_executed_again",
        "S15: the session forgets what it answered",
        "kept = session.replies.get(request.sequence)",
        "kept = None",
        module="r2p2.sim.machine",
    ),
    Mutant(
        "a_late_duplicate_is_executed",
        "S15: a retry that arrives after its client had its answer",
        "if request.sequence < session.oldest:",
        "if False:",
        module="r2p2.sim.machine",
    ),
    Mutant(
        "an_evicted_session_begins_anew",
        "S15: a retry after its session was evicted",
        "            return Reply(EXPIRED, 0, 0)\n",
        "            session = Session()\n",
        module="r2p2.sim.machine",
    ),
    Mutant(
        "sessions_are_not_in_the_snapshot",
        "S15: a member restored from a snapshot has forgotten who asked what",
        "machine.registers = dict(registers)\n        for number, oldest, replies in sessions:",
        "machine.registers = dict(registers)\n        for number, oldest, replies in sessions[:0]:",
        module="r2p2.sim.machine",
    ),
]


# The state machine and what it is made of, each after those it imports.
MODULES = (
    "progress",
    "reads",
    "state",
    "members",
    "elections",
    "following",
    "receiving",
    "reading",
    "sending",
    "leading",
    "steady",
    "core",
)


@contextmanager
def applied(mutant: Mutant) -> Generator[None, None, None]:
    """The simulator runs a copy of the core, or of the one module, with the replacement inside."""
    if mutant.module:
        with _patched_machine(mutant):
            yield
        return
    sources = {name: _source(f"raft.{name}") for name in MODULES}
    places = [name for name, source in sources.items() for _ in range(source.count(mutant.old))]
    if len(places) != 1:
        raise AssertionError(f"{mutant.name}: its text occurs {len(places)} times; update the mutant")
    sources[places[0]] = sources[places[0]].replace(mutant.old, mutant.new)
    copies: dict[str, ModuleType] = {}
    with mock.patch.dict(sys.modules):
        for name, source in sources.items():
            text = re.sub(
                rf"^from raft\.({'|'.join(MODULES)}) import", r"from raft_mutant_\1 import", source, flags=re.M
            )
            copy = copies[name] = ModuleType(f"raft_mutant_{name}")
            sys.modules[copy.__name__] = copy
            exec(compile(text, f"{copy.__name__}.py", "exec"), copy.__dict__)
        with mock.patch.object(sim_node, "Raft", copies["core"].Raft):
            yield


@contextmanager
def _patched_machine(mutant: Mutant) -> Generator[None, None, None]:
    source = _source(mutant.module)
    if source.count(mutant.old) != 1:
        raise AssertionError(f"{mutant.name}: its text occurs {source.count(mutant.old)} times; update the mutant")
    copy = ModuleType("machine_mutant")
    exec(compile(source.replace(mutant.old, mutant.new), "machine_mutant.py", "exec"), copy.__dict__)
    with (
        mock.patch.object(machine.Machine, "apply", copy.Machine.apply),
        mock.patch.object(machine.Machine, "of", copy.Machine.of),
    ):
        yield


def _source(module: str) -> str:
    return inspect.getsource(importlib.import_module(module))
