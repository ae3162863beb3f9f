"""A SuperNode's real Runtime API in this process, with messages put in by hand: no SuperLink."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from flwr.app import ConfigRecord, Context, Message, Metadata, RecordDict
from flwr.app.message.message import make_message
from flwr.common.constant import Status
from flwr.supercore.constant import TaskType
from flwr.supercore.fab import Fab
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.run import Run
from flwr.supernode.main import create_app
from flwr.supernode.nodestate import NodeStateFactory
from flwr.supernode.start_client_internal import _insert_message

from client.settings import SiteSettings
from client.site_folder import create_site_folder
from common.signing import SigningKey
from deploy.ports import free_port

RUN = 7
NODE = 11


def make_site(folder: Path) -> SiteSettings:
    return create_site_folder(
        folder,
        name="north",
        task="dermoscopy",
        plan_keys=[SigningKey.generate().verify_key.pem()],
        policy="",
        settings={"runtime_port": free_port(), "threads": 1},
    )


class RuntimeApi:
    def __init__(self, settings: SiteSettings, bundle: bytes) -> None:
        factory = NodeStateFactory(ObjectStoreFactory())
        self._state = factory.state()
        self._store = factory.objectstore_factory.store()
        self._fab = Fab(hashlib.sha256(bundle).hexdigest(), bundle, {})
        self._prepare()
        secret = (settings.keys / "superexec.secret").read_bytes()
        config = uvicorn.Config(
            create_app(state_factory=factory, superexec_auth_secret=secret),
            host="127.0.0.1",
            port=settings.runtime_port,
            log_level="error",
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive()
            time.sleep(0.01)

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(timeout=10)

    def offer(self, task_type: TaskType) -> None:
        """Let a task wait."""
        task = self._state.create_task(task_type=task_type, run_id=RUN, fab_hash=self._fab.hash_str)
        assert task is not None

    def pending(self) -> int:
        """Count the tasks that nobody has taken."""
        return len(self._state.get_tasks(statuses=[Status.PENDING]))

    def send(self, kind: str) -> None:
        """Let a message wait, as if the SuperLink had just handed it over."""
        content = RecordDict({"config": ConfigRecord({"sent": time.time_ns()})})
        metadata = Metadata(
            run_id=RUN,
            message_id="",
            src_node_id=1,
            dst_node_id=NODE,
            reply_to_message_id="",
            group_id="",
            created_at=time.time(),
            ttl=3600.0,
            message_type=kind,
        )
        message = make_message(metadata, content=content)
        _insert_message(message, self._state, self._store)
        self.offer(TaskType.CLIENT_APP)

    def reply(self, *, timeout: float = 30.0) -> Message | None:
        """Wait for a reply; its content is in the object store, so it is put together here."""
        from flwr.supercore.inflatable.inflatable_utils import pull_and_inflate_object_from_tree

        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            for found in self._state.get_messages_legacy(is_reply=True):
                if found.has_error():
                    return found
                tree = self._store.get_object_tree(found.metadata.message_id)

                def pull(identifier: str) -> bytes:
                    while not (data := self._store.get(identifier)):
                        time.sleep(0.01)
                    return data

                return pull_and_inflate_object_from_tree(
                    tree, pull, lambda _id: None, return_type=Message
                )
            time.sleep(0.01)
        return None

    def _prepare(self) -> None:
        run = Run.create_empty(RUN)
        run.fab_id, run.fab_version = "wardround/wardround-bundle", "1.0.0"
        run.fab_hash = self._fab.hash_str
        context = Context(RUN, NODE, {}, RecordDict(), {})
        self._state.set_node_id(NODE)
        self._state.set_run_series_context(run.series_id, context)
        self._state.store_run(run)
        self._state.store_fab(self._fab)


@contextmanager
def runtime_api(settings: SiteSettings, bundle: bytes = b"no bundle") -> Iterator[RuntimeApi]:
    api = RuntimeApi(settings, bundle)
    try:
        yield api
    finally:
        api.stop()
