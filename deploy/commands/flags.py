"""Flags that many commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deploy.account import own_folder

Site = Annotated[
    Path,
    typer.Option(
        "--site",
        envvar="WARDROUND_SITE_FOLDER",
        callback=own_folder,
        help="The site's folder.",
    ),
]
Folder = Annotated[
    Path,
    typer.Option(
        "--folder",
        envvar="WARDROUND_COORDINATOR_FOLDER",
        callback=own_folder,
        help="The federation's or the coordinator's folder.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
