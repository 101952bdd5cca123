"""``r2p2 call``: sends one request and prints the reply."""

from __future__ import annotations

import argparse
import json
import os
import sys

from r2p2.address import parse_address
from r2p2.arguments import positive_seconds
from r2p2.client import FIXED_ROUTE, LB_ROUTE, REPLICATED, REPLICATED_READ, BlockingClient
from r2p2.errors import CallError, UserError
from r2p2.node import STATUS_REQUEST

NAME = "call"
HELP = "send one request over UDP and print the reply"
EPILOG = """exit codes: 0 with an answer, 1 without one.

examples:
  r2p2 call 127.0.0.1:8000 hello
  r2p2 call 127.0.0.1:8001 --policy replicated --resp SET name R2P2
  r2p2 call 127.0.0.1:8001 --status"""

POLICIES = {"lb": LB_ROUTE, "fixed": FIXED_ROUTE, "replicated": REPLICATED, "read": REPLICATED_READ}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument("server", metavar="IP:PORT", help="where the server listens")
    parser.add_argument("payload", nargs="?", help="the request as text; - reads it from standard input as bytes")
    parser.add_argument("--policy", choices=POLICIES, default="fixed", help="who answers")
    parser.add_argument(
        "--resp",
        nargs="+",
        metavar="WORD",
        default=None,
        help="instead of a payload: a RESP command, as in --resp SET k v",
    )
    parser.add_argument("--status", action="store_true", help="instead of a payload: ask the node for its status")
    parser.add_argument("--timeout", type=float, default=1.0, metavar="SECONDS", help="how long to wait for the answer")


def request_of(args: argparse.Namespace) -> bytes:
    """The request the arguments describe.

    Raises:
        UserError: none, or more than one.
    """
    if sum((args.payload is not None, args.resp is not None, args.status)) != 1:
        raise UserError("name exactly one request", "Give PAYLOAD, or --resp WORD ..., or --status.")
    if args.status:
        return STATUS_REQUEST
    if args.resp is not None:
        from r2p2.apps.kv import encode_command

        return encode_command(*map(os.fsencode, args.resp))
    if args.payload == "-":
        return sys.stdin.buffer.read()
    return os.fsencode(args.payload)  # bytes that are no text come as they were given


def run(args: argparse.Namespace) -> int:
    """Prints the reply's bytes and a line end; 1 and a message when there was none."""
    request = request_of(args)
    positive_seconds("--timeout", args.timeout)
    if not parse_address(args.server)[1]:
        raise UserError(f"{args.server}: nobody listens at port 0", "Write IP:PORT, as in 127.0.0.1:8000.")
    with BlockingClient() as client:
        try:
            reply = client.call(args.server, request, policy=POLICIES[args.policy], timeout_s=args.timeout)
        except CallError as error:
            raise UserError(str(error)) from error
    if args.status:
        try:
            print(json.dumps(json.loads(reply), indent=2))
        except ValueError as error:
            said = f"{args.server} has no status: it answers {reply[:80]!r}"
            raise UserError(said, "Ask a server of this project.") from error
        return 0
    sys.stdout.flush()
    sys.stdout.buffer.write(reply if reply.endswith(b"\n") else reply + b"\n")
    return 0
