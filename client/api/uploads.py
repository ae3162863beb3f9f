"""Reading a multipart upload: in memory, counted as it streams, without the file's name."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass

from fastapi import Request
from python_multipart.exceptions import FormParserError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from common.errors import InputRefused

UPLOAD_SECONDS = 60.0
FORM_ALLOWANCE_BYTES = 16 * 1024
MAXIMUM_FIELDS = 8
MAXIMUM_FIELD_BYTES = 2048


@dataclass(frozen=True)
class Upload:
    """The one image of a request, and its text fields; empty fields are left out."""

    image: bytes
    fields: Mapping[str, str]


class _InMemoryParser(MultiPartParser):
    # Starlette spools a larger file to the temporary folder: patients' images do not belong there.
    spool_max_size = sys.maxsize


async def read_upload(
    request: Request, *, maximum_bytes: int, seconds: float = UPLOAD_SECONDS
) -> Upload:
    """Read the multipart body of a request.

    Parameters
    ----------
    request : Request
        Its body has one file part named ``image``, and perhaps text fields.
    maximum_bytes : int
        Largest image; reading stops as soon as the body cannot fit.
    seconds : float
        How long the whole upload may take.

    Raises
    ------
    InputRefused
        ``not-multipart``, ``upload-too-large``, ``upload-slow``, ``upload-cut-off``,
        ``upload-malformed`` or ``upload-without-image``.
    """
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise InputRefused(
            "The request is not multipart/form-data.",
            action="Send the image as a file part named image.",
            code="not-multipart",
        )
    limit = maximum_bytes + FORM_ALLOWANCE_BYTES
    _check_declared_size(request, limit, maximum_bytes)
    parser = _InMemoryParser(
        request.headers,
        _counted(request, limit, maximum_bytes),
        max_files=1,
        max_fields=MAXIMUM_FIELDS,
        max_part_size=MAXIMUM_FIELD_BYTES,
    )
    try:
        async with asyncio.timeout(seconds):
            form = await parser.parse()
    except TimeoutError as error:
        raise InputRefused("The upload took too long.", code="upload-slow") from error
    except ClientDisconnect as error:
        raise InputRefused("The upload was cut off.", code="upload-cut-off") from error
    except (MultiPartException, FormParserError, LookupError) as error:
        # LookupError: the sender chose a character set that there is not
        raise _malformed() from error
    return await _upload(list(form.multi_items()), maximum_bytes)


def _check_declared_size(request: Request, limit: int, maximum_bytes: int) -> None:
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise _too_large(maximum_bytes)


async def _counted(request: Request, limit: int, maximum_bytes: int) -> AsyncGenerator[bytes, None]:
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > limit:
            raise _too_large(maximum_bytes)
        yield chunk


async def _upload(items: list[tuple[str, UploadFile | str]], maximum_bytes: int) -> Upload:
    image: bytes | None = None
    fields: dict[str, str] = {}
    for name, value in items:
        if isinstance(value, UploadFile):
            if name == "image":
                image = await value.read()
            await value.close()
        elif name in fields:
            raise _malformed()
        else:
            fields[name] = value
    if not image:
        raise InputRefused(
            "There is no image in the request.",
            action="Send the image as a file part named image.",
            code="upload-without-image",
        )
    if len(image) > maximum_bytes:
        raise _too_large(maximum_bytes)
    return Upload(image, {name: text.strip() for name, text in fields.items() if text.strip()})


def _too_large(maximum_bytes: int) -> InputRefused:
    return InputRefused(
        f"The upload is larger than {maximum_bytes / 1024**2:.0f} MiB.",
        meaning="It was not read to its end.",
        action="Export the image smaller, or raise maximum_upload_bytes in site.toml.",
        code="upload-too-large",
    )


def _malformed() -> InputRefused:
    return InputRefused(
        "The multipart body cannot be read.",
        action="Send one file part named image and each text field once.",
        code="upload-malformed",
    )
