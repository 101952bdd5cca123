"""A redis-server's dump is of the moment of the call and is made while the server goes on; what goes wrong is told."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import islice

import pytest

from r2p2.apps.redis.dump import info_of
from r2p2.apps.redis.link import Link, RedisFailed
from r2p2.apps.redis.machine import RedisServer
from tests.apps.test_redis_app import run

pytestmark = pytest.mark.needs("redis")

KEYS = 200
SLOW_US = 2500  # a key, for the child that makes the dump: 0.5 s


@pytest.fixture
def app() -> Iterator[RedisServer]:
    """200 keys, of which the child that makes a dump writes 400 a second."""
    with closing(RedisServer()) as app:
        run(app, *(f"SET key{i} value{i}" for i in range(KEYS)), "SADD set a b c", "SET brief 1 EX 100")
        link_of(app).one("CONFIG", "SET", "rdb-key-save-delay", SLOW_US)
        yield app


def link_of(app: RedisServer) -> Link:
    return app._server.link


def is_saving(app: RedisServer) -> bool:
    return info_of(link_of(app), "persistence")["rdb_bgsave_in_progress"] == "1"


def child_of(app: RedisServer) -> int:
    """The process that makes the dump."""
    with open(f"/proc/{app.pid}/task/{app.pid}/children") as children:
        return int(children.read().split()[0])


def test_a_snapshot_is_of_its_moment_whatever_is_applied_while_it_is_made(app: RedisServer) -> None:
    digest = app.state_digest()
    pieces = app.snapshot()
    assert is_saving(app), "the call does not wait for it"
    taken: list[bytes] = []
    for _ in range(10):
        run(app, "INCR counter", "DEL key7", "SADD set d")
        taken += islice(pieces, 5)
    assert is_saving(app) and not any(taken), "and yet the server answers"
    taken += pieces
    assert run(app, "GET key7") == [None]
    with closing(RedisServer()) as other:
        other.restore(b"".join(taken))
        assert other.state_digest() == digest != app.state_digest()
        assert run(other, "GET counter", "GET key7", "SCARD set") == [None, b"value7", 3]
    assert not app._server.dump_path.exists(), "nothing is left lying about"


def test_pieces_may_be_asked_for_while_a_batch_is_with_another_thread(app: RedisServer) -> None:
    """As with an apply thread: the two never use one connection."""
    digest, pieces, replies = app.state_digest(), app.snapshot(), []
    is_over = threading.Event()

    def apply() -> None:
        while not is_over.is_set():
            replies.append(run(app, *["INCR counter"] * 20)[-1])

    thread = threading.Thread(target=apply)
    thread.start()
    try:
        data = b"".join(pieces)
    finally:
        is_over.set()
        thread.join()
    assert replies == [20 * (i + 1) for i in range(len(replies))]
    with closing(RedisServer()) as other:
        other.restore(data)
        assert other.state_digest() == digest


def test_a_child_that_is_killed_ends_the_member_with_a_reason(app: RedisServer) -> None:
    pieces = app.snapshot()
    next(pieces)
    os.kill(child_of(app), signal.SIGKILL)
    with pytest.raises(RedisFailed, match="child has made no dump"):
        list(pieces)


def test_a_server_that_makes_one_already_is_waited_for(app: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    given_up = app.snapshot()
    next(given_up)
    run(app, "SET late 1")
    digest = app.state_digest()
    data = b"".join(app.snapshot())
    assert "this member waits for one" in caplog.text
    with closing(RedisServer()) as other:
        other.restore(data)
        assert other.state_digest() == digest


def test_a_restore_while_one_is_made_ends_that(app: RedisServer) -> None:
    with closing(RedisServer()) as other:
        run(other, "SET of other")
        digest, data = other.state_digest(), b"".join(other.snapshot())
    pieces = app.snapshot()
    next(pieces)
    app.restore(data)
    assert app.state_digest() == digest
    pieces.close()
    time.sleep(KEYS * SLOW_US / 1e6 + 0.2)  # by then the child would have written its dump
    assert not app._server.dump_path.exists()
    assert app.state_digest() == digest
    link_of(app).one("CONFIG", "SET", "rdb-key-save-delay", 0)
    again = b"".join(app.snapshot())
    run(app, "FLUSHALL")
    app.restore(again)
    assert app.state_digest() == digest


def test_a_dump_that_cannot_be_read_is_told(app: RedisServer) -> None:
    link_of(app).one("CONFIG", "SET", "rdb-key-save-delay", 0)
    path = app._server.dump_path
    app._server.dump_path = path.with_name("elsewhere.rdb")
    with pytest.raises(RedisFailed, match=r"elsewhere\.rdb cannot be read"):
        list(app.snapshot())
