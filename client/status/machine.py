"""What the site runs on: disk, memory, cores, graphics card, versions."""

from __future__ import annotations

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
import torch

from client.status.documents import Disk, Gpu, Level, Machine, Version

LOW_BYTES = 5 * 1024**3
FULL_BYTES = 512 * 1024**2
_PROGRAMS = ("wardround", "torch", "onnxruntime", "flwr", "opacus", "tuf")


def disk_of(folder: Path) -> Disk:
    """Return the room on a folder's file system; OSError where it cannot be asked."""
    usage = shutil.disk_usage(folder)
    level: Level = "good"
    if usage.free < LOW_BYTES:
        level = "bad" if usage.free < FULL_BYTES else "warn"
    return Disk(level=level, free=usage.free, total=usage.total)


def machine(runtime: str | None) -> Machine:
    """Return what computes now."""
    memory = psutil.virtual_memory()
    return Machine(
        cores=os.cpu_count() or 1,
        load=round(os.getloadavg()[0], 2),
        memory_free=memory.available,
        memory_total=memory.total,
        gpu=_gpu(),
        runtime=runtime,
    )


def versions() -> tuple[Version, ...]:
    """Return the versions of what a fault report should name."""
    found = [Version(name="python", version=platform.python_version())]
    for name in _PROGRAMS:
        try:
            found.append(Version(name=name, version=version(name)))
        except PackageNotFoundError:
            continue
    return tuple(found)


def _gpu() -> Gpu | None:
    if not torch.cuda.is_available():
        return None
    free, total = torch.cuda.mem_get_info()
    return Gpu(name=torch.cuda.get_device_name(), free=free, total=total)
