from collections.abc import Iterable

from typing_extensions import Buffer

def commands(data: bytes, /) -> list[list[bytes]] | None:
    """The commands, each a list of words, when the bytes are whole arrays of bulk strings and nothing else; or None.

    Raises:
        TypeError: they are not bytes.
    """

def matching(pattern: bytes, keys: Iterable[bytes], /) -> list[bytes]:
    """The keys that a pattern of KEYS or SCAN matches, as Redis reads it, in order, in time linear in their bytes.

    ``*`` any bytes, ``?`` one byte, ``[abc]``, ``[a-z]``, ``[^a]`` one of them or none of them, ``\\`` takes the next
    byte as it is. An open ``[`` runs to the end of the pattern.

    Raises:
        ValueError: the pattern has more than ``KV_PATTERN_BYTES_MAX`` bytes.
        TypeError: a key is not bytes.
    """

def places(keys: Iterable[bytes], /) -> tuple[bytes, list[bytes]]:
    """Each key once, in SCAN's order: by its place, a hash of it, and then by its bytes.

    Returns:
        The places (format ``Q``), and the keys.

    Raises:
        TypeError: a key is not bytes.
    """

def run(
    top: dict[bytes, bytes | None], under: dict[bytes, bytes] | None, slab: bytes, lengths: Buffer, writes: bool, /
) -> tuple[int, bytes, bytes]:
    """Executes the leading requests that are a plain GET or, where `writes`, a plain SET, and stops at any other.

    Args:
        top, under: the keys and values, as :class:`r2p2.apps.kv.table.Table` has them; SETs go to `top`.
        slab, lengths: the batch as :class:`r2p2.requests.Requests` has it.
        writes: whether SETs are executed.

    Returns:
        How many were executed, their replies laid end to end, and the replies' lengths (format ``I``).

    Raises:
        ValueError: the lengths reach beyond the slab.
        TypeError: a value is not bytes.
    """
