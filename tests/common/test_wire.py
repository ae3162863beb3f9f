import json
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from common import wire
from common.errors import PlanRefused, UpdateRefused
from common.plan import SignedPlan
from common.records import Refusal, SiteReply
from common.signing import SigningKey
from common.update import ModelUpdate
from common.wire import framing
from tests.fakes import FakeSite, first_model, make_receipt, rebuilt
from tests.plans import make_plan

KEY = SigningKey.generate()
PAYLOAD = b'{"exact": "bytes"}'
SIGNED = SignedPlan(PAYLOAD, KEY.sign(PAYLOAD))
TENSORS = {
    "weight": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    "scalar": np.array(3, dtype=np.int64),
    "empty": np.zeros((0, 4), dtype=np.float32),
    "half": np.ones(3, dtype=np.float16),
}


def honest_reply() -> SiteReply:
    plan = make_plan(base=first_model())
    return FakeSite("north").honest(plan, first_model())


def resent(records: RecordDict) -> RecordDict:
    """What arrives after Flower has taken the records apart and put them together."""
    copy = RecordDict()
    for key, record in records.items():
        kind = type(record)
        contents, children = record.deflate(), {}
        if isinstance(record, ArrayRecord):
            for identifier, child in record.children.items():
                chunks = dict(child.children)
                children[identifier] = Array.inflate(child.deflate(), chunks)
        copy[key] = kind.inflate(contents, children) if children else kind.inflate(contents)
    return copy


def test_a_request_arrives_as_it_was_sent() -> None:
    signed, tensors = wire.records_to_request(resent(wire.request_to_records(SIGNED, TENSORS)))
    assert signed == SIGNED
    assert tensors.keys() == TENSORS.keys()
    for name, array in TENSORS.items():
        assert tensors[name].dtype == array.dtype
        assert tensors[name].shape == array.shape
        np.testing.assert_array_equal(tensors[name], array)
        assert tensors[name].flags.writeable


def test_tensors_packed_once_serve_many_requests() -> None:
    packed = wire.pack_tensors(TENSORS)
    _, tensors = wire.records_to_request(wire.request_to_records(SIGNED, packed))
    np.testing.assert_array_equal(tensors["weight"], TENSORS["weight"])


def test_a_network_is_one_array_on_the_wire() -> None:
    many = {f"layer-{i}": np.ones(10, dtype=np.float32) for i in range(360)}
    packed = wire.pack_tensors(many)
    assert len(packed) == 1


def test_a_reply_arrives_as_it_was_sent() -> None:
    reply = honest_reply()
    back = wire.records_to_reply(resent(wire.reply_to_records(reply)))
    assert (back.site, back.receipt, back.evaluation) == (
        reply.site, reply.receipt, reply.evaluation,
    )  # fmt: skip
    assert back.update is not None
    assert reply.update is not None
    assert back.update.digest == reply.update.digest


def test_a_refusal_arrives() -> None:
    reply = SiteReply("north", refusal=Refusal(code="budget-spent"))
    assert wire.records_to_reply(wire.reply_to_records(reply)) == reply


def test_a_description_arrives() -> None:
    wire.records_to_query(wire.describe_request())
    described = wire.SiteDescription(site="north", software="0.1.0")
    assert wire.records_to_description(wire.description_to_records(described)) == described


def test_an_update_unlike_its_receipt_is_refused() -> None:
    reply = honest_reply()
    assert reply.update is not None
    other = {n: a + np.float32(1) for n, a in reply.update.tensors.items()}
    records = wire.reply_to_records(replace(reply, update=replace(reply.update, tensors=other)))
    with pytest.raises(UpdateRefused) as caught:
        wire.records_to_reply(records)
    assert caught.value.code == "update-digest"


def test_an_update_bound_elsewhere_than_its_receipt_is_refused() -> None:
    reply = honest_reply()
    assert reply.update is not None
    bound = replace(reply.update.binding, round=2)
    update = ModelUpdate(bound, reply.update.tensors)
    assert reply.receipt is not None
    receipt = reply.receipt.model_copy(update={"update_digest": update.digest})
    with pytest.raises(ValueError, match="bound"):
        wire.reply_to_records(replace(reply, update=update, receipt=receipt))


def test_updates_of_other_dtypes_are_refused() -> None:
    reply = honest_reply()
    assert reply.update is not None
    wide = {n: a.astype(np.float64) for n, a in reply.update.tensors.items()}
    with pytest.raises(UpdateRefused):
        wire.records_to_reply(rebuilt(reply, wide))  # type: ignore[arg-type]


def header_of(records: RecordDict) -> dict[str, object]:
    record = records["wardround.header"]
    assert isinstance(record, ConfigRecord)
    data = record["json"]
    assert isinstance(data, bytes)
    loaded: dict[str, object] = json.loads(data)
    return loaded


def with_header(records: RecordDict, header: object) -> RecordDict:
    copy = records.copy()
    copy["wardround.header"] = ConfigRecord({"json": json.dumps(header).encode()})
    return copy


@pytest.mark.parametrize(
    "changes",
    [
        {"refusal": {"code": "x"}},
        {"receipt": None},
        {"site": "south"},
        {"site": "../north"},
        {"binding": None},
        {"refusal": {"code": "Patient Jane Doe"}, "receipt": None, "binding": None},
        {"evaluation": {"classes": ["a"]}},
        {"surprise": 1},
    ],
)
def test_a_reply_that_contradicts_itself_is_refused(changes: dict[str, object]) -> None:
    records = wire.reply_to_records(honest_reply())
    with pytest.raises(UpdateRefused) as caught:
        wire.records_to_reply(with_header(records, header_of(records) | changes))
    assert caught.value.code == "reply-malformed"


def test_a_refusal_with_tensors_is_refused() -> None:
    records = wire.reply_to_records(SiteReply("north", refusal=Refusal(code="paused")))
    records["wardround.tensors"] = wire.pack_tensors(TENSORS)
    with pytest.raises(UpdateRefused):
        wire.records_to_reply(records)


def test_a_header_too_large_is_refused_before_it_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framing, "MAXIMUM_HEADER_BYTES", 100)
    with pytest.raises(UpdateRefused) as caught:
        wire.records_to_reply(wire.reply_to_records(honest_reply()))
    assert caught.value.code == "reply-too-large"
    with pytest.raises(PlanRefused) as refused:
        wire.records_to_request(wire.request_to_records(SIGNED, TENSORS))
    assert refused.value.code == "request-too-large"


def test_tensors_too_large_or_too_many_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    records = wire.request_to_records(SIGNED, TENSORS)
    monkeypatch.setattr(framing, "MAXIMUM_TENSORS", 3)
    with pytest.raises(PlanRefused) as caught:
        wire.records_to_request(records)
    assert caught.value.code == "request-too-large"
    monkeypatch.setattr(framing, "MAXIMUM_TENSOR_BYTES", 10)
    with pytest.raises(PlanRefused) as caught:
        wire.records_to_request(records)
    assert caught.value.code == "request-too-large"


REPLY = wire.reply_to_records(honest_reply())
REQUEST = wire.request_to_records(SIGNED, TENSORS)


def unpack(records: RecordDict) -> None:
    """Only the two refusals may come out, whatever came in."""
    for read, refusal in (
        (wire.records_to_request, PlanRefused),
        (wire.records_to_query, PlanRefused),
        (wire.records_to_reply, UpdateRefused),
        (wire.records_to_description, UpdateRefused),
    ):
        with suppress(refusal):
            read(records)


config_values = st.one_of(
    st.binary(max_size=200),
    st.text(max_size=20),
    st.integers(-(2**31), 2**31),
    st.floats(),
    st.booleans(),
    st.lists(st.integers(0, 5), max_size=3),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
arrays = st.builds(
    Array,
    dtype=st.sampled_from(["uint8", "float32", "object"]),
    shape=st.tuples(st.integers(0, 10)),
    stype=st.sampled_from(["safetensors", "numpy.ndarray", "pickle"]),
    data=st.binary(max_size=300),
)
records = st.one_of(
    st.dictionaries(st.sampled_from(["json", "other"]), config_values, max_size=2).map(
        ConfigRecord
    ),
    st.dictionaries(st.sampled_from(["safetensors", "other"]), arrays, max_size=2).map(ArrayRecord),
    st.just(MetricRecord({"a": 1})),
)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from(["wardround.header", "wardround.tensors"]), records))
def test_any_records_are_read_or_refused(content: dict[str, object]) -> None:
    unpack(RecordDict(content))  # type: ignore[arg-type]


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_damage_to_a_message_is_read_or_refused(data: st.DataObject) -> None:
    records = data.draw(st.sampled_from([REPLY, REQUEST])).copy()
    array = records["wardround.tensors"]["safetensors"]  # type: ignore[index]
    blob = bytearray(array.data)  # type: ignore[union-attr]
    for _ in range(data.draw(st.integers(1, 4))):
        blob[data.draw(st.integers(0, len(blob) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(blob)))
    spoiled = Array(dtype="uint8", shape=(cut,), stype="safetensors", data=bytes(blob[:cut]))
    records["wardround.tensors"] = ArrayRecord({"safetensors": spoiled})
    unpack(records)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_header_is_read_or_refused(data: st.DataObject) -> None:
    records = data.draw(st.sampled_from([REPLY, REQUEST]))
    header = header_of(records)
    for _ in range(data.draw(st.integers(1, 3))):
        header[data.draw(st.sampled_from([*header, "new"]))] = data.draw(json_values)
    unpack(with_header(records, header))


@pytest.mark.parametrize("field", ["plan", "signature"])
def test_text_that_is_no_base64_is_refused(field: str) -> None:
    for text in ("\x80", "\ud7ff", "a", "a b=="):
        spoiled = with_header(REQUEST, {**header_of(REQUEST), field: text})
        with pytest.raises(PlanRefused) as caught:
            wire.records_to_request(spoiled)
        assert caught.value.code == "request-malformed"


def test_a_receipt_of_an_evaluation_needs_no_update() -> None:
    plan = make_plan(base=first_model(), purpose="evaluate")
    reply = SiteReply("north", receipt=make_receipt("north", plan, None))
    assert wire.records_to_reply(wire.reply_to_records(reply)) == reply
