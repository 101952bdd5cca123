"""What ``--app MODULE:NAME`` may name, and what is said of what it may not."""

from __future__ import annotations

import pytest

from r2p2.app import RequestMachine, StateMachine, load_application, state_machine
from r2p2.errors import UserError

HERE = __name__


class Machine(RequestMachine):
    """Answers with its greeting."""

    def __init__(self, greeting: bytes = b"hello") -> None:
        self.greeting = greeting

    def handle(self, request: bytes, time_ms: int) -> bytes:
        return self.greeting + request

    def query(self, request: bytes) -> bytes:
        return self.greeting + request


class Needing(Machine):
    """Cannot be made without an argument."""

    def __init__(self, greeting: bytes) -> None:
        super().__init__(greeting)


instance = Machine(b"instance")


def factory() -> StateMachine:
    return Needing(b"factory")


def handler(request: bytes, mark: bytes = b"handler") -> bytes:
    return mark + request


def nothing() -> None:
    """Makes nothing."""


def two(one: bytes, other: bytes) -> bytes:
    return one + other


@pytest.mark.parametrize("name", ["Machine", "instance", "factory", "handler"])
def test_a_machine_a_class_what_makes_one_and_a_function_are_applications(name: str) -> None:
    greeting = {"Machine": b"hello"}.get(name, name.encode())
    assert load_application(f"{HERE}:{name}").query(b" you") == greeting + b" you"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Needing", "is made with arguments"),
        ("RequestMachine", "has no handle"),
        ("StateMachine", "has no apply"),
        ("nothing", "takes no request and returns no StateMachine"),
        ("two", "takes no request and returns no StateMachine"),
        ("HERE", "is str"),
        ("UserError", "is type"),
        ("missing", "has no missing"),
    ],
)
def test_what_is_none_is_a_users_error(name: str, text: str) -> None:
    with pytest.raises(UserError, match=text):
        load_application(f"{HERE}:{name}")


def test_coroutines_are_refused_where_they_are_written() -> None:
    async def handler(request: bytes) -> bytes:
        return request

    with pytest.raises(UserError, match="handler is a coroutine"):
        state_machine(handler)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"Waiting\.handle is a coroutine"):

        class Waiting(RequestMachine):
            async def handle(self, request: bytes, time_ms: int) -> bytes:  # type: ignore[override]
                return request
