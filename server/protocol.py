"""The protocol of a campaign: what is to change, and the gate's limits, locked before it starts.

After the predetermined change control plan of the FDA (Marketing Submission Recommendations for a
Predetermined Change Control Plan for AI-Enabled Device Software Functions, December 2024): what
may change, how it is verified and by which acceptance criteria is written down before, so that
nobody chooses the limits once the figures are known.

As TOML::

    [protocol]
    name = "yearly-update"
    version = "1"
    intended_change = "Weights alone, trained on new confirmed cases; the same classes."
    approver = "Head of radiology"

    [limits]
    macro_auroc_floor = 0.8

A limit that the file leaves out is the recipe's: none is lost by being forgotten.
"""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.audit import AuditLog
from common.audit_entries import ProtocolLocked
from common.errors import ConfigurationError
from common.plan import Identifier
from common.recipe import Recipe, ReleaseGateSpec

MAXIMUM_BYTES = 65_536
Text = Annotated[str, Field(min_length=1, max_length=2000)]


class GateProtocol(BaseModel):
    """A protocol, as it is locked into a campaign's settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Identifier
    version: Annotated[str, Field(min_length=1, max_length=32)]
    intended_change: Text
    approver: Text
    limits: ReleaseGateSpec

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the canonical JSON."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


def default_protocol(recipe: Recipe) -> GateProtocol:
    """Return the protocol that a recipe's own ``[release]`` part makes."""
    return GateProtocol(
        name=recipe.name,
        version="recipe",
        intended_change="The weights, trained on the sites' confirmed cases; nothing else.",
        approver="Whoever approves the candidate.",
        limits=recipe.release,
    )


def load_protocol(path: Path, recipe: Recipe) -> GateProtocol:
    """Read a protocol's TOML file; what it does not limit, the recipe does.

    Raises
    ------
    ConfigurationError
        With code ``protocol-unreadable`` or ``protocol-malformed``; the text names the field.
    """
    try:
        data = path.read_bytes()[: MAXIMUM_BYTES + 1]
        text = data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"The protocol {path} cannot be read.",
            action="Give the path of a TOML file.",
            code="protocol-unreadable",
        ) from error
    if len(data) > MAXIMUM_BYTES:
        raise _malformed(path, "it is larger than 64 KiB")
    try:
        document = tomllib.loads(text)
        tables = set(document) == {"protocol", "limits"}
        if not tables or not all(isinstance(part, dict) for part in document.values()):
            raise _malformed(path, "it needs the tables [protocol] and [limits], and no others")
        limits = {**recipe.release.model_dump(), **document["limits"]}
        return GateProtocol.model_validate({**document["protocol"], "limits": limits})
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise _malformed(path, faults) from error
    except tomllib.TOMLDecodeError as error:
        raise _malformed(path, str(error)) from error


def protocol_locked(campaign: str, protocol: GateProtocol) -> ProtocolLocked:
    """Return the audit log's entry of the limits that a new campaign is held to."""
    return ProtocolLocked(campaign=campaign, protocol=protocol.name, digest=protocol.digest)


def locked_digest(log: AuditLog, campaign: str) -> str | None:
    """Return the digest that the audit log holds for a campaign; None if there is none.

    The first one counts: a line that was added later would be a limit that was changed later.
    """
    for line in log.lines(kinds=("protocol-locked",)):
        entry = line.entry()
        if entry.kind == "protocol-locked" and entry.campaign == campaign:
            return entry.digest
    return None


def _malformed(path: Path, faults: str) -> ConfigurationError:
    return ConfigurationError(
        f"The protocol {path} breaks a rule: {faults}.",
        action="Correct the field and retry.",
        code="protocol-malformed",
    )
