"""Writes docs/reference from the code: ``python tools/make_reference.py [--check]`` (`make reference`).

Counters from their texts in C and in ``r2p2/node/counters.py``, limits from ``r2p2/limits.py`` with the reasons beside
them, the command line from the parsers. ``--check`` exits 1 when a page differs from what the code says.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "reference"
sys.path.insert(0, str(ROOT))

MADE = "Made from the code by `make reference`; a test holds that it is current.\n"


def cell(text: str) -> str:
    """Text within a row of a table."""
    return re.sub(r"\s+", " ", text).replace("|", "\\|").strip()


def counters_page() -> str:
    """Every counter and what it counts."""
    from r2p2.engine import counter_helps
    from r2p2.node.counters import NODE_COUNTERS
    from r2p2.router import router_counter_helps

    parts = [
        "# Counters\n",
        MADE,
        "A status shows those that are not 0 (`r2p2 status --json`); Prometheus has them as `r2p2_events_total` under "
        "`name`. `rx_bad_*`, `*_drop_*` and `drops_*` are reasons for which something was dropped.\n",
    ]
    tables = {
        "Engine and port": counter_helps(),
        "Node": NODE_COUNTERS,
        "Router": router_counter_helps(),
    }
    for title, helps in tables.items():
        rows = [f"| `{name}` | {cell(text)} |" for name, text in helps.items()]
        parts.append("\n".join([f"## {title}\n", "| counter | counts |", "|---|---|", *rows]) + "\n")
    return "\n".join(parts)


def _limits(source: str) -> Iterator[tuple[str, str, str]]:
    """(name, the expression, the comment above it) of each limit."""
    lines = source.splitlines()
    for statement in ast.parse(source).body:
        if not (isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)):
            continue
        comment: list[str] = []
        line = statement.lineno - 2
        while lines[line].startswith("#"):
            comment.insert(0, lines[line].removeprefix("#").strip())
            line -= 1
        assert statement.value is not None
        yield statement.target.id, ast.unparse(statement.value), " ".join(comment)


def _value(name: str, value: int | float) -> str:
    if name.endswith("_SECONDS"):
        return f"{value:g} s"
    assert isinstance(value, int)
    if name.endswith("_NS"):
        return f"{value / 1_000_000:,g} ms"
    if "BYTES" in name and value >= 1 << 20 and value % (1 << 20) == 0:
        return f"{value >> 20:,} MiB"
    if "BYTES" in name and value >= 1 << 15 and value % (1 << 10) == 0:
        return f"{value >> 10:,} KiB"
    return f"{value:,} bytes" if "BYTES" in name else f"{value:,}"


def limits_page() -> str:
    """Every bound with its reason."""
    limits = importlib.import_module("r2p2.limits")
    rows = []
    for name, expression, comment in _limits((ROOT / "r2p2" / "limits.py").read_text()):
        if name in ("US", "MS", "SECOND"):
            continue
        value = getattr(limits, name)
        assert isinstance(value, int | float), f"{name} = {expression}"
        rows.append(f"| `{name}` | {_value(name, value)} | {cell(comment)} |")
    text = "All bounds stand in `r2p2/limits.py`. What an operator may set is an option of the command line.\n"
    return "\n".join(["# Limits\n", MADE, text, "| limit | value | why |", "|---|---|---|", *rows]) + "\n"


def _rows(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        names = ", ".join(f"`{name}`" for name in action.option_strings)
        metavar = action.metavar if isinstance(action.metavar, str) else None
        if not names:
            names = f"`{metavar or action.dest}`"
        elif action.nargs != 0:
            choices = f"{{{','.join(map(str, action.choices))}}}" if action.choices else None
            names += f" `{metavar or choices or action.dest.upper()}`"
        is_listed = action.choices and (metavar or not action.option_strings)
        choices = f"; one of {', '.join(f'`{c}`' for c in action.choices or ())}" if is_listed else ""
        is_plain = action.default in (None, "", [], argparse.SUPPRESS) or isinstance(action.default, bool)
        default = "" if is_plain else f"`{action.default}`"
        needed = "; **required**" if action.required and action.option_strings else ""
        assert action.help, f"{parser.prog}: {names} has no help"
        yield f"| {names.replace('|', '&#124;')} | {cell(action.help)}{choices}{needed} | {default} |"


def cli_page() -> str:
    """Every subcommand and its options."""
    from r2p2 import cli

    parts = ["# Command line\n", MADE]
    parts.append("\n".join(f"- [`r2p2 {name}`](#r2p2-{name}): {text}" for name, (_, text) in cli.SUBCOMMANDS.items()))
    parts.append(
        "\nExit codes of all: 0 it worked, 1 it failed or a value cannot be, 2 wrong usage, 3 this member was removed "
        "from its cluster, 130 stopped by Ctrl-C, 143 by SIGTERM.\n"
    )
    for name in cli.SUBCOMMANDS:
        module = cli.load_subcommand(name)
        parser = cli.parser_of(name, module)
        rows = list(_rows(parser))
        parts.append(f"## r2p2 {name}\n\n{cell(module.HELP)}\n")
        parts.append("\n".join(["| argument | meaning | default |", "|---|---|---|", *rows]) + "\n")
        if parser.epilog:
            parts.append(f"```text\n{parser.epilog}\n```\n")
    return "\n".join(parts)


PAGES = {"counters.md": counters_page, "limits.md": limits_page, "cli.md": cli_page}


def main() -> int:
    """Writes the pages, or with ``--check`` says which are not current."""
    check = "--check" in sys.argv[1:]
    stale = []
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, make in PAGES.items():
        path, text = FOLDER / name, make()
        if check:
            if not path.exists() or path.read_text() != text:
                stale.append(name)
        else:
            path.write_text(text)
    if stale:
        print(f"docs/reference: not current: {', '.join(stale)}; make reference", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
