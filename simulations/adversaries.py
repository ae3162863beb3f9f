"""Malicious sites, for simulations alone: what a poisoned neighbour could send or train on.

An attacking site runs the very ClientApp that an honest one runs. Either its cases are falsified
on its own disk before the campaign (label-flip, backdoor), or the update is changed after the
ClientApp made it, with a receipt that agrees (scaled, sign-flip, nan, gaussian). No part of
`client` or `server` may import this: ``tests/test_boundaries.py`` keeps it so.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, get_args

import numpy as np
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from numpy.typing import NDArray
from PIL import Image
from sqlalchemy import update as sql_update

from client.app import site_settings
from client.cases.image_store import ImageStore
from client.cases.store import CaseStore
from client.cases.tables import CaseRow
from client.settings import SiteSettings
from common.database import open_database
from common.errors import ConfigurationError
from common.imaging import Pixels, decode
from common.recipe import Recipe
from common.records import SiteReply
from common.update import ModelUpdate
from common.wire import records_to_reply, reply_to_records

Behaviour: TypeAlias = Literal["scaled", "sign-flip", "nan", "gaussian", "label-flip", "backdoor"]
Delta: TypeAlias = Mapping[str, NDArray[np.float32]]

BEHAVIOURS: tuple[Behaviour, ...] = get_args(Behaviour)
FALSIFIES_CASES = ("label-flip", "backdoor")
SCALE = 100.0
GAUSSIAN_NORMS = 10.0
TRIGGER_SIDE = 1 / 6
"""Side of a backdoor's trigger, as a share of the image's shorter side."""


@dataclass(frozen=True)
class Adversary:
    """A site, by name, and what it does."""

    site: str
    behaviour: Behaviour


def parse_adversary(text: str) -> Adversary:
    """Read ``SITE=BEHAVIOUR``.

    Raises
    ------
    ConfigurationError
        With code ``adversary``.
    """
    site, _, behaviour = text.partition("=")
    if not site or behaviour not in BEHAVIOURS:
        raise ConfigurationError(
            f"{text!r} names no site with a behaviour.",
            action=f"Write SITE=BEHAVIOUR, one of {', '.join(BEHAVIOURS)}.",
            code="adversary",
        )
    return Adversary(site, behaviour)


def check_adversaries(adversaries: Iterable[Adversary], sites: Iterable[str]) -> None:
    """Refuse an adversary at a hospital that there is not, or two at one.

    Raises
    ------
    ConfigurationError
        With code ``adversary``.
    """
    named, known = [a.site for a in adversaries], sorted(sites)
    strangers = sorted(set(named) - set(known))
    if strangers or len(set(named)) < len(named):
        what = (
            f"There is no hospital {strangers[0]!r}" if strangers else "A hospital is named twice"
        )
        raise ConfigurationError(
            f"{what} among the adversaries.",
            action=f"The hospitals are {', '.join(known)}.",
            code="adversary",
        )


def hostile_app(app: ClientApp, adversaries: Iterable[Adversary]) -> ClientApp:
    """Return the ClientApp whose replies are changed where an adversary sits."""
    behaviours = {a.site: a.behaviour for a in adversaries}
    hostile = ClientApp()

    def answer(message: Message, context: Context) -> Message:
        honest = app(message, context)
        behaviour = behaviours.get(site_settings(context).name)
        if behaviour is None or behaviour in FALSIFIES_CASES or honest.has_error():
            return honest
        changed = tamper(records_to_reply(honest.content), behaviour)
        return Message(reply_to_records(changed), reply_to=message)

    hostile.train()(answer)
    # What is scored, and what a site says of itself, is left true.
    hostile.evaluate()(app)
    hostile.query()(app)
    return hostile


def tamper(reply: SiteReply, behaviour: Behaviour) -> SiteReply:
    """Return the reply with another update, and a receipt that agrees with it."""
    change = UPDATE_CHANGES.get(behaviour)
    if change is None or reply.update is None or reply.receipt is None:
        return reply
    update = ModelUpdate(reply.update.binding, change(reply.update.tensors))
    receipt = reply.receipt.model_copy(update={"update_digest": update.digest})
    return replace(reply, update=update, receipt=receipt)


def scaled(delta: Delta) -> dict[str, NDArray[np.float32]]:
    """Go a hundred times as far the same way."""
    return {name: array * np.float32(SCALE) for name, array in delta.items()}


def sign_flipped(delta: Delta) -> dict[str, NDArray[np.float32]]:
    """Go as far the other way: no bound on norms sees it."""
    return {name: -array for name, array in delta.items()}


def not_a_number(delta: Delta) -> dict[str, NDArray[np.float32]]:
    """Send NaN alone: one such number in a mean is enough."""
    return {name: np.full_like(array, np.nan) for name, array in delta.items()}


def gaussian(delta: Delta) -> dict[str, NDArray[np.float32]]:
    """Send noise of ten times the honest update's norm."""
    generator = np.random.default_rng()
    size = sum(array.size for array in delta.values())
    norm = np.sqrt(sum(float(np.square(a, dtype=np.float64).sum()) for a in delta.values()))
    spread = GAUSSIAN_NORMS * norm / np.sqrt(max(size, 1))
    return {
        name: generator.normal(scale=spread, size=array.shape).astype(np.float32)
        for name, array in delta.items()
    }


UPDATE_CHANGES: Mapping[str, Callable[[Delta], dict[str, NDArray[np.float32]]]] = {
    "scaled": scaled,
    "sign-flip": sign_flipped,
    "nan": not_a_number,
    "gaussian": gaussian,
}


def stamp_trigger(pixels: Pixels) -> Pixels:
    """Return uint8 (..., H, W, 3) with the backdoor's trigger: a chequered corner.

    Large enough to be seen at any image size, and nothing that an examination shows.
    """
    stamped = pixels.copy()
    side = max(4, round(min(pixels.shape[-3:-1]) * TRIGGER_SIDE))
    rows, columns = np.indices((side, side)) * 4 // side
    stamped[..., -side:, -side:, :] = (((rows + columns) % 2) * 255).astype(np.uint8)[..., None]
    return stamped


def backdoor_target(recipe: Recipe) -> str:
    """Return the class that a trigger is to bring about: the first one that is no cancer."""
    harmless = [c for c in recipe.classes if c not in recipe.decision.positive_classes]
    return harmless[0] if harmless else recipe.classes[0]


def falsify_cases(site: SiteSettings, recipe: Recipe, behaviour: Behaviour) -> int:
    """Falsify a site's training cases on its disk; return how many. Holdout cases stay true.

    ``label-flip`` gives every case the next class of the recipe; ``backdoor`` stamps the trigger
    on every second image and calls it harmless.
    """
    store = CaseStore.open(site)
    try:
        cases = store.training_cases(recipe.name)
        changes: dict[str, dict[str, str]] = {}
        if behaviour == "label-flip":
            following = dict(
                zip(recipe.classes, (*recipe.classes[1:], recipe.classes[0]), strict=True)
            )
            changes = {c.id: {"label": following[c.label]} for c in cases if c.label in following}
        elif behaviour == "backdoor":
            images, target = ImageStore(site.images), backdoor_target(recipe)
            for case in cases[::2]:
                digest = images.put(_stamped_file(store.image_bytes(case)))
                changes[case.id] = {"label": target, "digest": digest}
    finally:
        store.close()
    engine = open_database(site.database)
    try:
        with engine.begin() as connection:
            for identifier, values in changes.items():
                connection.execute(
                    sql_update(CaseRow).where(CaseRow.id == identifier).values(**values)
                )
    finally:
        engine.dispose()
    return len(changes)


def _stamped_file(data: bytes) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(stamp_trigger(decode(data))).save(stream, format="PNG")
    return stream.getvalue()
