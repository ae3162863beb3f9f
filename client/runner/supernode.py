"""``python -m client.runner.supernode …``: Flower's SuperNode, asking more often while busy.

Takes the arguments of ``flower-supernode``.
"""

from __future__ import annotations

import sys

from flwr.supernode.cli import flower_supernode

from client.runner.flower import quicken_supernode
from client.runner.pace import Pace


def main() -> None:
    """Run the SuperNode until it is stopped."""
    sys.argv[0] = "flower-supernode"
    quicken_supernode(Pace(busy=0.2, idle=3.0))
    flower_supernode()


if __name__ == "__main__":
    main()
