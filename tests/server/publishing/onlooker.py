"""A TUF client that looks on while a coordinator publishes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from safetensors.numpy import load
from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import FetcherInterface, Updater

from common.release import ReleaseManifest, parse_latest, parse_manifest
from common.update import tensors_digest
from tests.releases import TASK, Coordinator


class FolderFetcher(FetcherInterface):
    """A TUF client's network, straight from the repository's folder."""

    def _fetch(self, url: str) -> Iterator[bytes]:
        try:
            yield Path(url).read_bytes()
        except FileNotFoundError as error:
            raise DownloadHTTPError("not found", 404) from error


class Onlooker:
    """A TUF client that keeps its state between looks."""

    def __init__(self, coordinator: Coordinator, folder: Path) -> None:
        self._coordinator = coordinator
        self._folder = folder
        (folder / "files").mkdir(parents=True)

    def newest(self, task: str = TASK) -> ReleaseManifest | None:
        """Pull and verify everything, as a site does; raises whatever TUF raises."""
        releases = self._coordinator.settings.releases
        updater = Updater(
            str(self._folder),
            f"{releases}/metadata/",
            str(self._folder / "files"),
            f"{releases}/targets/",
            fetcher=FolderFetcher(),
            bootstrap=(releases / "metadata" / "1.root.json").read_bytes(),
        )
        updater.refresh()
        pointer = updater.get_targetinfo(f"latest-{task}.json")
        if pointer is None:
            return None
        version = parse_latest(Path(updater.download_target(pointer)).read_bytes()).version
        info = updater.get_targetinfo(f"release-{version}.json")
        assert info is not None
        manifest = parse_manifest(Path(updater.download_target(info)).read_bytes())
        model = updater.get_targetinfo(manifest.file.name)
        assert model is not None
        tensors = load(Path(updater.download_target(model)).read_bytes())
        assert tensors_digest(tensors) == manifest.model_digest
        assert (manifest.version, manifest.task) == (version, task)
        return manifest
