"""A ClientApp as a site has it installed; it stands in for `client.app`."""

from __future__ import annotations

import os
import time
from pathlib import Path

import torch
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    noise = torch.randn(4).tolist()
    answer = ConfigRecord({"pid": os.getpid(), "parent": os.getppid(), "noise": noise})
    return Message(RecordDict({"answer": answer}), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    raise ValueError("patient 12345 in /data/secret.png")


@app.query()
def query(message: Message, context: Context) -> Message:
    Path(os.environ["WARDROUND_SITE_FOLDER"], "busy").write_text(str(os.getpid()))
    time.sleep(600)
    raise AssertionError
