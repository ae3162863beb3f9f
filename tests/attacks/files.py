"""Attacks by files: what an import or an upload is given."""

from __future__ import annotations

import asyncio
import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from fastapi import Request
from PIL import Image

from client.api import uploads
from client.cases.store import CaseStore
from client.intake import npz_source
from client.intake.importer import import_cases
from client.intake.npz_source import read_npz
from client.intake.source import ImportSource
from client.site_recipes import own_recipe
from common import imaging
from common.errors import InputRefused, PlanRefused, WardroundError
from common.imaging import ImageLimits, decode
from common.plan import verify_plan
from common.recipe import Recipe, load_recipe
from common.release import ReleaseManifest, parse_manifest
from tests.attacks.attack import Attack, Finding
from tests.attacks.hospital import Hospital
from tests.client.rounds import KEY, TOY, make_plan, signed
from tests.client.stores import TASK, open_store, picture
from tests.releases import draft

RECIPE = load_recipe(TASK)


def path_traversal(folder: Path) -> Finding:
    """Rows of a labels CSV that name files elsewhere on the hospital's disk."""
    data = folder / "data"
    data.mkdir()
    secret = folder / "secret.png"
    secret.write_bytes(picture(1))
    (data / "link.png").symlink_to(secret)
    rows = ("../secret.png", str(secret), "link.png")
    text = "file,label\n" + "".join(f"{row},nv\n" for row in rows)
    (data / "labels.csv").write_text(text)
    store: CaseStore = open_store(folder / "site")
    try:
        summary = import_cases(store, RECIPE, ImportSource(data))
    finally:
        store.close()
    codes = sorted({row.code for row in summary.refused})
    return Finding(summary.kept > 0, f"{summary.refused_count} of {len(rows)} refused: {codes}")


def leave_the_folder(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Path, "is_relative_to", lambda *_: True)


def plan_traversal(folder: Path) -> Finding:
    """A signed plan whose recipe's name leads out of the site's folder of recipes."""
    hospital = Hospital.build(folder)
    evil = TOY.model_copy(update={"name": "../../outside"})
    hospital.settings.recipes.mkdir(exist_ok=True)
    outside = hospital.settings.recipes / "../../outside.toml"
    outside.write_text(evil.toml().replace(evil.name, "outside"))
    sent = signed(make_plan(recipe=evil))
    try:
        plan = verify_plan(sent, [KEY.verify_key], now=make_plan().issued_at)
    except PlanRefused as error:
        return Finding(False, f"refused: {error.code}")
    try:
        own_recipe(hospital.settings, plan.recipe.name)
    except WardroundError as error:
        return Finding(True, f"a file outside was read: {error.code}")
    return Finding(False, "nothing was read")


def take_any_plan(patch: pytest.MonkeyPatch) -> None:
    from common import plan as plan_module

    def unchecked(_signed: object, _keys: object, *, now: float) -> object:
        evil = Recipe.model_construct(name="../../outside")
        return plan_module.RoundPlan.model_construct(recipe=evil)

    patch.setitem(globals(), "verify_plan", unchecked)


def target_traversal(_folder: Path) -> Finding:
    """A manifest, signed by a coordinator gone bad, whose model lies elsewhere on the site."""
    honest = _manifest()
    evil = honest.replace(b'"name":"model-', b'"name":"../../../policy-')
    assert evil != honest
    try:
        manifest = parse_manifest(evil)
    except WardroundError as error:
        return Finding(False, f"refused: {error.code}")
    return Finding(".." in manifest.file.name, "the name was believed")


def _manifest() -> bytes:
    from common.release import ModelFile, model_target

    made = draft(1)
    file = ModelFile(name=model_target(made.model_digest), sha256="0" * 64, bytes=1)
    fields = {name: getattr(made, name) for name in type(made).model_fields}
    return ReleaseManifest(version=1, file=file, **fields).to_json()


def believe_target_names(patch: pytest.MonkeyPatch) -> None:
    import json

    def unchecked(_class: type[ReleaseManifest], data: bytes) -> ReleaseManifest:
        from common.release import ModelFile

        return ReleaseManifest.model_construct(file=ModelFile(**json.loads(data)["file"]))

    patch.setattr(ReleaseManifest, "model_validate_json", classmethod(unchecked))


def zip_bomb(folder: Path) -> Finding:
    """An npz of 60 kB whose labels are 60 million."""
    path, count = folder / "bomb.npz", 60_000_000
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, shape, body in (
            ("train_images", (count, 28, 28), 0),
            ("train_labels", (count,), count),
        ):
            with archive.open(f"{name}.npy", "w") as stream:
                header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(stream, header)
                for _ in range(body // 1_000_000):
                    stream.write(bytes(1_000_000))
    size = path.stat().st_size
    try:
        read_npz(ImportSource(path, class_order=RECIPE.classes))
    except InputRefused as error:
        return Finding(False, f"refused: {error.code}", f"{size // 1000} kB on disk")
    return Finding(True, "60 MB were unpacked", f"{size // 1000} kB on disk")


def unpack_everything(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(npz_source, "_MAXIMUM_LABELS", 10**12)


def pixel_bomb(_folder: Path) -> Finding:
    """A PNG of 2 kB that unpacks to far more; a hundredth of the shipped limit, to be cheap."""
    side, limits = 1500, ImageLimits(pixels=640_000)
    rows = zlib.compress(bytes(1 + (side + 7) // 8) * side, 9)
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b""))
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in parts
    )
    try:
        pixels = decode(data, limits=limits)
    except InputRefused as error:
        return Finding(False, f"refused: {error.code}", f"{len(data)} bytes")
    return Finding(True, f"{pixels.nbytes // 1000} kB were unpacked", f"{len(data)} bytes")


def unpack_every_image(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(imaging, "_check_size", lambda *_: None)


def endless_upload(_folder: Path) -> Finding:
    """A body without a declared length that goes on and on."""
    taken = 0
    head = b'--e\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'

    def chunks() -> Iterator[bytes]:
        nonlocal taken
        yield head
        for _ in range(500):
            taken += 1
            yield bytes(10_000)

    code = asyncio.run(_upload(chunks()))
    return Finding(taken == 500, f"{taken * 10} kB read of 5,000, 100 allowed; {code}")


async def _upload(chunks: Iterator[bytes]) -> str:
    async def receive() -> dict[str, object]:
        chunk = next(chunks, None)
        return {"type": "http.request", "body": chunk or b"", "more_body": chunk is not None}

    headers = [(b"content-type", b"multipart/form-data; boundary=e")]
    request = Request({"type": "http", "method": "POST", "headers": headers}, receive)
    try:
        await uploads.read_upload(request, maximum_bytes=100_000)
    except InputRefused as error:
        return f"refused: {error.code}"
    return "taken"


def read_to_the_end(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(uploads, "_counted", lambda request, *_: request.stream())


def image_metadata(folder: Path) -> Finding:
    """The patient's name in a PNG's text and in a JPEG's EXIF block, on the case store's disk."""
    name = "Jane-Planted-Doe"
    store = open_store(folder / "site")
    try:
        for number, data in enumerate(_named_images(name)):
            store.add(data, task=TASK, patient_id=f"p{number}", label="nv", source="test")
    finally:
        store.close()
    found = _holding(folder / "site", name)
    return Finding(bool(found), f"the name is in {len(found)} files of the site")


def _named_images(name: str) -> Iterator[bytes]:
    from PIL.PngImagePlugin import PngInfo

    image = Image.open(io.BytesIO(picture(1)))
    note = PngInfo()
    note.add_text("PatientName", name)
    stream = io.BytesIO()
    image.save(stream, "PNG", pnginfo=note)
    yield stream.getvalue()
    exif = Image.Exif()
    exif[0x010E] = name  # ImageDescription
    stream = io.BytesIO()
    Image.open(io.BytesIO(picture(2))).save(stream, "JPEG", exif=exif, comment=name.encode())
    yield stream.getvalue()


def _holding(folder: Path, text: str) -> list[Path]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return [path for path in files if text.encode() in path.read_bytes()]


def keep_metadata(patch: pytest.MonkeyPatch) -> None:
    from client.cases import accepted_image

    def whole(data: bytes, *, limits: ImageLimits) -> imaging.AnonymousImage:
        return imaging.AnonymousImage(data, decode(data, limits=limits))

    patch.setattr(accepted_image, "anonymise", whole)


def patient_numbers(folder: Path) -> Finding:
    """The hospital's patient numbers, looked for in everything that the site writes."""
    number = "MRN-90125-planted"
    store = open_store(folder / "site")
    try:
        store.add(picture(1), task=TASK, patient_id=number, label="nv", source="test")
    finally:
        store.close()
    found = _holding(folder / "site", number)
    return Finding(bool(found), f"the number is in {len(found)} files of the site")


def keep_numbers(patch: pytest.MonkeyPatch) -> None:
    from client.cases.pseudonyms import Pseudonyms

    patch.setattr(Pseudonyms, "patient", lambda _self, patient_id: patient_id)


def _row(
    name: str,
    what: str,
    defence: str,
    act: Callable[[Path], Finding],
    off: Callable[[pytest.MonkeyPatch], None],
) -> Attack:
    return Attack(name, "patient-data snooper", what, defence, act, off)


ATTACKS = (
    _row(
        "import-path-traversal",
        "a CSV that names files elsewhere",
        "paths stay below the data folder",
        path_traversal,
        leave_the_folder,
    ),
    Attack(
        "plan-path-traversal",
        "malicious coordinator",
        "a recipe's name that is a path",
        "identifiers are letters, digits, hyphens",
        plan_traversal,
        take_any_plan,
    ),
    Attack(
        "release-path-traversal",
        "malicious coordinator",
        "a model's name that is a path",
        "the name follows from the digest",
        target_traversal,
        believe_target_names,
    ),
    _row(
        "zip-bomb",
        "an npz that unpacks a thousandfold",
        "limits before anything is unpacked",
        zip_bomb,
        unpack_everything,
    ),
    _row(
        "pixel-bomb",
        "an image that unpacks a thousandfold",
        "the header's size is checked first",
        pixel_bomb,
        unpack_every_image,
    ),
    _row(
        "oversized-upload",
        "an upload without end",
        "reading stops at the limit",
        endless_upload,
        read_to_the_end,
    ),
    _row(
        "image-metadata",
        "names in PNG text, EXIF and comments",
        "images are stripped before they are kept",
        image_metadata,
        keep_metadata,
    ),
    _row(
        "patient-numbers",
        "patient numbers on the site's disk",
        "keyed pseudonyms",
        patient_numbers,
        keep_numbers,
    ),
)
