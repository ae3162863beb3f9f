"""Keeping the served model's site profile fitted to the site's holdout, in a thread of its own.

A profile (`client.reading.profile`) is fitted before a release that was scored is swapped in, else
while it answers. It is fitted again when the holdout has grown by a tenth, has lost anybody (a
withdrawal leaves no trace in it), or has changed at all and a day has gone by.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import ValidationError

from client.inference.engine import InferenceEngine, ModelHolder
from client.inference.holdout_scores import holdout_digest
from client.reading.profile import SiteProfile, fit_profile
from client.reading.settings import ReadingSettings
from client.releases.alarms import Alarm
from client.releases.served import Between, Interrupted
from client.releases.site_holdout import SiteHoldout
from common.errors import StoreError, WardroundError
from common.folders import write_private

log = logging.getLogger(__name__)

TICK_SECONDS = 60.0
SOON_SECONDS = 1.0
LONGEST = timedelta(days=1)
GROWTH = 1.1
KEPT = 4
STOP_SECONDS = 5.0


class ProfileFiles:
    """Profiles on disk, one a model and head; mode 0600, and deletable at any time.

    Parameters
    ----------
    folder : Path
        Made when one is kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, engine: InferenceEngine) -> SiteProfile | None:
        """Return the profile of an engine; None where there is none, or a damaged one."""
        try:
            return SiteProfile.model_validate_json(self._path(engine).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            log.warning("event=profile-unreadable type=%s", type(error).__name__)
            return None

    def keep(self, engine: InferenceEngine, profile: SiteProfile) -> None:
        """Keep a profile; a disk that refuses costs the time to fit it again."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_private(self._path(engine), profile.model_dump_json().encode())
            files = sorted(self._folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
            for old in files[:-KEPT]:
                old.unlink(missing_ok=True)
        except (OSError, StoreError) as error:
            log.warning("event=profile-not-kept type=%s", type(error).__name__)

    def _path(self, engine: InferenceEngine) -> Path:
        named = "\0".join((engine.digest, engine.head_digest or "", *engine.member_digests))
        return self._folder / f"{hashlib.sha256(named.encode()).hexdigest()[:32]}.json"


class ProfileKeeper:
    """Fits profiles.

    Parameters
    ----------
    holdout : SiteHoldout
        Where scores come from.
    holder : ModelHolder
        Whose engine is looked after.
    settings : ReadingSettings
        The site's.
    files : ProfileFiles
        Where profiles are kept.
    clock : callable, optional
        Returns the present as an aware datetime.
    """

    def __init__(
        self,
        holdout: SiteHoldout,
        holder: ModelHolder,
        settings: ReadingSettings,
        files: ProfileFiles,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._holdout = holdout
        self._holder = holder
        self._settings = settings
        self._files = files
        self._clock = clock
        self._stopping = threading.Event()
        self._alarm: Alarm | None = None
        self._thread = threading.Thread(target=self._run, name="profiles", daemon=True)

    def start(self) -> None:
        """Begin to look after what answers."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; a batch under way may take a moment more, in the background."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)

    def recall(self, engine: InferenceEngine) -> InferenceEngine:
        """Give an engine the profile that was kept for it, if one was; return the engine."""
        kept = self._files.find(engine)
        if kept is not None and kept.is_of(engine, self._settings):
            engine.profile = kept
        return engine

    def prepare(self, engine: InferenceEngine, between: Between) -> None:
        """Fit and keep an engine's profile; raises as `SiteHoldout.scores`.

        Where somebody withdraws meanwhile it is fitted again, without them.
        """
        while True:
            scores = self._holdout.scores(engine, between)
            others = [self._holdout.scores(member, between) for member in engine.members]
            profile = fit_profile(scores, engine, self._settings, others=others)
            self._files.keep(engine, profile)
            if self._holdout.has_all(scores):
                break
        engine.profile = profile

    def refresh(self) -> None:
        """Fit the served engine's profile anew, if it is time."""
        engine = self._holder.current
        if engine is None or not self._is_due(engine):
            return
        try:
            self.prepare(engine, self._between)
        finally:
            self._holdout.prune(engine)

    def alarms(self) -> tuple[Alarm, ...]:
        """Return why the profile could not be fitted, if it could not."""
        alarm = self._alarm
        return () if alarm is None else (alarm,)

    def _is_due(self, engine: InferenceEngine) -> bool:
        profile = engine.profile
        cases = self._holdout.cases(engine)
        if profile is None or not profile.is_of(engine, self._settings):
            return True
        if self._files.find(engine) is None:
            return True  # somebody removed it: a withdrawal does
        if profile.holdout_digest == holdout_digest(cases):
            return False
        patients = len({case.patient for case in cases})
        before = profile.holdout_patients
        return not before < patients < GROWTH * before or self._clock() - profile.made_at > LONGEST

    def _between(self) -> None:
        if self._stopping.is_set():
            raise Interrupted

    def _run(self) -> None:
        while not self._stopping.wait(SOON_SECONDS if self._holder.current is None else 0.0):
            if self._holder.current is not None:
                self._guarded()
                self._wait()

    def _wait(self) -> None:
        """Wait for the next look, or for another engine to look after."""
        served = self._holder.current
        for _ in range(int(TICK_SECONDS / SOON_SECONDS)):
            if self._stopping.wait(SOON_SECONDS) or self._holder.current is not served:
                return

    def _guarded(self) -> None:
        try:
            self.refresh()
        except Interrupted:
            return
        except WardroundError as error:
            self._raise_alarm(error.code, error.line())
        except Exception as error:  # the thread must outlive any one fit
            self._raise_alarm("profile", f"Unexpected trouble ({type(error).__name__}).")
        else:
            self._alarm = None

    def _raise_alarm(self, code: str, said: str) -> None:
        since = self._alarm.since if self._alarm is not None else self._clock()
        message = (
            f"The model could not be fitted to this site's holdout; it answers as it is. {said}"
        )
        self._alarm = Alarm(code, message, since)
        log.error("event=profile-not-fitted code=%s", code)
