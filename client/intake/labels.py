"""From a label as a source writes it to a class of the recipe; never by guessing."""

from __future__ import annotations

from collections.abc import Mapping

from common.errors import CaseRefused, InputRefused
from common.recipe import Recipe

_SHOWN_CHARACTERS = 40


class LabelReader:
    """Exact class names, then case-insensitive ones; aliases and numbers only as told.

    Parameters
    ----------
    recipe : Recipe
    aliases : mapping of str to str
        Source label to class; compared without regard to case.
    class_order : sequence of str
        Meaning of 0, 1, ….

    Raises
    ------
    InputRefused
        ``label-alias`` if an alias or the order names no class of the recipe.
    """

    def __init__(
        self, recipe: Recipe, aliases: Mapping[str, str], class_order: tuple[str, ...]
    ) -> None:
        self._recipe = recipe
        self._classes = _folded((*recipe.optional_classes, *recipe.classes))
        self._aliases = {
            name.strip().casefold(): self._target(label) for name, label in aliases.items()
        }
        self._order = tuple(self._target(label) for label in class_order)

    def read(self, text: str | None) -> str:
        """Return the class of a label.

        Raises
        ------
        CaseRefused
            ``label-missing``, ``label-unknown``, or ``label-optional`` for a class that the
            recipe leaves out unless it is added.
        """
        name = (text or "").strip()
        if not name:
            raise CaseRefused("The row has no label.", code="label-missing")
        label = name if name in self._recipe.classes else self._find(name)
        if label is None:
            raise CaseRefused(
                f"The label {name[:_SHOWN_CHARACTERS]!r} is no class of {self._recipe.name}.",
                action=f"Its classes are {', '.join(self._recipe.classes)}; map another name with "
                "--label-alias NAME=CLASS.",
                code="label-unknown",
            )
        if label not in self._recipe.classes:
            raise CaseRefused(
                f"The class {label!r} is left out by {self._recipe.name}.",
                action="Add it to the recipe's classes to use it.",
                code="label-optional",
            )
        return label

    def _find(self, name: str) -> str | None:
        folded = name.casefold()
        if folded in self._aliases:
            return self._aliases[folded]
        if folded in self._classes:
            return self._classes[folded]
        number = name.isascii() and name.isdecimal() and len(name) <= 4
        if number and int(name) < len(self._order):
            return self._order[int(name)]
        return None

    def _target(self, label: str) -> str:
        found = self._classes.get(label.strip().casefold())
        if found is None:
            raise InputRefused(
                f"{label!r} is no class of {self._recipe.name}.",
                action=f"Use {', '.join((*self._recipe.classes, *self._recipe.optional_classes))}.",
                code="label-alias",
            )
        return found


def _folded(classes: tuple[str, ...]) -> dict[str, str]:
    """Map names without case to classes, except where two classes differ in case only."""
    folded: dict[str, str] = {}
    twice: set[str] = set()
    for name in classes:
        key = name.casefold()
        if key in folded and folded[key] != name:
            twice.add(key)
        folded[key] = name
    return {key: name for key, name in folded.items() if key not in twice}
