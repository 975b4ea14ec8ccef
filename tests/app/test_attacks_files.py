"""Attacks by names and files: what they are called when they go out again."""

from __future__ import annotations

import io
from typing import Any

import pytest
from PIL import Image

from tests.app.conftest import Visitor, codes


def picture(kind: str = "PNG") -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (4, 4)).save(content, kind)
    return content.getvalue()


def add_card(visitor: Visitor, number: str) -> str:
    answer = visitor.post("/api/v1/cards", json={"number": number, "year": 1952, "condition": "mint"})
    assert answer.status_code == 201, answer.get_data(as_text=True)
    return f"/api/v1/cards/{answer.get_json()['id']}"


@pytest.mark.parametrize(
    "number", ['7"; filename="x.html', "7\\", "7/../8", "..", "7;", "\u202egnp.7", "7' OR", "%0d%0aSet-Cookie: a=b"]
)
def test_number_of_a_card_in_a_file_name_stays_within_its_header(acme: Visitor, number: str) -> None:
    card = add_card(acme, number)
    assert acme.call("PUT", f"{card}/image", data=picture()).status_code == 200

    answer = acme.get(f"{card}/image")

    assert answer.status_code == 200
    assert len(answer.headers.getlist("Content-Disposition")) == 1
    assert answer.headers["Content-Disposition"].startswith("inline")
    assert "Set-Cookie" not in answer.headers
    assert answer.headers["Content-Type"] == "image/png"


@pytest.mark.parametrize("number", ["7\r\nX: y", "7\n8", "7\t8", "7\x1b[31m", "7\u2028"])
def test_number_with_signs_that_cannot_be_shown_breaks_no_download(acme: Visitor, number: str) -> None:
    """A line break in a file name is refused by the header, and the picture could never be had again."""
    created = acme.post("/api/v1/cards", json={"number": number, "year": 1952, "condition": "mint"})
    if created.status_code == 400:
        return
    card = f"/api/v1/cards/{created.get_json()['id']}"
    assert acme.call("PUT", f"{card}/image", data=picture()).status_code == 200

    assert acme.get(f"{card}/image").status_code == 200


@pytest.mark.parametrize(
    ("content", "called"),
    [
        (b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", "image/svg+xml"),
        (b"<html><script>alert(1)</script></html>", "image/png"),
        (b"%PDF-1.7", "image/png"),
        (b"PK\x03\x04", "image/png"),
        (b"BM" + bytes(60), "image/bmp"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "image/png"),
    ],
)
def test_what_is_no_picture_is_refused_whatever_it_is_called(acme: Visitor, content: bytes, called: str) -> None:
    card = add_card(acme, "7")

    answer = acme.call("PUT", f"{card}/image", data=content, headers={"Content-Type": called})

    assert codes(answer) == (415, "unusable_image")


def test_picture_that_is_also_a_page_goes_out_as_a_picture(acme: Visitor) -> None:
    card = add_card(acme, "7")
    content = picture("GIF") + b"<html><script>alert(1)</script></html>"
    assert acme.call("PUT", f"{card}/image", data=content, headers={"Content-Type": "text/html"}).status_code == 200

    headers: Any = acme.get(f"{card}/image").headers

    assert (headers["Content-Type"], headers["X-Content-Type-Options"]) == ("image/gif", "nosniff")
    assert "default-src 'none'" in headers["Content-Security-Policy"]


def test_many_frames_and_many_pixels_are_not_unpacked(acme: Visitor) -> None:
    card = add_card(acme, "7")
    header = picture()
    size = header.index(b"IHDR") + 4
    huge = header[:size] + (60_000).to_bytes(4, "big") * 2 + header[size + 8 :]

    assert codes(acme.call("PUT", f"{card}/image", data=huge)) == (415, "unusable_image")
