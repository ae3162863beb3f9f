"""ADR 0008 stands on these findings about Flower; where one fails, look at Flower again."""

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, RecordDict
from flwr.client.mod.secure_aggregation.secaggplus_mod import SecAggPlusState, _unmask
from flwr.common.secure_aggregation.secaggplus_constants import Key
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen
from flwr.server.workflow import SecAggPlusWorkflow


def test_a_site_hands_both_secrets_of_a_node_to_a_server_that_lies() -> None:
    """With the shares of both, the private mask and the pairwise masks of one update come off."""
    state = SecAggPlusState(threshold=2)
    state.rd_seed_share_dict = {1: b"mask-of-1", 2: b"mask-of-2"}
    state.sk1_share_dict = {1: b"key-of-1", 2: b"key-of-2"}
    asked = ConfigRecord({Key.ACTIVE_NODE_ID_LIST: [1, 2], Key.DEAD_NODE_ID_LIST: [2]})
    answer = _unmask(state, asked)
    assert answer[Key.NODE_ID_LIST] == [1, 2, 2]
    assert answer[Key.SHARE_LIST] == [b"mask-of-1", b"mask-of-2", b"key-of-2"]


def test_masks_have_32_bits_of_seed() -> None:
    seed = bytes(range(32))
    words = [seed[i : i + 4] for i in range(0, 32, 4)]
    other = b"".join(reversed(words))
    assert seed != other
    masks = [pseudo_rand_gen(s, 2**32, [(1000,)])[0] for s in (seed, other)]
    np.testing.assert_array_equal(masks[0], masks[1])


def test_the_workflow_does_not_run_on_the_message_api() -> None:
    context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})
    workflow = SecAggPlusWorkflow(num_shares=4, reconstruction_threshold=2)
    with pytest.raises(TypeError, match="LegacyContext"):
        workflow(None, context)  # type: ignore[arg-type]  # refused before the grid is looked at
