from typing_extensions import Buffer

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
