"""Every metric of every video, kept one by one, so that a run that was stopped goes on where it was."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from models.identity import FaceEmbedding
from models.metrics import METRICS
from models.metrics.identity import source_embedding
from models.metrics.results import Collected, Result
from models.metrics.subject import Subject, Tools
from models.video import VideoFile

from ..data.work import Work
from .contenders import Entry
from .making import Maker, sound_of
from .pairs import Pair

log = logging.getLogger(__name__)

# Against itself, and against another's face, the true video says nothing.
NOT_OF_TRUTH = {name for name, metric in METRICS.items() if "reference" in metric.needs} | {"id_retrieve"}
OTHER_BORDER = "the original programs paste along another border than the one that is looked at"
MADE, JUDGED = "made", "judged"


@dataclass(frozen=True)
class Judge:
    """What measures.

    Attributes:
        tools: see there.
        names: metrics.
        about: what identifies the tools' files, as JSON; other tools measure anew.
    """

    tools: Tools
    names: tuple[str, ...]
    about: dict[str, Any] = field(default_factory=dict)


class Item:
    """One system's video of one pair: its folder, what was made, what was measured.

    Args:
        folder: of the whole evaluation.
        entry: the system.
        pair: the pair.
        making: what all videos depend on beside the system's own settings.
    """

    def __init__(self, folder: Path, entry: Entry, pair: Pair, making: dict[str, Any]) -> None:
        self.entry, self.pair = entry, pair
        self.work = Work(folder / "items" / entry.name / pair.name)
        self.key = digest({"system": entry.settings(), "pair": pair.digest(), **making})

    @property
    def video(self) -> Path:
        """The result; of the ground truth the target itself."""
        return self.pair.target if self.entry.contender.is_truth else self.work.path("video.mp4")

    @property
    def made(self) -> dict[str, Any] | None:
        """What making left: {"key", "remarks" or "failed"}; None = not made yet, or by other means."""
        if self.entry.contender.is_truth:
            return {"key": self.key, "remarks": []}
        if not self.work.is_done(MADE) or (found := self.work.result(MADE))["key"] != self.key:
            return None
        return found if "failed" in found or self.video.is_file() else None

    def make(self, maker: Maker) -> None:
        """Make the video, or keep the reason why it cannot be made."""
        result: dict[str, Any] = {"key": self.key}
        self.work.folder.mkdir(parents=True, exist_ok=True)
        try:
            result["remarks"] = maker.make(self.pair, self.video)
        except (ValueError, RuntimeError) as error:
            result["failed"] = str(error)
            log.warning("%s, %s: %s", self.entry.name, self.pair.name, error)
        self.work.finish(MADE, result)

    def judge(self, judge: Judge, source: FaceEmbedding | None) -> None:
        """Measure what is not measured yet; what could not be measured is tried again."""
        done = self._judged(judge)
        names = [name for name in judge.names if name not in self._unfit]
        if self.made is None or "failed" in self.made or all(name in done["results"] for name in names):
            return
        truth = self.entry.contender.is_truth
        with VideoFile(self.video) as video, VideoFile(self.pair.target) as target:
            sound = sound_of(self.pair, target)
            subject = Subject(video, judge.tools, sound, None if truth else target, source)
            done["skipped"] = {}
            for name in names:
                if name in done["results"]:
                    continue
                try:
                    done["results"][name] = self._measured(name, subject)
                except (ValueError, RuntimeError) as error:  # nothing to measure, or a package is absent
                    done["skipped"][name] = str(error)
                self.work.finish(JUDGED, done)

    @property
    def _unfit(self) -> dict[str, str]:
        """Metrics that say nothing of this system's videos, and why."""
        if self.entry.contender.is_truth:
            return dict.fromkeys(NOT_OF_TRUTH, "the true video against itself says nothing")
        return {"seam": OTHER_BORDER} if self.entry.contender.upstream else {}

    def results(self, judge: Judge) -> dict[str, Result]:
        """What was measured of this video alone."""
        found = self._judged(judge)["results"]
        return {
            name: Result(
                {key: np.nan if value is None else value for key, value in one["scores"].items()},
                one["method"],
                tuple(one["notes"]),
            )
            for name, one in found.items()
            if "scores" in one
        }

    def collected(self, name: str, judge: Judge) -> Collected | None:
        """What a metric over all videos took from this one."""
        one = self._judged(judge)["results"].get(name)
        return one and Collected(self.work.arrays(f"{name}.npz"), one["method"])

    def skipped(self, judge: Judge) -> dict[str, str]:
        """Reasons by metric; under `made` the one why there is no video."""
        if self.made and "failed" in self.made:
            return {MADE: self.made["failed"]}
        if self.made is None:
            return {MADE: "not made yet"}
        unfit = {} if self.entry.contender.is_truth else self._unfit
        return {**{name: why for name, why in unfit.items() if name in judge.names}, **self._judged(judge)["skipped"]}

    def _measured(self, name: str, subject: Subject) -> dict[str, Any]:
        metric = METRICS[name]
        if metric.level == "set":
            collected = metric.collect(subject)
            self.work.save_arrays(f"{name}.npz", **collected.arrays)
            return {"method": collected.method}
        result = metric.measure(subject)
        scores = {key: float(value) if np.isfinite(value) else None for key, value in result.scores.items()}
        return {"scores": scores, "method": result.method, "notes": list(result.notes)}

    def _judged(self, judge: Judge) -> dict[str, Any]:
        key = digest({"made": self.key, "judge": judge.about})
        found = self.work.result(JUDGED) if self.work.is_done(JUDGED) else {}
        return found if found.get("key") == key else {"key": key, "results": {}, "skipped": {}}


def galleries(pairs: Sequence[Pair], judge: Judge) -> dict[str, FaceEmbedding]:
    """The source of each pair as the judge sees it: the mean over all its person's sources.

    A source without a face is left out; its pairs are measured without it.
    """
    detector, recogniser = judge.tools.detector, judge.tools.recogniser
    people: dict[str, dict[Path, FaceEmbedding]] = {}
    for pair in pairs if recogniser else ():
        known = people.setdefault(pair.person, {})
        if pair.source not in known:
            assert recogniser is not None
            try:
                with VideoFile(pair.source) as video:
                    known[pair.source] = source_embedding(video, detector, recogniser)
            except ValueError as error:
                log.warning("%s: %s", pair.source.name, error)
    means = {}
    for person, known in people.items():
        if known:
            mean = np.mean([one.vector for one in known.values()], 0)
            means[person] = FaceEmbedding(
                mean / np.linalg.norm(mean), next(iter(known.values())).recogniser, count=len(known)
            )
    return {pair.name: means[pair.person] for pair in pairs if pair.person in means}


def digest(settings: dict[str, Any]) -> str:
    """SHA-256 of settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
