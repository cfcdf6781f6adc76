"""What commands print and charts bear."""

from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of as many cells each, in columns that end below one another."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.rjust, row, widths)) for row in rows)


def first_name(label: str, characters: int | None = None) -> str:
    """The first of a class's names, `oboe, hautboy, hautbois`, cut to so many characters."""
    first = label.partition(",")[0]
    return (
        first if characters is None or len(first) <= characters else f"{first[: characters - 1]}…"
    )
