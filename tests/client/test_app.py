import time
from pathlib import Path

import pytest
from flwr.app import Context, Message, Metadata, RecordDict
from flwr.app.message_type import MessageType

from client import app as client_app
from client.app import app
from client.audit import open_site_audit
from client.settings import SiteSettings
from common.audit_chain import verify
from common.audit_entries import Left, PatientWithdrawn
from common.records import SiteReply
from common.update import Tensors
from common.wire import (
    content_of,
    describe_request,
    records_to_description,
    records_to_reply,
    request_to_records,
)
from tests.client.rounds import base_tensors, make_plan, make_site, signed


@pytest.fixture(scope="module")
def base() -> Tensors:
    return base_tensors()


@pytest.fixture
def sites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("alpha", "beta"):
        make_site(tmp_path / "sites" / name, name=name, patients=4, holdout=4, minimum_cell=1)
    monkeypatch.delenv(client_app.SITE_FOLDER, raising=False)
    monkeypatch.setenv(client_app.SITES_FOLDER, str(tmp_path / "sites"))
    monkeypatch.setattr("client.round_handler.ensure_gradients", lambda *a, **k: None)
    return tmp_path / "sites"


def send(records: RecordDict, kind: str, partition: object = 0) -> Message:
    metadata = Metadata(
        run_id=1,
        message_id="1",
        src_node_id=2,
        dst_node_id=1,
        reply_to_message_id="",
        group_id="",
        created_at=time.time(),
        ttl=60.0,
        message_type=kind,
    )
    message = Message(records, metadata=metadata)
    node_config = {} if partition is None else {"partition-id": partition}
    context = Context(
        run_id=1,
        node_id=1,
        node_config=node_config,  # type: ignore[arg-type]
        state=RecordDict(),
        run_config={},
    )
    return app(message, context)


def reply_of(message: Message) -> SiteReply:
    assert not message.has_error()
    return records_to_reply(message.content)


def assert_constant(message: Message) -> None:
    assert message.has_error()
    assert (message.error.code, message.error.reason) == (2, "site-error")


def left(site: Path) -> list[Left]:
    with open_site_audit(SiteSettings.read(site)) as log:
        assert verify(log) == ()
        entries = [line.entry() for line in log.lines(kinds=("left",))]
    return [entry for entry in entries if isinstance(entry, Left)]


def test_training_and_evaluating(sites: Path, base: Tensors) -> None:
    plan = make_plan(base=base, epsilon=8.0)
    answer = send(request_to_records(signed(plan), base), MessageType.TRAIN, 1)
    trained = reply_of(answer)
    assert trained.site == "beta"
    assert trained.refusal is None
    assert trained.update is not None
    assert trained.receipt is not None
    (written,) = left(sites / "beta")
    content = content_of(answer.content)
    assert (written.bytes, written.sha256) == (content.bytes, content.sha256)
    assert written.bytes > sum(array.nbytes for array in trained.update.tensors.values())
    assert written.contents == ("update", "receipt", "evaluation")
    assert written.nonce == plan.nonce
    assert written.update_digest == trained.update.digest
    assert written.epsilon_campaign == trained.receipt.epsilon_campaign
    evaluate = make_plan(base=base, purpose="evaluate")
    evaluated = reply_of(send(request_to_records(signed(evaluate), base), MessageType.EVALUATE))
    assert evaluated.site == "alpha"
    assert evaluated.evaluation is not None


def test_who_are_you(sites: Path) -> None:
    answer = send(describe_request(), MessageType.QUERY, 1)
    assert records_to_description(answer.content).site == "beta"
    assert records_to_description(answer.content).software
    (written,) = left(sites / "beta")
    assert written.contents == ("description",)
    assert written.sha256 == content_of(answer.content).sha256


@pytest.mark.parametrize("kind", [MessageType.TRAIN, MessageType.EVALUATE, MessageType.QUERY])
def test_garbage_is_answered_with_a_code(sites: Path, kind: str) -> None:
    reply = reply_of(send(RecordDict(), kind))
    assert reply.refusal is not None
    assert reply.refusal.code == "request-malformed"
    (written,) = left(sites / "alpha")
    assert (written.contents, written.code, written.nonce) == (
        ("refusal",),
        "request-malformed",
        None,
    )


@pytest.mark.parametrize("kind", [MessageType.TRAIN, MessageType.EVALUATE, MessageType.QUERY])
def test_where_nothing_can_be_written_down_nothing_leaves(
    sites: Path, base: Tensors, kind: str
) -> None:
    settings = SiteSettings.read(sites / "alpha")
    with open_site_audit(settings) as log:
        log.append(PatientWithdrawn(cases=1))
    (settings.data / "audit-head.json").write_text("not what it was")
    records = describe_request()
    if kind != MessageType.QUERY:
        purpose = "train" if kind == MessageType.TRAIN else "evaluate"
        records = request_to_records(signed(make_plan(base=base, purpose=purpose)), base)
    assert_constant(send(records, kind))


def test_what_leaves_is_written_down_before(
    sites: Path, base: Tensors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies between the log and the reply: the log says so, and nothing was sent."""

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(client_app, "Message", die)
    records = request_to_records(signed(make_plan(base=base, evaluate=False)), base)
    with pytest.raises(KeyboardInterrupt):
        send(records, MessageType.TRAIN)
    (written,) = left(sites / "alpha")
    assert written.contents == ("update", "receipt")


@pytest.mark.parametrize("partition", [None, 7, -1, "0"])
@pytest.mark.parametrize("kind", [MessageType.TRAIN, MessageType.QUERY])
def test_without_a_site_there_is_no_audit_log_so_nothing_but_a_constant_leaves(
    sites: Path, base: Tensors, partition: object, kind: str
) -> None:
    records = request_to_records(signed(make_plan(base=base)), base)
    assert_constant(send(records, kind, partition))


def test_a_deployed_site_ignores_the_partition(
    sites: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(client_app.SITE_FOLDER, str(sites / "beta"))
    answer = send(describe_request(), MessageType.QUERY, 0)
    assert records_to_description(answer.content).site == "beta"


def test_no_exception_leaves(sites: Path, base: Tensors, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: SiteSettings) -> None:
        raise RuntimeError("Jane Doe")

    monkeypatch.setattr(client_app, "RoundHandler", fail)
    records = request_to_records(signed(make_plan(base=base)), base)
    message = send(records, MessageType.TRAIN)
    assert reply_of(message).refusal is not None
    assert "Jane" not in str(message.content)
