"""The body of an upload: taken to a temporary file, and refused as soon as it is too long."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import SpooledTemporaryFile
from typing import IO, cast

from flask import request
from sqlalchemy.orm import Session

from app.configuration.keys import UPLOAD_MAX_SIZE
from app.errors import InvalidInputError, ProblemError
from app.files.storage import files
from app.plans.standing import standing_of

_CHUNK_BYTES = 65_536
_IN_MEMORY_BYTES = 1_048_576


class FileTooLargeError(ProblemError):
    """The file is longer than this tenant may upload; nothing of it is kept."""

    code = 413
    kind = "file_too_large"

    def __init__(self, max_bytes: int) -> None:
        super().__init__(f"Send a file of at most {max_bytes} bytes.", members={"max_bytes": max_bytes})


def max_upload_bytes(session: Session) -> int:
    """Return how long a file of the session's tenant may be: as its configuration says, and the installation."""
    return min(standing_of(session).setting(UPLOAD_MAX_SIZE), files().max_bytes)


@contextmanager
def received_body(max_bytes: int) -> Iterator[IO[bytes]]:
    """Read the body of the current request into a temporary file, which is gone after the block.

    Raises: FileTooLargeError - before the rest of it is read. InvalidInputError - there is no body.
    """
    if (request.content_length or 0) > max_bytes:
        raise FileTooLargeError(max_bytes)
    request.max_content_length = max_bytes + _CHUNK_BYTES  # in place of the limit for JSON; counted exactly below
    with SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES) as content:
        while chunk := request.stream.read(_CHUNK_BYTES):
            content.write(chunk)
            if content.tell() > max_bytes:
                raise FileTooLargeError(max_bytes)
        if content.tell() == 0:
            raise InvalidInputError.of("body", "is empty: send the file's content as the body")
        content.seek(0)
        yield cast("IO[bytes]", content)
