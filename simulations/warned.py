"""What a simulation or the demo warns of: said on stderr as it goes, and kept in the report."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from client.intake.summary import ImportSummary
from common.wording import number


class Warned(BaseModel):
    """A warning with its stable code; ``hospital`` is None where it is about all of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hospital: str | None = None
    code: str
    message: str

    def line(self) -> str:
        """Return it as one line."""
        return ": ".join(part for part in (self.hospital, self.code, self.message) if part)


def import_warnings(hospital: str, summary: ImportSummary) -> tuple[Warned, ...]:
    """Return what a hospital's import warned of, under its name."""
    return tuple(
        Warned(hospital=hospital, code=warning.code, message=warning.message)
        for warning in summary.warnings
    )


def shared_ids_warning(count: int) -> tuple[Warned, ...]:
    """Return the warning about patient ids that occur at several hospitals; empty for 0."""
    if not count:
        return ()
    text = (
        f"{number(count, 'patient id')} {'occurs' if count == 1 else 'occur'} at several "
        "hospitals, and each hospital's is taken as a patient of its own. If the ids are the same "
        "people everywhere, one person may be trained on at one hospital and tested on at another."
    )
    return (Warned(code="patient-ids-shared", message=text),)


def random_features_warning(said: str) -> tuple[Warned, ...]:
    """Return the warning of `server.campaigns.random_features`; empty where it says nothing."""
    return (Warned(code="random-features", message=said),) if said else ()
