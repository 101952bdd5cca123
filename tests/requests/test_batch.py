"""A batch on its way through a handler: cut up, answered, laid out. The models are slices, calls and join."""

from __future__ import annotations

import gc
import sys
import weakref
from array import array
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2p2.requests import DROP, LATER, Replies, Requests, laid_out
from r2p2.requests._batch import Cut, call_each, pack

batches = st.lists(st.binary(max_size=40), max_size=20)


def no_settling(handler: Callable[..., Any], request: bytes, returned: object, error: Exception | None) -> bytes:
    raise AssertionError((handler, request, returned, error))


# ---- cutting ----


@given(batches)
def test_a_slab_is_cut_into_what_it_was_made_of(payloads: list[bytes]) -> None:
    requests = Requests.of(payloads)
    assert list(requests) == payloads
    assert [requests[i] for i in range(len(requests))] == payloads
    assert list(zip(requests, requests, strict=True)) == list(zip(payloads, payloads, strict=True))  # two at once


def test_what_is_left_is_told_to_who_makes_room() -> None:
    cut = Cut(b"abc", array("I", [1, 2]))
    assert cut.__length_hint__() == 2
    assert next(cut) == b"a"
    assert cut.__length_hint__() == 1
    assert list(cut) == [b"bc"]
    assert list(cut) == []


@pytest.mark.parametrize("lengths", [[4], [1, 3], [0, 0xFFFFFFFF], [1, 1, 0xFFFFFFFE]])
def test_lengths_beyond_the_slab_are_refused(lengths: list[int]) -> None:
    with pytest.raises(ValueError, match="beyond the slab"):
        list(Cut(b"abc", array("I", lengths)))
    with pytest.raises(ValueError, match="beyond the slab"):
        call_each(bytes, b"abc", array("I", lengths), 10, no_settling)


def test_what_cannot_be_lengths_is_refused() -> None:
    for lengths in (b"123", b"12345"):
        with pytest.raises(ValueError, match="32-bit"):
            Cut(b"abc", lengths)
    for wrong in ((), (b"abc",), (b"abc", [1]), ("abc", b"")):
        with pytest.raises(TypeError):
            Cut(*wrong)
    with pytest.raises(TypeError):
        Cut(b"", lengths=b"")  # type: ignore[call-arg]


def test_a_cut_keeps_its_buffers_and_lets_them_go() -> None:
    class Slab(bytearray):
        """What a weak reference can be had of."""

    slab = Slab(b"abcd")
    gone = weakref.ref(slab)
    cut = Cut(slab, array("I", [2, 2]))
    with pytest.raises(BufferError):
        slab.extend(b"more")
    del slab
    assert list(cut) == [b"ab", b"cd"]
    assert gone() is not None
    del cut
    assert gone() is None


# ---- answering ----


@given(batches, st.integers(0, 2))
def test_each_request_is_answered_in_order(payloads: list[bytes], more: int) -> None:
    further = (7, "text")[:more]

    def handler(request: bytes, *rest: object) -> bytes:
        return request + repr(rest).encode()

    requests = Requests.of(payloads)
    expected = [handler(payload, *further) for payload in payloads]
    assert requests.answer_each(handler, *further, bytes_max=100, settle=no_settling) == expected


def test_what_is_no_reply_is_settled() -> None:
    class Text(bytes):
        """Bytes, and yet not only that."""

    wrong = ValueError("three")
    what: dict[bytes, object] = {b"0": None, b"1": "text", b"2": b"x" * 11, b"3": wrong, b"4": DROP, b"5": Text(b"5")}

    def handler(request: bytes) -> Any:
        found = what.get(request, request)
        if isinstance(found, Exception):
            raise found
        return found

    asked = []

    def settle(by: Callable[..., Any], request: bytes, returned: object, error: Exception | None) -> bytes:
        assert by is handler
        asked.append((request, returned, error))
        return b"settled " + request

    requests = Requests.of([b"a", b"0", b"1", b"2", b"3", b"b", b"4", b"5", b"x" * 10])
    replies = requests.answer_each(handler, bytes_max=10, settle=settle)
    assert replies == [b"a", *(b"settled %d" % i for i in range(4)), b"b", b"settled 4", b"settled 5", b"x" * 10]
    assert [entry[0] for entry in asked] == [b"0", b"1", b"2", b"3", b"4", b"5"]
    assert [entry[1] for entry in asked] == [None, "text", b"x" * 11, None, DROP, b"5"]
    assert [entry[2] for entry in asked] == [None, None, None, wrong, None, None]
    assert wrong.__traceback__ is not None
    assert wrong.__traceback__.tb_frame.f_code is handler.__code__


def test_an_iterator_that_ends_in_a_handler_ends_no_batch() -> None:
    def handler(request: bytes) -> bytes:
        return next(iter(())) if request == b"1" else request

    def settle(_by: object, _request: bytes, _returned: object, error: Exception | None) -> bytes:
        return type(error).__name__.encode()

    requests = Requests.of([b"0", b"1", b"2"])
    assert requests.answer_each(handler, bytes_max=10, settle=settle) == [b"0", b"StopIteration", b"2"]


@pytest.mark.parametrize("raised", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_is_no_error_of_a_handler_ends_the_batch(raised: type[BaseException]) -> None:
    called = []

    def handler(request: bytes) -> bytes:
        called.append(request)
        raise raised

    with pytest.raises(raised):
        Requests.of([b"0", b"1"]).answer_each(handler, bytes_max=10, settle=no_settling)
    assert called == [b"0"]


def test_what_settling_raises_ends_the_batch() -> None:
    def settle(_by: object, _request: bytes, _returned: object, error: Exception | None) -> bytes:
        assert error is not None
        raise error

    with pytest.raises(ZeroDivisionError):
        Requests.of([b"0", b"1"]).answer_each(lambda _: b"%d" % (1 // 0), bytes_max=10, settle=settle)


def test_wrong_calls_are_refused() -> None:
    with pytest.raises(TypeError, match="5 to 7 arguments"):
        call_each(bytes, b"", b"", 1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="5 to 7 arguments"):
        call_each(bytes, b"", b"", 1, no_settling, 1, 2, 3)
    with pytest.raises(TypeError):
        call_each(bytes, b"", b"", "1", no_settling)  # type: ignore[arg-type]


def test_nothing_is_kept() -> None:
    """References in and out of many batches, with and without errors, balance."""
    settled = b"settled" * 3

    def handler(request: bytes, more: object) -> bytes:
        if request == b"bad":
            raise ValueError
        return request

    def settle(_by: object, _request: bytes, _returned: object, _error: Exception | None) -> bytes:
        return settled

    requests, more = Requests.of([b"good" * 10, b"bad"] * 50), object()

    def turns(count: int) -> tuple[int, ...]:
        for _ in range(count):
            replies = requests.answer_each(handler, more, bytes_max=100, settle=settle)
            assert pack(replies) is not None
            list(requests)
            with pytest.raises(ZeroDivisionError):
                requests.answer_each(lambda *_: b"%d" % (1 // 0), more, bytes_max=9, settle=raise_it)
        del replies
        gc.collect()
        return (*map(sys.getrefcount, (handler, settle, settled, more, requests.slab)), sys.getallocatedblocks())

    def raise_it(_by: object, _request: bytes, _returned: object, error: Exception | None) -> bytes:
        assert error is not None
        raise error

    turns(3)
    before, after = turns(20), turns(20)
    assert before[:-1] == after[:-1]
    assert abs(before[-1] - after[-1]) < 50  # of 20 batches of 100


# ---- laying out ----


@given(batches, st.sampled_from([list, tuple]))
def test_replies_are_laid_end_to_end(replies: list[bytes], kind: Callable[[list[bytes]], Any]) -> None:
    packed = Replies.pack(kind(replies))
    assert packed.slab == b"".join(replies)
    assert list(packed.lengths) == [len(reply) for reply in replies]


@given(st.lists(st.one_of(st.binary(max_size=9), st.sampled_from([DROP, LATER]), st.binary(max_size=9).map(bytearray))))
def test_special_replies_have_their_lengths(replies: list[Any]) -> None:
    packed = Replies.pack(replies)
    plain = [reply for reply in replies if reply is not DROP and reply is not LATER]
    assert packed.slab == b"".join(plain)
    assert list(packed.lengths) == [
        reply.length if reply is DROP or reply is LATER else len(reply) for reply in replies
    ]


def test_what_are_no_replies_is_refused_by_its_place() -> None:
    with pytest.raises(TypeError, match="reply 1 is str, not bytes"):
        Replies.pack([b"0", "1"])  # type: ignore[list-item]
    assert pack([b"0", bytearray(b"1")]) is None
    assert pack(iter([b"0"])) is None  # type: ignore[arg-type]


def test_lengths_of_another_width_are_refused() -> None:
    for code in "BHQ":
        with pytest.raises(TypeError, match="format I"):
            Replies(b"a", array(code, [1]))
    lengths = Requests.of([b"a"]).lengths
    assert Replies(b"a", lengths).lengths is lengths


LARGE = b"x" * 31


def settled_of(reply: object) -> object:
    if reply is DROP or reply is LATER:
        return reply
    if not isinstance(reply, bytes):
        return b"-ERR TypeError\r\n"
    return reply if len(reply) <= 30 else b"-ERR ReplyTooLarge\r\n"


@given(
    st.lists(st.one_of(st.binary(max_size=9), st.sampled_from([DROP, LATER, None, "text", LARGE, 7]))), st.booleans()
)
def test_what_are_no_replies_is_settled(replies: list[Any], as_list: bool) -> None:
    expected = Replies.pack([settled_of(reply) for reply in replies])  # type: ignore[misc]
    packed = laid_out(replies if as_list else iter(replies), 30)  # type: ignore[arg-type]
    packed = Replies.settled(packed, 30)  # what the engine asks for where one is too large
    assert (packed.slab, list(packed.lengths)) == (expected.slab, list(expected.lengths))


def test_replies_that_are_laid_out_are_taken_as_they_are() -> None:
    packed = Replies.pack([b"a"])
    assert laid_out(packed, 1) is packed
