"""``--filter``: a value that no message can have is refused."""

from __future__ import annotations

import re

import pytest

from r2p2.dissect.filters import FilterError, parse


@pytest.mark.parametrize("expression", ["rid=abc", "rid=70000", "ip=foo", "port=99999", "term=-1", "member=x"])
def test_a_filter_that_nothing_can_pass(expression: str) -> None:
    with pytest.raises(FilterError, match=re.escape(repr(expression))):
        parse(expression)
