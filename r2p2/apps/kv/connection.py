"""Commands without keys: PING and ECHO."""

from __future__ import annotations

from r2p2.apps.kv.registry import command
from r2p2.apps.kv.resp import PONG, bulk
from r2p2.apps.kv.store import Store


@command("PING", 1, 2)
def ping(store: Store, words: list[bytes]) -> bytes:
    """PING [text]."""
    return bulk(words[1]) if len(words) == 2 else PONG


@command("ECHO", 2, 2)
def echo(store: Store, words: list[bytes]) -> bytes:
    """ECHO text."""
    return bulk(words[1])
