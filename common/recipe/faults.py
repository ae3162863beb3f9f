"""What is wrong with a recipe, in words that name the field."""

from __future__ import annotations

from pydantic import ValidationError

from common.errors import RecipeError


def recipe_error(error: ValidationError, origin: str) -> RecipeError:
    """Return the error of a recipe that breaks rules; ``origin`` says where it came from."""
    faults = "; ".join(
        f"{'.'.join(str(p) for p in e['loc']) or 'recipe'}: {e['msg']}" for e in error.errors()
    )
    return RecipeError(f"{origin} breaks a rule: {faults}.", action="Correct the field and retry.")
