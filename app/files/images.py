"""Pictures, told by their content: what a sender calls them counts for nothing."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import IO

from PIL import Image

from app.errors import ProblemError

_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp", "GIF": "image/gif"}
_MOST_PIXELS = 50_000_000


class UnusableImageError(ProblemError):
    """What was sent is no picture of a kind that is taken."""

    code = 415
    kind = "unusable_image"


@dataclass(frozen=True)
class ImageKind:
    """What a picture is. extension: without the dot."""

    content_type: str
    extension: str


def kind_of(content: IO[bytes]) -> ImageKind:
    """Return what kind of picture the content is, and leave it at its beginning. Its pixels are not unpacked.

    Raises: UnusableImageError - it is no PNG, JPEG, WebP or GIF, is damaged, or unpacks to more than 50 megapixels.
    """
    content.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(content, formats=list(_TYPES)) as image:
                found, (width, height) = image.format, image.size
                image.verify()
    # What Pillow raises over a damaged file depends on where its parser stood; all of it means the same.
    except Exception as error:
        raise UnusableImageError("Send a PNG, JPEG, WebP or GIF that a viewer can open.") from error
    finally:
        content.seek(0)
    if found not in _TYPES or width * height > _MOST_PIXELS:
        raise UnusableImageError(f"Send a picture of at most {_MOST_PIXELS // 1_000_000} megapixels.")
    return ImageKind(_TYPES[found], found.lower())
