"""Answering with a file: as what it was found to be, to the caller alone."""

from __future__ import annotations

from urllib.parse import quote

from flask import Response, request
from werkzeug.http import dump_options_header

from app.errors import RowNotFoundError
from app.files.models import File
from app.files.operations import object_name
from app.files.storage import answering_outages, files
from tenancy.errors import ObjectNotFoundError


def download(file: File) -> Response:
    """Answer with the content of a file, or that the caller's copy of it is still good.

    It is shown in place only as what it was found to be, kept by nobody but the caller, and asked after each time.
    Raises: RowNotFoundError - it was removed this very moment. StorageDownError
    """
    answer = Response(content_type=file.content_type)
    answer.set_etag(file.sha256)
    answer.cache_control.private = True
    answer.cache_control.no_cache = True
    answer.headers["Content-Disposition"] = dump_options_header("inline", _names(file.name))
    if answer.make_conditional(request).status_code == 304:
        return answer
    try:
        with answering_outages():
            opened = files().storage.get(object_name(file.id))
    except ObjectNotFoundError:
        raise RowNotFoundError from None
    answer.response = opened.chunks
    answer.content_length = file.size_bytes
    return answer


def _names(name: str) -> dict[str, str]:
    """Return a name as a header can hold it: whole in UTF-8, and without what is not ASCII for old readers."""
    # Taken from the card where its sender gave none: a line break would be refused by the header.
    name = "".join(sign if sign.isprintable() else "_" for sign in name)
    if name.isascii():
        return {"filename": name}
    plain = name.encode("ascii", "replace").decode().replace("?", "_")
    return {"filename": plain, "filename*": f"UTF-8''{quote(name, safe='')}"}
