"""The stock application's ServerApp: FedAvg; it notes when rounds end and what they carry."""

import json
import time
from pathlib import Path

import timm
from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


class Counted:
    """Flower's grid, with the bytes of all arrays in messages counted, both ways."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self.bytes = 0

    def __getattr__(self, name: str) -> object:
        """Do all else as the grid does."""
        return getattr(self._grid, name)

    def send_and_receive(self, messages, *, timeout=None):  # type: ignore[no-untyped-def]  # Flower's signature
        """Send, receive and count."""
        sent = list(messages)
        received = list(self._grid.send_and_receive(sent, timeout=timeout))
        for message in (*sent, *(m for m in received if m.has_content())):
            for record in message.content.array_records.values():
                self.bytes += sum(len(array.data) for array in record.values())
        return received


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds; after each, write when it ended and what it carried."""
    rounds, nodes = int(context.run_config["rounds"]), int(context.run_config["nodes"])
    report = Path(str(context.run_config["report"]))
    while len(list(grid.get_node_ids())) < nodes:
        time.sleep(0.5)
    counted = Counted(grid)
    marks: list[tuple[float, int]] = []

    def mark(number: int, _arrays: ArrayRecord) -> MetricRecord | None:
        marks.append((time.time(), counted.bytes))
        return None

    arrays = ArrayRecord(
        timm.create_model(
            "efficientnet_b0", num_classes=int(context.run_config["classes"])
        ).state_dict()
    )
    strategy = FedAvg(min_train_nodes=nodes, min_evaluate_nodes=nodes, min_available_nodes=nodes)
    strategy.start(
        grid=counted, initial_arrays=arrays, num_rounds=rounds, evaluate_fn=mark, timeout=600
    )
    report.write_text(json.dumps(marks))
