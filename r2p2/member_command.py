"""``r2p2 member``: who is in a cluster, and changes of it while it runs.

The change itself is the leader's work (:mod:`r2p2.node.membership`); this file finds the leader, repeats the request
until it is answered, which is harmless, and prints what became of it. docs/membership.md.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from r2p2.address import format_address, parse_address
from r2p2.arguments import in_range, positive_seconds
from r2p2.client import FIXED_ROUTE, BlockingClient
from r2p2.columns import aligned
from r2p2.errors import CallError, UserError
from r2p2.node.own_requests import MEMBER_REQUEST
from raft.configuration import SLOT_MAX

NAME = "member"
HELP = "list, add, remove or replace members of a running cluster, or hand its leadership over"
EPILOG = """exit codes: 0 when the change is committed, 1 with the reason when it was refused or took too long.
A command may be repeated without harm.

example: a fourth member, on its machine and from anywhere
  r2p2 serve --app kv --bind 10.0.0.4:8000 --node-id 3 --join 10.0.0.1:8000
  r2p2 member add 3 10.0.0.4:8000 --cluster 10.0.0.1:8000"""

ACTIONS: Final = ("list", "add", "remove", "replace", "transfer")
# One attempt: an answer may take as long as a new member needs to catch up, so the same request is simply sent again.
ATTEMPT_SECONDS: Final = 1.0
PAUSE_SECONDS: Final = 0.05

Call = Callable[[str, bytes, float], bytes]
"""(server, request, seconds) -> reply; raises CallError."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument("action", choices=ACTIONS, help="what to do")
    parser.add_argument("slot", type=int, nargs="?", help="the member's slot; all but list need it")
    parser.add_argument(
        "address", nargs="?", metavar="IP:PORT", help="add, replace: where `r2p2 serve --join` runs for the new member"
    )
    parser.add_argument(
        "--cluster", required=True, metavar="IP:PORT,...", help="some of the members; the leader is found from there"
    )
    parser.add_argument("--timeout", type=float, default=30.0, metavar="SECONDS", help="how long to try")
    parser.add_argument("--json", action="store_true", help="print the answer as it came")


def request_of(args: argparse.Namespace) -> dict[str, Any]:
    """The request the arguments describe.

    Raises:
        UserError: one is missing, one too many, or none that can be.
    """
    action = args.action
    if action == "list":
        if args.slot is not None:
            raise UserError("list takes no slot")
        return {"op": "list"}
    if args.slot is None:
        raise UserError(f"{action} of which slot?", f"r2p2 member {action} SLOT ...")
    in_range("slot", args.slot, 0, SLOT_MAX)
    if action not in ("add", "replace"):
        if args.address is not None:
            raise UserError(f"{action} takes no address")
        return {"op": action, "slot": args.slot}
    if args.address is None:
        raise UserError(
            f"{action} needs the address of the new member", f"r2p2 member {action} {args.slot} IP:PORT --cluster ..."
        )
    return {"op": action, "slot": args.slot, "address": format_address(parse_address(args.address))}


def ask(
    call: Call,
    servers: Sequence[str],
    request: dict[str, Any],
    seconds: float,
    *,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """The answer to ``request``: of any member for a list, of the leader for the rest.

    Raises:
        UserError: refused, with the leader's reason; no answer within ``seconds``; or one that no member gives.
    """
    end = now() + seconds
    payload = MEMBER_REQUEST + json.dumps(request).encode()
    known, turn, target, last = list(servers), 0, servers[0], "nobody answered"
    leaders: list[str] = []  # as they were named, the latest first: one of them knows what a change waits for
    while (left := end - now()) > 0:
        try:
            reply = call(target, payload, min(ATTEMPT_SECONDS, left))
            if (answer := _decode(reply)) is None:
                raise UserError(
                    f"{target} is not a member of a cluster: asked who is in it, it answers {reply[:80]!r}",
                    "Name members in --cluster.",
                )
        except CallError as error:
            answer = {"ok": False, "error": "no_answer", "text": str(error)}
        if answer.get("ok"):
            return answer
        last = f"{target}: {answer.get('text', answer)}"
        error_name, leader = answer.get("error"), answer.get("leader")
        if error_name in ("refused", "bad_request", "timeout"):
            raise UserError(str(answer.get("text")))
        if leader is not None and leader != target:
            target = str(leader)
            leaders.insert(0, target)
            continue
        if error_name != "busy":
            turn += 1
            target = known[turn % len(known)]
        sleep(PAUSE_SECONDS)
    if request["op"] == "list":
        raise UserError(f"no list in {seconds:g} s; {last}", "Name members that run in --cluster.")
    raise UserError(
        f"not done in {seconds:g} s; {_waiting(call, [*leaders, target, *known]) or last}",
        "It may still be done: ask with `r2p2 member list`, or repeat the command, which is harmless.",
    )


def _decode(reply: bytes) -> dict[str, Any] | None:
    """A member's answer; None: another kind of server has answered."""
    try:
        answer = json.loads(reply)
    except (ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) and "ok" in answer else None


def _waiting(call: Call, servers: Sequence[str]) -> str:
    """What the leader, most likely the first of ``servers``, says it waits for; empty when none says so."""
    for server in dict.fromkeys(servers):
        try:
            answer = _decode(call(server, MEMBER_REQUEST + b'{"op": "list"}', ATTEMPT_SECONDS))
        except CallError:
            continue
        notes = [str(item["note"]) for item in (answer or {}).get("waiting", []) if item.get("note")]
        if notes:
            return "; ".join(notes)
    return ""


def table(answer: dict[str, Any]) -> str:
    """The configuration of an answer as lines."""
    rows = [("slot", "address", "incarnation", "is", "silent")]
    for member in answer["members"]:
        kinds = [kind for kind in ("leader", "voter", "outgoing", "learner") if member[kind]]
        silent = f"{member['silent_ms']:g} ms" if "silent_ms" in member else ""
        rows.append((str(member["slot"]), member["address"], member["incarnation"], ", ".join(kinds), silent))
    lines = aligned(rows)
    state = "committed" if answer["committed"] else "not committed yet"
    lines.append(f"configuration {answer['configuration_index']}, {state}")
    lines += [f"asks to be let in: slot {c['slot']} at {c['address']}" for c in answer["knocking"]]
    lines += [f"waiting: {o['op']} {o['slot']}" + (o["note"] and f": {o['note']}") for o in answer["waiting"]]
    return "\n".join(lines)


def run(args: argparse.Namespace) -> int:
    """Asks and prints; 1 and the reason when it was refused."""
    request = request_of(args)
    servers = [format_address(parse_address(text)) for text in args.cluster.split(",")]
    positive_seconds("--timeout", args.timeout)
    with BlockingClient() as client:

        def call(server: str, payload: bytes, seconds: float) -> bytes:
            return client.call(server, payload, policy=FIXED_ROUTE, timeout_s=seconds, retry_s=0.2)

        answer = ask(call, servers, request, args.timeout)
    if args.json:
        print(json.dumps(answer, indent=2))
        return 0
    if "text" in answer:
        print(answer["text"])
    print(table(answer))
    return 0
