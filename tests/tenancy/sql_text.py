"""SQL compared word for word, without its line breaks."""

from collections.abc import Iterable


def written(text: str) -> list[str]:
    """The statements of a text, one a paragraph; line breaks are for the reader."""
    return flat(text.strip().split("\n\n"))


def flat(statements: Iterable[str]) -> list[str]:
    return [" ".join(statement.split()) for statement in statements]
