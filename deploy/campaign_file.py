"""A campaign as a TOML file: what ``campaign create`` and ``start`` also take as flags."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.errors import ConfigurationError
from common.plan import Identifier
from common.recipe import AggregationName, AlgorithmName, LocalLayers, RoundsMode

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class CampaignFile(BaseModel):
    """What a campaign is to be; all but the recipe is as the recipe says where it is left out.

    Attributes
    ----------
    recipe : str
        A shipped recipe, or the path of one.
    rounds, quorum, attempts : int, optional
        Training rounds; accepted updates that a round needs; how often it is asked for.
    sites : tuple of str, optional
        Who takes part; every registered site by default.
    epsilon : float, optional
        Each site's for the whole campaign.
    private : bool
        False asks for a study without differential privacy.
    round_deadline_seconds, site_wait_seconds : float, optional
        The longest wait for a site's answer, and for sites to connect.
    mode, buffer_size, site_rounds : optional
        ``buffered`` rounds wait for no site: the model moves after every ``buffer_size`` updates,
        and a site trains ``site_rounds`` times at most (``docs/campaigns.md``).
    aggregation, algorithm, model, image_size, weights : optional
        How updates become one; another timm network; pixels; a safetensors file to start from.
    local_layers : tuple of {"normalisation", "head"}, optional
        Layers that never leave their site (``docs/algorithms.md``).
    protocol : Path, optional
        A protocol that locks the release gate's limits (``docs/release-gate.md``).
    auto_approve : bool
        Whether a candidate that passes the gate is released without a person.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: str
    rounds: Annotated[int, Field(ge=1)] | None = None
    quorum: Annotated[int, Field(ge=1)] | None = None
    attempts: Annotated[int, Field(ge=1, le=100)] | None = None
    sites: tuple[Identifier, ...] | None = None
    epsilon: Positive | None = None
    private: bool = True
    round_deadline_seconds: Positive | None = None
    site_wait_seconds: Positive | None = None
    mode: RoundsMode | None = None
    buffer_size: Annotated[int, Field(ge=1, le=1000)] | None = None
    site_rounds: Annotated[int, Field(ge=1, le=100_000)] | None = None
    aggregation: AggregationName | None = None
    algorithm: AlgorithmName | None = None
    local_layers: LocalLayers | None = None
    model: str | None = None
    image_size: Annotated[int, Field(ge=8)] | None = None
    weights: Path | None = None
    protocol: Path | None = None
    auto_approve: bool = True


def read_campaign(path: Path | None, **flags: object) -> CampaignFile:
    """Read a campaign file; flags that are not None come before what it says.

    Raises
    ------
    ConfigurationError
        With code ``campaign-file``, if it cannot be read or breaks a rule.
    """
    try:
        fields = {} if path is None else tomllib.loads(path.read_text("utf-8"))
        given = {name: value for name, value in flags.items() if value is not None}
        return CampaignFile.model_validate(fields | given)
    except ValidationError as error:
        faults = "; ".join(f"{e['loc'][0] if e['loc'] else ''}: {e['msg']}" for e in error.errors())
        raise ConfigurationError(
            f"The campaign breaks a rule: {faults}.",
            action="Give --recipe or --file; docs/campaigns.md names the fields.",
            code="campaign-file",
        ) from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(
            f"{path} cannot be read as TOML ({error}).",
            action="docs/campaigns.md has an example.",
            code="campaign-file",
        ) from error
