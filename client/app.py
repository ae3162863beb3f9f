"""The Flower ClientApp: messages in, messages out; all that goes out passes the outbox.

What is done in between is `RoundHandler`'s. The site's folder comes from the site's own
environment, never from a message: ``WARDROUND_SITE_FOLDER`` where one site runs, or
``WARDROUND_SITES_FOLDER`` in a simulation, whose sorted sub-folders are numbered by Flower's
``partition-id``.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from client.base_models import BaseModels
from client.outbox import Opened, Outbox
from client.round_handler import RoundHandler, refusal_code
from client.settings import SiteSettings
from common.errors import ConfigurationError, WardroundError
from common.tracing import Place, traced
from common.wire import (
    records_to_correction,
    records_to_query,
    records_to_request,
    records_to_step,
)

logger = logging.getLogger(__name__)

SITE_FOLDER = "WARDROUND_SITE_FOLDER"
SITES_FOLDER = "WARDROUND_SITES_FOLDER"
SITE_ERROR = Error(code=2, reason="site-error")
"""All that leaves where the outbox cannot be used: Flower's code for an app that failed."""

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Answer a round's plan."""
    return _answer(message, context, _round)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Answer a plan that only evaluates; what to do stands in the signed plan, not here."""
    return _answer(message, context, _round)


@app.query()
def query(message: Message, context: Context) -> Message:
    """Tell who the site is and what software it runs."""
    return _answer(message, context, _describe)


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


def _answer(
    message: Message,
    context: Context,
    work: Callable[[SiteSettings, Outbox, RecordDict], RecordDict],
) -> Message:
    try:
        settings = site_settings(context)
        with Outbox.open(settings) as outbox:
            return Message(work(settings, outbox, message.content), reply_to=message)
    except Exception as error:  # the edge: no text of an exception leaves the site
        logger.error("message-unanswered reason=%s", _reason(error))
        return Message(SITE_ERROR, reply_to=message)


def _round(settings: SiteSettings, outbox: Outbox, records: RecordDict) -> RecordDict:
    request = Opened.now()
    try:
        signed, arrived = records_to_request(records)
        models = BaseModels(settings)
        base = models.resolve(signed, arrived, records_to_step(records))
        request = outbox.opened(signed, base)
        with traced("site-round", _place(settings, request)) as span:
            reply = RoundHandler(settings).handle(signed, base, records_to_correction(records))
            refused = reply.refusal
            span.ended("refused" if refused else "answered", refused.code if refused else None)
        if reply.receipt is not None and request.valid:  # the handler has checked the digest
            models.keep(reply.receipt.base_digest, base)
    except Exception as error:
        return _refuse(outbox, error, request)
    return outbox.send(reply, request)


def _place(settings: SiteSettings, request: Opened) -> Place | None:
    # Nothing of a plan that the coordinator did not sign gets into a trace.
    plan = request.signed_plan if request.valid else None
    if plan is None:
        return None
    return Place(plan.campaign, plan.round, settings.name, plan.purpose, plan.nonce)


def _describe(_settings: SiteSettings, outbox: Outbox, records: RecordDict) -> RecordDict:
    try:
        records_to_query(records)
    except Exception as error:
        return _refuse(outbox, error, Opened.now())
    return outbox.describe()


def _refuse(outbox: Outbox, error: Exception, request: Opened) -> RecordDict:
    code = refusal_code(error)
    logger.warning("message-refused code=%s reason=%s", code, _reason(error))
    return outbox.refuse(code, request)


def _reason(error: Exception) -> str:
    # Other errors' texts may quote a row or a path, which does not belong in a log.
    return error.line() if isinstance(error, WardroundError) else type(error).__name__
