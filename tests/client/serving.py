"""A site that serves, for tests: tiny releases that can be told apart, and the app on a loop."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import uvicorn
from anyio.from_thread import BlockingPortal, start_blocking_portal
from fastapi import FastAPI
from PIL import Image

from client.api.services import Services
from client.main import make_app, server_config
from client.releases.cache import CacheStatus, LocalRelease
from client.releases.watcher import Releases
from client.settings import SiteSettings
from client.site_folder import create_site_folder
from common.evaluation import Metrics
from common.model import build_model, classifier_names, state_tensors, write_safetensors
from common.recipe import Recipe, load_recipe
from common.release import Lineage, ModelFile, ReleaseManifest, ReleaseMetrics, model_target
from common.signing import SigningKey
from common.update import tensors_digest

RECIPE = load_recipe("dermoscopy").with_changes(model="test_resnet", image_size=32)
BASE = "http://127.0.0.1"
LONG = 3600.0


def release(
    folder: Path, version: int, *, favours: str | None = None, recipe: Recipe = RECIPE
) -> LocalRelease:
    """Make a release; ``favours`` makes it answer that class with near certainty."""
    network = build_model(recipe, seed=version)
    tensors = state_tensors(network)
    if favours is not None:
        bias = classifier_names(network)[-1]
        tensors[bias] = np.zeros(len(recipe.classes), np.float32)
        tensors[bias][recipe.classes.index(favours)] = 20.0
    return release_of(folder, version, tensors, recipe=recipe)


def release_of(
    folder: Path,
    version: int,
    tensors: Mapping[str, np.ndarray[Any, Any]],
    *,
    recipe: Recipe = RECIPE,
) -> LocalRelease:
    """Make a release of given weights."""
    digest = tensors_digest(tensors)
    path = folder / f"{version}.safetensors"
    write_safetensors(path, tensors)
    data = path.read_bytes()
    none = (None,) * len(recipe.classes)
    metrics = Metrics(
        classes=recipe.classes,
        count=0,
        macro_auroc=None,
        auroc=none,
        accuracy=None,
        balanced_accuracy=None,
        majority_baseline=None,
        sensitivity=none,
    )
    manifest = ReleaseManifest(
        version=version,
        recipe=recipe,
        model_digest=digest,
        file=ModelFile(
            name=model_target(digest), sha256=hashlib.sha256(data).hexdigest(), bytes=len(data)
        ),
        threshold=recipe.decision.threshold,
        lineage=Lineage(campaign="test", candidate=f"test-{version}", rounds=1),
        metrics=ReleaseMetrics(candidate=metrics),
        created_at=datetime.now(UTC),
    )
    return LocalRelease(manifest, path)


class FakeReleases:
    """A release cache in memory: what is ``published`` becomes current on the next refresh."""

    def __init__(self, current: LocalRelease | None = None) -> None:
        self.published: list[LocalRelease] = []
        self.kept = [] if current is None else [current]
        self.rejected: list[tuple[int, str]] = []
        self.trouble: Exception | None = None
        self.status = CacheStatus(None, None, None, None, "")

    def refresh(self) -> LocalRelease | None:
        if self.trouble is not None:
            raise self.trouble
        refused = {version for version, _ in self.rejected}
        self.kept += [r for r in self.published if r.version not in refused]
        self.published.clear()
        return self.current()

    def moved(self) -> bool:
        return bool(self.published)

    def current(self) -> LocalRelease | None:
        return self.kept[-1] if self.kept else None

    def find(self, version: int) -> LocalRelease | None:
        return next((r for r in self.kept if r.version == version), None)

    def reject(self, version: int, code: str) -> LocalRelease | None:
        self.rejected.append((version, code))
        self.kept = [r for r in self.kept if r.version != version]
        return self.current()


def picture(seed: int = 0, *, size: tuple[int, int] = (48, 40), format: str = "PNG") -> bytes:
    """Return the bytes of a noise picture; each seed is another one."""
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    target = io.BytesIO()
    Image.fromarray(noise).save(target, format)
    return target.getvalue()


def wide_picture(*, size: tuple[int, int] = (2600, 2100)) -> bytes:
    """Return a grey picture as large as a mammogram's, which no screen shows whole."""
    ramp = np.add.outer(np.arange(size[1]), np.arange(size[0])) // 20 % 256
    target = io.BytesIO()
    Image.fromarray(ramp.astype(np.uint8)).save(target, "PNG")
    return target.getvalue()


def site_settings(folder: Path, **fields: object) -> SiteSettings:
    """Make a site folder."""
    always = {"release_poll_seconds": LONG, "threads": 1, "port": 0, "device": "cpu"}
    options = {**always, "access": "open", **fields}
    return create_site_folder(
        folder / "site",
        name="st-elsewhere",
        task=RECIPE.name,
        plan_keys=[SigningKey.generate().verify_key.pem()],
        policy="",
        settings=options,
    )


@dataclass(frozen=True)
class ServedSite:
    """An app whose lifespan runs, called through ASGI on one event loop."""

    app: FastAPI
    portal: BlockingPortal

    @property
    def services(self) -> Services:
        services = self.app.state.services
        assert isinstance(services, Services)
        return services

    def call(self, method: str, path: str, **options: Any) -> httpx.Response:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url=BASE) as client:
                return await client.request(method, path, **options)

        return self.portal.call(send)

    def predict(self, image: bytes, **options: Any) -> httpx.Response:
        return self.call("POST", "/predict", files={"image": ("x.png", image)}, **options)

    def store(self, image: bytes, **fields: str) -> httpx.Response:
        return self.call("POST", "/cases", files={"image": ("x.png", image)}, data=fields)

    @property
    def releases(self) -> FakeReleases:
        releases = self.services.watcher.releases
        assert isinstance(releases, FakeReleases)
        return releases

    def publish(self, published: LocalRelease) -> None:
        """Publish a release, and wait until the watcher has dealt with it."""
        self.releases.published.append(published)
        self.services.watcher.poll()


@contextmanager
def served_site(settings: SiteSettings, releases: Releases) -> Iterator[ServedSite]:
    """Run an app's lifespan; the release that was there is loaded when this yields."""
    app = make_app(settings, releases=releases)
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(app.router.lifespan_context(app)),
    ):
        site = ServedSite(app, portal)
        site.services.watcher.serve_local()
        yield site


@contextmanager
def listening(settings: SiteSettings, app: FastAPI) -> Iterator[str]:
    """Serve an app by a real uvicorn in a thread; yield its URL."""
    config = server_config(settings, app)
    started = threading.Event()

    class Announcing(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            started.set()

    server = Announcing(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert started.wait(30)
        port = server.servers[0].sockets[0].getsockname()[1]
        app.state.services.watcher.serve_local()
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(30)
    assert not thread.is_alive()
