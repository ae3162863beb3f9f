"""`wardround coordinator gateway`: nginx's configuration, rendered and checked."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict
from rich.console import Console

from deploy.commands.flags import AsJson, Folder
from deploy.console import emit


class RenderedGateway(BaseModel):
    """Where the configuration is; ``checked`` is False where nginx is not installed."""

    model_config = ConfigDict(frozen=True)

    configuration: Path
    listens_on: str
    checked: bool
    reloaded: bool


def gateway(
    folder: Folder,
    as_json: AsJson = False,
) -> None:
    """Write the gateway's nginx configuration, check it, and reload a gateway that runs."""
    from common.errors import ConfigurationError
    from deploy.gateway import configuration
    from server.settings import CoordinatorSettings

    settings = CoordinatorSettings.find(folder)
    path = configuration.render(settings)
    checked = True
    try:
        configuration.check(settings)
    except ConfigurationError:
        checked = False
    done = RenderedGateway(
        configuration=path,
        listens_on=f"{settings.gateway_host}:{settings.gateway_port}",
        checked=checked,
        reloaded=configuration.reload(settings),
    )

    def show(console: Console) -> None:
        console.print(f"{path} listens on {done.listens_on}.", soft_wrap=True)
        console.print(f"Start it: nginx -c {path} -g 'daemon off;'", soft_wrap=True)
        if not checked:
            console.print("[yellow]nginx is not installed here: it was not checked.[/]")

    emit(done, as_json=as_json, show=show)
