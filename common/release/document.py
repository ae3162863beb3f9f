"""What the signed documents of a release share: strict fields, canonical bytes, one refusal."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from common.errors import ReleaseError

MAXIMUM_VERSION = 2**31 - 1

Version = Annotated[int, Field(ge=1, le=MAXIMUM_VERSION)]
FiniteFloat = Annotated[float, Field(allow_inf_nan=False)]


def _whole_seconds_utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(microsecond=0)


Moment = Annotated[AwareDatetime, AfterValidator(_whole_seconds_utc)]


class Part(BaseModel):
    """A document, or a part of one; a field that it does not know is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


def canonical_json(document: BaseModel, *, leave_out: set[str] | None = None) -> bytes:
    """Return sorted keys, no spaces, UTF-8: equal documents give equal bytes."""
    data = document.model_dump(mode="json", exclude=leave_out)
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode()


def malformed(what: str, error: ValidationError) -> ReleaseError:
    """Return the error of a document that breaks the schema; ``what`` begins the sentence."""
    faults = "; ".join(
        f"{'.'.join(str(p) for p in e['loc']) or 'document'}: {e['msg']}"
        for e in error.errors(include_input=False, include_url=False)[:5]
    )
    return ReleaseError(
        f"{what} breaks the schema: {faults}.",
        meaning="It was made by a newer or a faulty coordinator.",
        action="Upgrade this site's Wardround, or ask the coordinator.",
        code="manifest-malformed",
    )
