"""The Flower ClientApp: messages in, messages out, everything between is `RoundHandler`'s.

The site's folder comes from the site's own environment, never from a message:
``WARDROUND_SITE_FOLDER`` where one site runs, or ``WARDROUND_SITES_FOLDER`` in a simulation, whose
sorted sub-folders are numbered by Flower's ``partition-id``.
"""

from __future__ import annotations

import logging
import os
from importlib.metadata import version
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from client.round_handler import RoundHandler, refusal_code
from client.settings import SiteSettings
from common.errors import ConfigurationError, WardroundError
from common.records import Refusal, SiteReply
from common.wire import (
    SiteDescription,
    description_to_records,
    records_to_query,
    records_to_request,
    reply_to_records,
)

logger = logging.getLogger(__name__)

SITE_FOLDER = "WARDROUND_SITE_FOLDER"
SITES_FOLDER = "WARDROUND_SITES_FOLDER"
UNKNOWN_SITE = "unknown"

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Answer a round's plan."""
    return _answer(message, context)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Answer a plan that only evaluates; what to do stands in the signed plan, not here."""
    return _answer(message, context)


@app.query()
def query(message: Message, context: Context) -> Message:
    """Tell who the site is and what software it runs."""
    site = UNKNOWN_SITE
    try:
        site = site_settings(context).name
        records_to_query(message.content)
        description = SiteDescription(site=site, software=version("wardround"))
        return Message(description_to_records(description), reply_to=message)
    except Exception as error:  # the edge: no text of an exception leaves the site
        return _refuse(site, error, message)


def site_settings(context: Context) -> SiteSettings:
    """Find the site whose messages this process answers.

    Raises
    ------
    ConfigurationError
        If neither variable is set, or there is no such site.
    """
    folder = os.environ.get(SITE_FOLDER)
    if folder:
        return SiteSettings.read(Path(folder))
    sites = os.environ.get(SITES_FOLDER)
    partition = context.node_config.get("partition-id")
    if not sites or not isinstance(partition, int):
        raise ConfigurationError(
            f"Neither {SITE_FOLDER} nor {SITES_FOLDER} with a partition-id is set.",
            action="Start the site through `wardround`, or set the variable to its folder.",
        )
    folders = sorted(path for path in Path(sites).iterdir() if (path / "site.toml").is_file())
    if not 0 <= partition < len(folders):
        raise ConfigurationError(
            f"There is no site number {partition} in {sites}.",
            action="Start as many nodes as there are site folders.",
        )
    return SiteSettings.read(folders[partition])


def _answer(message: Message, context: Context) -> Message:
    site = UNKNOWN_SITE
    try:
        settings = site_settings(context)
        site = settings.name
        signed, base = records_to_request(message.content)
        reply = RoundHandler(settings).handle(signed, base)
        return Message(reply_to_records(reply), reply_to=message)
    except Exception as error:  # the edge: no text of an exception leaves the site
        return _refuse(site, error, message)


def _refuse(site: str, error: Exception, message: Message) -> Message:
    code = refusal_code(error)
    known = isinstance(error, WardroundError)
    logger.warning("message-refused code=%s reason=%s", code, error if known else type(error))
    reply = SiteReply(site=site, refusal=Refusal(code=code))
    return Message(reply_to_records(reply), reply_to=message)
