"""The site's ONNX graphs: one a network, made once, into which each release's weights are put.

A graph is made from the recipe alone, in a process of its own at the lowest priority, while torch
answers. It holds no weights that matter, may be deleted at any time, and is never believed: a
runtime made of it answers only after it was compared with torch (`client.inference.runtimes`).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import sys
import threading
from importlib import metadata
from pathlib import Path

import onnx
from filelock import FileLock, Timeout
from onnx import numpy_helper

from common.errors import ModelError
from common.recipe import Recipe
from common.update import Tensors

log = logging.getLogger(__name__)

EXPORT_SECONDS = 600.0
FORM = 3
"""Of the exporter's own code: a higher number makes all graphs anew."""
INPUT, OUTPUT, FEATURES = "images", "logits", "features"
"""Names of what goes into a graph and comes out of it."""
WEIGHTS = "network."
"""What stands before a tensor's name in the graph."""
_NICENESS = 19


class GraphStore:
    """Graphs in one folder, which the sites of one machine may share.

    Parameters
    ----------
    folder : Path
        Made where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._starting = threading.Lock()
        self._closed = False

    def find(self, recipe: Recipe) -> Path | None:
        """Return the network's graph, None where it is not made yet."""
        path = self._path(recipe)
        return path if path.is_file() else None

    def make(self, recipe: Recipe, *, seconds: float = EXPORT_SECONDS) -> Path:
        """Return the network's graph, made now if need be; takes many seconds.

        Raises
        ------
        ModelError
            With code ``graph-export``, if there is none after ``seconds``, or the disk failed.
        """
        path = self._path(recipe)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with FileLock(path.with_suffix(".lock"), timeout=seconds):
                if not path.is_file():
                    self._export(recipe, path, seconds)
        except (OSError, Timeout, subprocess.SubprocessError) as error:
            raise _not_made(type(error).__name__) from error
        return path

    def close(self) -> None:
        """End an export that is under way; none begins any more."""
        with self._starting:
            self._closed = True
            if self._process is not None:
                self._process.kill()

    def _path(self, recipe: Recipe) -> Path:
        return self._folder / f"{graph_key(recipe)}.onnx"

    def _export(self, recipe: Recipe, path: Path, seconds: float) -> None:
        command = [sys.executable, "-m", "client.inference.graph_export", "--out", str(path)]
        with self._starting:
            if self._closed:
                raise _not_made("closing")
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        try:
            _least_urgent(self._process.pid)
            self._process.communicate(recipe.model_dump_json().encode(), timeout=seconds)
        finally:
            self._process.kill()  # harmless where it has ended
            self._process.wait()
        if self._process.returncode != 0 or not path.is_file():
            raise _not_made(f"exit {self._process.returncode}")


def graph_key(recipe: Recipe) -> str:
    """Return a name for all recipes that share a graph with this one, on this software."""
    image, model = recipe.image, recipe.model
    parts = {
        "architecture": model.architecture,
        "normalisation": model.normalisation,
        "classes": len(recipe.classes),
        "size": image.size,
        "form": FORM,
        "software": [metadata.version(n) for n in ("torch", "timm", "onnx", "onnxscript")],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def with_weights(graph: Path, tensors: Tensors) -> bytes:
    """Return the graph as ONNX bytes with these weights in it.

    Parameters
    ----------
    graph : Path
        Made by `GraphStore.make`.
    tensors : mapping of str to ndarray
        All of the network's.

    Raises
    ------
    ModelError
        With code ``graph-weights``, if the file is damaged, or a tensor has no place in it, or
        one of another shape.
    """
    try:
        model = onnx.load(os.fspath(graph))
    except Exception as error:  # protobuf raises errors of its own
        raise _no_fit("the file is damaged") from error
    places = {i.name.removeprefix(WEIGHTS): i for i in model.graph.initializer}
    # timm's frozen layers have no count of batches; an ordinary one's is not read when answering.
    for name, array in tensors.items():
        place = places.get(name)
        if place is None:
            if name.endswith("num_batches_tracked"):
                continue
            raise _no_fit(f"it has no place for {name}")
        fresh = numpy_helper.from_array(array, place.name)
        if list(fresh.dims) != list(place.dims) or fresh.data_type != place.data_type:
            raise _no_fit(f"{name} has another shape there")
        place.CopyFrom(fresh)
    return bytes(model.SerializeToString())


def _least_urgent(pid: int) -> None:
    try:
        os.setpriority(os.PRIO_PROCESS, pid, _NICENESS)
    except OSError:  # it has ended
        return


def _not_made(why: str) -> ModelError:
    return ModelError(
        f"The network's ONNX graph could not be made ({why}).",
        meaning="It is run by torch itself, which is slower.",
        action="Look at the disk of the site's cache; restart the service to try again.",
        code="graph-export",
    )


def _no_fit(why: str) -> ModelError:
    return ModelError(
        f"The network's ONNX graph does not fit its weights: {why}.",
        meaning="The network is run by torch itself, which is slower.",
        action="Delete the folder `graphs` of the site's cache; it is made again.",
        code="graph-weights",
    )
