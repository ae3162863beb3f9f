"""What can be known before the demo starts anything: its folder, its network, its data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from client.intake.labels import LabelReader
from client.intake.source import ImportSource, SourceRow
from common.errors import CaseRefused, ConfigurationError, InputRefused, ModelError
from common.recipe import Recipe


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds anything: a federation there would be mixed with the demo's.

    Raises
    ------
    ConfigurationError
        With code ``folder-not-new``.
    """
    if not folder.exists() and not folder.is_symlink():
        return
    if folder.is_dir() and not any(folder.iterdir()):
        return
    raise _not_new(folder)


def make_folder(folder: Path, *, named: bool) -> None:
    """Make the demo's folder; one that nobody named must be made by this demo and no other.

    Raises
    ------
    ConfigurationError
        As `check_folder`.
    """
    try:
        folder.mkdir(parents=True, exist_ok=named)
    except FileExistsError as error:
        raise _not_new(folder) from error


def check_network(recipe: Recipe, weights: Path | None = None) -> None:
    """Build the recipe's network once, with random weights or a file's, and forget it.

    Raises
    ------
    ConfigurationError
        With the code of the `ModelError`, if it cannot be built.
    """
    from common.model import build_model  # imports torch

    try:
        build_model(recipe, pretrained=False, weights=weights)
    except ModelError as error:
        raise ConfigurationError(
            error.what,
            meaning=error.meaning,
            action=error.action or "Choose another --model or --image-size.",
            code=error.code,
        ) from error


def check_data(data: Path) -> None:
    """Refuse data that are not there.

    Raises
    ------
    InputRefused
        With code ``data-missing``.
    """
    if not data.exists():
        raise InputRefused(
            f"There is no {data}.",
            action="Name with --data the folder of your images, or the .npz file.",
            code="data-missing",
        )


def check_rows(name: str, rows: Sequence[SourceRow], source: ImportSource, recipe: Recipe) -> None:
    """Refuse a hospital of whose rows none has both a label of the recipe and an image file.

    It looks no further than the first good row; the import looks at all.

    Raises
    ------
    InputRefused
        With code ``no-cases``; it says what is wrong with most rows.
    """
    labels = LabelReader(recipe, source.aliases, source.class_order)
    faults: Counter[str] = Counter()
    for row in rows:
        try:
            if row.labels is None:
                labels.read(row.label)
            row.load()
        except InputRefused as refusal:
            faults[_reason(refusal)] += 1
        else:
            return
    fault, count = faults.most_common(1)[0] if faults else ("It has no row.", 0)
    raise InputRefused(
        f"No row of {name} can be used.",
        meaning=f"{fault} ({count} of {len(rows)} rows)" if count else fault,
        action="Mend the table, or choose another --recipe.",
        code="no-cases",
    )


def _not_new(folder: Path) -> ConfigurationError:
    return ConfigurationError(
        f"{folder} is no new folder.",
        meaning="The demo would mix its hospitals with what is there; nothing was written.",
        action="Name with --folder one that does not exist yet, or an empty one.",
        code="folder-not-new",
    )


def _reason(refusal: InputRefused) -> str:
    return refusal.line() if isinstance(refusal, CaseRefused) else refusal.what
