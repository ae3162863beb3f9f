"""The one error tree of Wardround.

::

    WardroundError
    ├── ConfigurationError      a settings file, flag or environment variable is wrong
    │   └── RecipeError         a recipe cannot be read, or asks for something unsafe
    ├── InputRefused            something handed to us by a person or a file is not usable
    │   ├── ImageRefused        the bytes are not an image that we accept
    │   └── CaseRefused         a case (label, patient, split) contradicts what is stored
    ├── NotFound                the thing asked for does not exist
    ├── Busy                    more is asked at once than this machine takes on; try again soon
    │   └── TooMany             one caller asks more than its share; it is told when to try again
    ├── PlanRefused             a round plan is unsigned, expired, replayed or against policy
    ├── PrivacyRefused          training would spend what is not there, or a proof is missing
    ├── UpdateRefused           a model update has wrong shapes, is not finite or is bound elsewhere
    ├── ModelError              a network cannot be built, loaded or made DP-trainable
    ├── ReleaseError            a released model cannot be fetched, verified or loaded
    ├── RoundFailed             a round or campaign cannot go on
    ├── StoreError              the database or the disk failed
    └── ProcessError            one of Wardround's processes did not start or died

Domain code raises these; each edge (HTTP, command line, Flower) maps them once, by class.
``code`` is stable and free of site content, so it may leave a site; the texts may not.
"""

from __future__ import annotations

from typing import ClassVar


class WardroundError(Exception):
    """An error that says what happened, what it means and what to do.

    Parameters
    ----------
    what : str
        What happened, one sentence.
    meaning : str, default ""
        What it means for the person who reads it.
    action : str, default ""
        What to do next.
    code : str, optional
        A stable slug narrower than the class's own, such as ``"image-truncated"``.
    """

    default_code: ClassVar[str] = "error"

    def __init__(
        self, what: str, *, meaning: str = "", action: str = "", code: str | None = None
    ) -> None:
        super().__init__(what)
        self.what = what
        self.meaning = meaning
        self.action = action
        self.code = code or self.default_code

    def line(self) -> str:
        """Return the whole error as one line of text."""
        return " ".join(part for part in (self.what, self.meaning, self.action) if part)

    def __str__(self) -> str:
        return self.line()


class ConfigurationError(WardroundError):
    """A settings file, flag or environment variable is wrong."""

    default_code = "configuration"


class RecipeError(ConfigurationError):
    """A recipe cannot be read, or asks for something unsafe."""

    default_code = "recipe"


class InputRefused(WardroundError):
    """Something handed to us by a person or a file is not usable."""

    default_code = "input-refused"


class ImageRefused(InputRefused):
    """The bytes are not an image that we accept."""

    default_code = "image-refused"


class CaseRefused(InputRefused):
    """A case contradicts what is stored, or names an unknown label."""

    default_code = "case-refused"


class NotFound(WardroundError):
    """The thing asked for does not exist."""

    default_code = "not-found"


class Busy(WardroundError):
    """More is asked at once than this machine takes on; the same request may do well later."""

    default_code = "busy"


class TooMany(Busy):
    """A caller asks more than its share; ``retry_seconds`` from now it may do well."""

    default_code = "too-many-requests"

    def __init__(
        self, what: str, *, retry_seconds: float, action: str = "", code: str | None = None
    ) -> None:
        super().__init__(what, action=action, code=code)
        self.retry_seconds = retry_seconds


class PlanRefused(WardroundError):
    """A round plan is unsigned, expired, replayed or against the site's policy."""

    default_code = "plan-refused"


class PrivacyRefused(WardroundError):
    """Training would spend what the site does not have, or its proof is missing."""

    default_code = "privacy-refused"


class UpdateRefused(WardroundError):
    """A model update has wrong shapes, is not finite, or is bound to something else."""

    default_code = "update-refused"


class ModelError(WardroundError):
    """A network cannot be built, loaded or made DP-trainable."""

    default_code = "model"


class ReleaseError(WardroundError):
    """A released model cannot be fetched, verified or loaded."""

    default_code = "release"


class RoundFailed(WardroundError):
    """A round or a campaign cannot go on."""

    default_code = "round-failed"


class StoreError(WardroundError):
    """The database or the disk failed."""

    default_code = "store"


class ProcessError(WardroundError):
    """One of Wardround's processes did not start, or died."""

    default_code = "process"
