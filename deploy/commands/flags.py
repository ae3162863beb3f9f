"""Flags that many commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Site = Annotated[
    Path, typer.Option("--site", envvar="WARDROUND_SITE_FOLDER", help="The site's folder.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
