"""Reading a multipart upload: in memory, counted as it streams, without the file's name."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from fastapi import Request
from python_multipart.exceptions import FormParserError
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from common.errors import InputRefused

T = TypeVar("T")

UPLOAD_SECONDS = 60.0
GRACE_SECONDS = 10.0
SLOWEST_BYTES_PER_SECOND = 32 * 1024
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
        How long the whole upload may take. One that comes more slowly than
        `SLOWEST_BYTES_PER_SECOND` after `GRACE_SECONDS` is given up before.

    Raises
    ------
    InputRefused
        ``not-multipart``, ``upload-too-large``, ``upload-slow``, ``upload-cut-off``,
        ``upload-malformed`` or ``upload-without-image``.
    """
    limits = _Limits(maximum_bytes + FORM_ALLOWANCE_BYTES, maximum_bytes, seconds)
    items = await _form(request, limits, files=1)
    images, fields = await _sorted(items, maximum_bytes)
    return Upload(images[-1], fields)


async def read_images(
    request: Request,
    *,
    maximum_bytes: int,
    maximum_images: int,
    maximum_total: int,
    on_bytes: Callable[[int], None],
    seconds: float = UPLOAD_SECONDS,
) -> list[bytes]:
    """Read a multipart body with several file parts named ``image``, in their order.

    Parameters
    ----------
    request : Request
        As for `read_upload`.
    maximum_bytes, maximum_images, maximum_total : int
        Largest image, how many of them, and all together in bytes.
    on_bytes : callable
        Told how many bytes there are so far, at each chunk; what it raises ends the reading.
    seconds : float
        As for `read_upload`.

    Raises
    ------
    InputRefused
        As `read_upload`.
    """
    limits = _Limits(maximum_total + FORM_ALLOWANCE_BYTES, maximum_total, seconds, on_bytes)
    items = await _form(request, limits, files=maximum_images)
    images, _ = await _sorted(items, maximum_bytes)
    return images


async def read_body(request: Request, *, maximum_bytes: int) -> bytes:
    """Read a body that is no form, of at most so many bytes; raises as `read_upload`."""
    limits = _Limits(maximum_bytes, maximum_bytes, UPLOAD_SECONDS)
    _check_declared_size(request, limits)
    body = bytearray()

    async def collect(chunks: AsyncGenerator[bytes, None]) -> None:
        async for chunk in chunks:
            body.extend(chunk)

    await _in_time(request, limits, collect)
    return bytes(body)


@dataclass(frozen=True)
class _Limits:
    """Bytes of a body, the largest that an error names, and how long it may take."""

    body: int
    named: int
    seconds: float
    on_bytes: Callable[[int], None] | None = None


async def _form(
    request: Request, limits: _Limits, *, files: int
) -> list[tuple[str, UploadFile | str]]:
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise InputRefused(
            "The request is not multipart/form-data.",
            action="Send the image as a file part named image.",
            code="not-multipart",
        )
    _check_declared_size(request, limits)

    async def parse(chunks: AsyncGenerator[bytes, None]) -> FormData:
        parser = _InMemoryParser(
            request.headers,
            chunks,
            max_files=files,
            max_fields=MAXIMUM_FIELDS,
            max_part_size=MAXIMUM_FIELD_BYTES,
        )
        return await parser.parse()

    try:
        form = await _in_time(request, limits, parse)
    except (MultiPartException, FormParserError, LookupError) as error:
        # LookupError: the sender chose a character set that there is not
        raise _malformed() from error
    return list(form.multi_items())


async def _in_time(
    request: Request,
    limits: _Limits,
    read: Callable[[AsyncGenerator[bytes, None]], Awaitable[T]],
) -> T:
    """Read a body as it comes, unless it comes too slowly (CWE-400; "slow body")."""
    clock = asyncio.get_running_loop().time
    begun = clock()
    try:
        async with asyncio.timeout_at(begun + min(limits.seconds, GRACE_SECONDS)) as timeout:

            def on_bytes(received: int) -> None:
                if limits.on_bytes is not None:
                    limits.on_bytes(received)
                earned = GRACE_SECONDS + received / SLOWEST_BYTES_PER_SECOND
                timeout.reschedule(begun + min(limits.seconds, earned))

            return await read(_counted(request, limits, on_bytes))
    except TimeoutError as error:
        raise InputRefused("The upload took too long.", code="upload-slow") from error
    except ClientDisconnect as error:
        raise InputRefused("The upload was cut off.", code="upload-cut-off") from error


def _check_declared_size(request: Request, limits: _Limits) -> None:
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limits.body:
        raise _too_large(limits.named)


async def _counted(
    request: Request, limits: _Limits, on_bytes: Callable[[int], None]
) -> AsyncGenerator[bytes, None]:
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > limits.body:
            raise _too_large(limits.named)
        on_bytes(received)
        yield chunk


async def _sorted(
    items: list[tuple[str, UploadFile | str]], maximum_bytes: int
) -> tuple[list[bytes], dict[str, str]]:
    """Return the images and the text fields of a form, one at least and none too large."""
    images: list[bytes] = []
    fields: dict[str, str] = {}
    for name, value in items:
        if isinstance(value, UploadFile):
            if name == "image":
                images.append(await value.read())
            await value.close()
        elif name in fields:
            raise _malformed()
        else:
            fields[name] = value
    if not images or not all(images):
        raise InputRefused(
            "There is no image in the request.",
            action="Send the image as a file part named image.",
            code="upload-without-image",
        )
    if max(len(image) for image in images) > maximum_bytes:
        raise _too_large(maximum_bytes)
    return images, {name: text.strip() for name, text in fields.items() if text.strip()}


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
