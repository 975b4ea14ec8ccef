"""Pictures of cards: what is taken, what is refused with nothing kept, and how they are given back."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
from flask import Flask
from PIL import Image, PngImagePlugin

from app.errors import ProblemError
from app.files import operations
from tenancy.context import tenant_scope
from tests.app.cards import add_card, counted_bytes, objects, picture, put_image
from tests.app.conftest import Visitor, codes, fields


@pytest.mark.parametrize(
    ("kind", "content_type", "extension"),
    [
        ("PNG", "image/png", "png"),
        ("JPEG", "image/jpeg", "jpeg"),
        ("WEBP", "image/webp", "webp"),
        ("GIF", "image/gif", "gif"),
    ],
)
def test_picture_comes_back_as_it_was_sent(acme: Visitor, kind: str, content_type: str, extension: str) -> None:
    card, content = add_card(acme), picture(kind)

    put = put_image(acme, card, content, content_type="application/x-anything")
    got = acme.get(f"{card}/image")

    assert put.status_code == 200
    assert (put.get_json()["content_type"], put.get_json()["size_bytes"]) == (content_type, len(content))
    assert put.get_json()["sha256"] == hashlib.sha256(content).hexdigest()
    assert (got.status_code, got.content_type, got.data) == (200, content_type, content)
    assert got.headers["Content-Disposition"] == f"inline; filename=7.{extension}"
    assert acme.get(card).get_json()["has_image"] is True


def test_picture_is_kept_by_its_reader_alone_and_never_guessed_at(acme: Visitor) -> None:
    """T108: a cache between the tenants may not keep it, and no browser takes it for a page."""
    card = add_card(acme)
    put_image(acme, card, picture())

    headers = acme.get(f"{card}/image").headers

    assert headers["Cache-Control"] == "private, no-cache"
    assert {"Authorization", "Cookie", "Host"} <= {name.strip() for name in headers["Vary"].split(",")}
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'none'" in headers["Content-Security-Policy"]


def test_copy_that_is_still_good_is_not_sent_again(acme: Visitor) -> None:
    card = add_card(acme)
    put_image(acme, card, picture())
    tag = acme.get(f"{card}/image").headers["ETag"]

    same = acme.get(f"{card}/image", headers={"If-None-Match": tag})
    put_image(acme, card, picture(color="blue"))
    changed = acme.get(f"{card}/image", headers={"If-None-Match": tag})

    assert (same.status_code, same.data) == (304, b"")
    assert same.headers["Cache-Control"] == "private, no-cache"
    assert changed.status_code == 200


def test_foreign_picture_answers_like_a_missing_one_also_to_who_has_a_copy(acme: Visitor, globex: Visitor) -> None:
    """T118"""
    theirs = add_card(globex)
    put_image(globex, theirs, picture())
    tag = globex.get(f"{theirs}/image").headers["ETag"]
    nobodys = f"/api/v1/cards/{uuid4()}"

    for method, options in (
        ("GET", {"headers": {"If-None-Match": tag}}),
        ("PUT", {"data": picture(color="blue")}),
        ("DELETE", {}),
    ):
        foreign, missing = (acme.call(method, f"{card}/image", **options) for card in (theirs, nobodys))
        assert codes(foreign) == (404, "not_found")
        assert foreign.get_json() == missing.get_json()

    assert globex.get(f"{theirs}/image").data == picture()


def test_card_without_a_picture_has_none_to_read_or_remove(acme: Visitor) -> None:
    card = add_card(acme)

    assert codes(acme.get(f"{card}/image")) == (404, "not_found")
    assert codes(acme.call("DELETE", f"{card}/image")) == (404, "not_found")


# What is refused --------------------------------------------------------------------------------------


def bomb() -> bytes:
    """A picture that unpacks to 100 megapixels."""
    content = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(content, "PNG")
    return content.getvalue()


def wide() -> bytes:
    content = io.BytesIO()
    Image.new("1", (7_500, 7_500)).save(content, "PNG")
    return content.getvalue()


def damaged() -> bytes:
    content = bytearray(picture(side=50))
    content[len(content) // 2] ^= 0xFF
    return bytes(content)


def talkative() -> bytes:
    """A picture whose text unpacks to far more than it is long."""
    text, content = PngImagePlugin.PngInfo(), io.BytesIO()
    text.add_text("story", "x" * 80_000_000, zip=True)
    Image.new("RGB", (1, 1)).save(content, "PNG", pnginfo=text)
    return content.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
        b"<html><script>alert(1)</script></html>",
        b"%PDF-1.7",
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a",
        b"\0",
        pytest.param(picture()[:-20], id="cut off"),
        pytest.param(damaged(), id="damaged"),
        pytest.param(picture("BMP"), id="bmp"),
        pytest.param(picture("TIFF"), id="tiff"),
        pytest.param(bomb(), id="bomb"),
        pytest.param(wide(), id="wide"),
    ],
)
def test_content_that_is_no_picture_is_refused_whatever_it_is_called(app: Flask, acme: Visitor, content: bytes) -> None:
    card = add_card(acme)

    answer = put_image(acme, card, content, "?filename=front.png")

    assert codes(answer) == (415, "unusable_image")
    assert objects(app, acme.tenant_id) == []
    assert acme.get(card).get_json()["has_image"] is False


def test_picture_with_a_text_that_unpacks_without_end_costs_no_memory(acme: Visitor) -> None:
    content = talkative()
    assert len(content) < 200_000

    assert put_image(acme, add_card(acme), content).status_code in (200, 415)


def test_empty_body_is_refused(app: Flask, acme: Visitor) -> None:
    answer = put_image(acme, add_card(acme), b"")

    assert (codes(answer), fields(answer)) == ((400, "invalid_input"), ["body"])
    assert objects(app, acme.tenant_id) == []


@pytest.mark.parametrize(
    "name",
    [
        "../x.png",
        "/etc/passwd",
        "..",
        ".",
        "a\\b.png",
        "C:\\x",
        "a\0b",
        "a\nb",
        "a\r\nX-Evil: 1",
        "\u202egnp.exe",
        "",
        "x" * 201,
    ],
)
def test_file_name_that_is_a_path_or_cannot_be_shown_is_refused(app: Flask, acme: Visitor, name: str) -> None:
    """T113"""
    card = add_card(acme)

    answer = acme.call("PUT", f"{card}/image", data=picture(), query_string={"filename": name})

    assert (codes(answer), fields(answer)) == ((400, "invalid_input"), ["query.filename"])
    assert objects(app, acme.tenant_id) == []


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("front.png", "inline; filename=front.png"),
        ('a"b;c.png', 'inline; filename="a\\"b;c.png"'),
        (
            "Größe ．．.png",
            "inline; filename=\"Gr__e __.png\"; filename*=UTF-8''Gr%C3%B6%C3%9Fe%20%EF%BC%8E%EF%BC%8E.png",
        ),
    ],
)
def test_file_name_is_shown_and_decides_nothing(app: Flask, acme: Visitor, name: str, shown: str) -> None:
    """T113"""
    card = add_card(acme)

    put = acme.call("PUT", f"{card}/image", data=picture(), query_string={"filename": name})

    assert put.get_json()["name"] == name
    assert acme.get(f"{card}/image").headers["Content-Disposition"] == shown
    (stored,) = objects(app, acme.tenant_id)
    assert stored.name.startswith("files/")
    assert len(stored.name) == len("files/") + 36


# How long ---------------------------------------------------------------------------------------------


def noise(size: int) -> bytes:
    """A picture of this many bytes: what follows its end is ignored by viewers."""
    return picture() + b"\0" * (size - len(picture()))


def on(app: Flask, visitor: Visitor) -> Visitor:
    return replace(visitor, client=app.test_client(use_cookies=False))


def test_installation_bounds_every_upload(make_app: Callable[..., Flask], acme: Visitor) -> None:
    """APP_MAX_UPLOAD_BYTES; larger than APP_MAX_BODY_BYTES, which is for JSON."""
    app = make_app(max_upload_bytes=100_000, max_body_bytes=2_048)
    visitor = on(app, acme)
    card = add_card(visitor)

    fits = put_image(visitor, card, noise(100_000))
    longer = put_image(visitor, card, noise(100_001))

    assert fits.status_code == 200
    assert codes(longer) == (413, "file_too_large")
    assert longer.get_json()["max_bytes"] == 100_000
    assert [one.size_bytes for one in objects(app, acme.tenant_id)] == [100_000]


def test_length_is_counted_and_not_believed(make_app: Callable[..., Flask], acme: Visitor) -> None:
    app = make_app(max_upload_bytes=100_000)
    visitor = on(app, acme)
    card = add_card(visitor)

    answer = visitor.call(
        "PUT",
        f"{card}/image",
        input_stream=io.BytesIO(noise(300_000)),
        headers={"Transfer-Encoding": "chunked"},
        environ_overrides={"wsgi.input_terminated": True},
    )

    assert codes(answer)[0] == 413
    assert objects(app, acme.tenant_id) == []


# Storage and rows -------------------------------------------------------------------------------------


def test_sum_follows_every_picture_that_comes_and_goes(app: Flask, acme: Visitor, globex: Visitor) -> None:
    one, other, theirs = add_card(acme, "1"), add_card(acme, "2"), add_card(globex)
    sizes = []

    for step in (
        lambda: put_image(acme, one, noise(1_000)),
        lambda: put_image(acme, other, noise(2_000)),
        lambda: put_image(globex, theirs, noise(500)),
        lambda: put_image(acme, one, noise(5_000)),
        lambda: acme.call("DELETE", f"{other}/image"),
        lambda: acme.call("DELETE", one),
    ):
        assert step().status_code in (200, 204)
        sizes.append(counted_bytes(app, acme.tenant_id))

    assert sizes == [(1_000, 1_000), (3_000, 3_000), (3_000, 3_000), (7_000, 7_000), (5_000, 5_000), (0, 0)]
    assert counted_bytes(app, globex.tenant_id) == (500, 500)


def test_pictures_sent_at_once_leave_one_picture_and_the_right_sum(app: Flask, acme: Visitor) -> None:
    card = add_card(acme)

    with ThreadPoolExecutor(4) as pool:
        statuses = list(pool.map(lambda n: put_image(acme, card, noise(1_000 + n)).status_code, range(8)))

    assert set(statuses) <= {200, 429}
    assert 200 in statuses
    kept, rows = counted_bytes(app, acme.tenant_id)
    assert kept == rows
    assert len(objects(app, acme.tenant_id)) == 1


def test_refusal_after_the_content_was_stored_removes_it(app: Flask, acme: Visitor) -> None:
    """The card goes while its picture is on the way."""
    with (
        app.test_request_context(),
        tenant_scope(acme.tenant_id),
        pytest.raises(ProblemError),
        operations.stored(io.BytesIO(b"x"), content_type="image/png", max_bytes=9),
    ):
        raise ProblemError("gone")

    assert objects(app, acme.tenant_id) == []


def test_storage_that_is_gone_is_said_and_leaves_the_card_as_it_was(
    make_app: Callable[..., Flask], acme: Visitor, tmp_path: Path
) -> None:
    app = make_app(storage_url=(tmp_path / "files").as_uri())
    visitor = on(app, acme)
    card = add_card(visitor)
    put_image(visitor, card, picture())
    (tmp_path / "files").rename(tmp_path / "elsewhere")
    (tmp_path / "files").write_text("no folder")

    refused = put_image(visitor, card, picture(color="blue"))
    unread = visitor.get(f"{card}/image")
    (tmp_path / "files").unlink()
    (tmp_path / "elsewhere").rename(tmp_path / "files")

    assert codes(refused) == (503, "storage_unavailable")
    assert unread.status_code in (404, 503)
    assert visitor.get(f"{card}/image").data == picture()
    assert counted_bytes(app, acme.tenant_id) == (len(picture()), len(picture()))


def test_folder_of_files_is_for_this_user_alone(make_app: Callable[..., Flask], tmp_path: Path) -> None:
    """APP_STORAGE_URL"""
    make_app(storage_url=(tmp_path / "a folder").as_uri())

    assert (tmp_path / "a folder").stat().st_mode & 0o777 == 0o700
