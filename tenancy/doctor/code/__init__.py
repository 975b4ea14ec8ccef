"""Code: what the syntax of Python files shows, without importing them."""

from __future__ import annotations

from collections.abc import Iterator

from tenancy.doctor.code import caches, carriers, engines, evidence, relations, statements
from tenancy.doctor.code.comments import read_comments
from tenancy.doctor.code.project import gather
from tenancy.doctor.code.sources import Source, files_of, parse
from tenancy.doctor.findings import NOT_CHECKED, Finding, Subject
from tenancy.doctor.ignores import Ignore

_CHECKS = (statements, engines, carriers, caches, evidence, relations)
RULES = tuple(sorted((rule for check in _CHECKS for rule in check.RULES), key=lambda rule: rule.id))


def examine_code(subject: Subject) -> Iterator[Finding | Ignore]:
    """Read every file of the subject; yields what is found, and the decisions written in comments."""
    if not subject.code:
        yield NOT_CHECKED.finding("kind code", "no code was given", remedy="pass --code with your package's folder")
        return
    sources: list[Source] = []
    for name, path in files_of(subject.code):
        try:
            sources.append(parse(name, path.read_text(encoding="utf-8")))
        except (OSError, SyntaxError, ValueError) as error:
            what = f"the file cannot be read as Python: {type(error).__name__}"
            line = error.lineno if isinstance(error, SyntaxError) else None
            yield NOT_CHECKED.finding(name, what, remedy="mend the file, or name folders without it", line=line)
    if not sources:
        places = ", ".join(str(place) for place in subject.code)
        yield NOT_CHECKED.finding("kind code", f"no Python file in {places}", remedy="name your package's folder")
    project = gather(sources, subject.metadata)
    for source in sources:
        for check in _CHECKS:
            yield from check.examine(source, project)
        yield from read_comments(source)


__all__ = ["RULES", "examine_code"]
