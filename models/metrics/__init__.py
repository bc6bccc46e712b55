"""Metrics by name: what each needs and what its numbers mean; shared by nodes, command line and evaluation.

A metric of a "clip" measures one video; `average` makes the mean of a test set of such results. A metric of a "set"
takes from each video what it needs (`collect`) and makes one number of all of it (`combine`). The real-time factor
judges programs and not pictures; it stands apart, in `rtf`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .results import Collected, Result
    from .subject import Subject

# what a metric may need -> what to do about it when it is absent
NEEDS = {
    "audio": "give the sound that goes with the video",
    "reference": "give the target video that the result was made from",
    "source": "give the source face as an embedding",
    "sync": "give a sync model: see models.metrics.sync_model",
    "landmarks": "give a landmark model: face_landmarker.task of MediaPipe, or 1k3d68.onnx of insightface's buffalo_l",
    "recogniser": "give a recogniser",
    "inception": "give FID's Inception weights, pt_inception-2015-12-05-6726825d.pth",
}
BETTER = ("lower", "higher", "zero", "")  # "" = for comparison only


@dataclass(frozen=True)
class Score:
    """One number of a metric.

    Attributes:
        name: key in `Result.scores`.
        title: as a table's head has it.
        unit: "" for a plain number.
        better: one of `BETTER`.
        digits: after the point, in tables.
    """

    name: str
    title: str
    unit: str
    better: str
    digits: int = 3


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: key in `METRICS`.
        what: it measures, in a line.
        level: "clip" or "set".
        needs: keys of `NEEDS`, beside the video and a detector.
        scores: what it gives.
        module: of this package that holds its function(s).
        functions: ("measure",), or (collect, combine) of a set.
    """

    name: str
    what: str
    level: str
    needs: tuple[str, ...]
    scores: tuple[Score, ...]
    module: str
    functions: tuple[str, ...] = ("measure",)

    def lacking(self, subject: Subject) -> list[str]:
        """Needs that a subject or its tools do not meet."""
        return [name for name in self.needs if getattr(subject, name, getattr(subject.tools, name, None)) is None]

    def measure(self, subject: Subject) -> Result:
        """Judge one video.

        Raises:
            ValueError: something it needs is absent, or the video cannot be judged; says what to do.
        """
        if self.level != "clip":
            raise ValueError(f"The metric {self.name} is of a set of videos: collect from each, then combine.")
        return self._call(0, subject)

    def collect(self, subject: Subject) -> Collected:
        """What this metric takes from one video of a set; errors as `measure`."""
        if self.level != "set":
            raise ValueError(f"The metric {self.name} is of one video: measure each, then average.")
        return self._call(0, subject)

    def combine(self, collected: Sequence[Collected]) -> Result:
        """The number of a set.

        Raises:
            ValueError: nothing was collected, or by different methods.
        """
        if not collected:
            raise ValueError(f"The metric {self.name} needs at least one video.")
        return self._function(1)(collected)

    def _call(self, which: int, subject: Subject) -> Any:
        if lacking := self.lacking(subject):
            raise ValueError(f"The metric {self.name} lacks {', '.join(lacking)}: {_remedies(lacking)}.")
        return self._function(which)(subject)

    def _function(self, which: int) -> Any:
        return getattr(import_module(f".{self.module}", __name__), self.functions[which])


def _remedies(names: Sequence[str]) -> str:
    return "; ".join(NEEDS[name] for name in names)


_ALL = (
    Metric(
        "lse",
        "Do lips and sound go together, and how far are they apart?",
        "clip",
        ("audio", "sync"),
        (
            Score("lse_d", "LSE-D", "", "lower"),
            Score("lse_c", "LSE-C", "", "higher"),
            Score("offset", "sync offset", "frames", "zero", 1),
        ),
        "sync",
    ),
    Metric(
        "lmd",
        "How far are face and mouth from the target's shape and motion?",
        "clip",
        ("reference", "landmarks"),
        (
            Score("lmd", "LMD", "px of 256", "lower"),
            Score("lmd_m", "LMD-m", "px of 256", "lower"),
            Score("lmd_eyes", "LMD / eyes", "eye distances", "lower", 4),
            Score("lmd_m_eyes", "LMD-m / eyes", "eye distances", "lower", 4),
        ),
        "lmd",
    ),
    Metric(
        "cpbd",
        "Is the face sharp?",
        "clip",
        (),
        (Score("cpbd_96", "CPBD (96 px)", "", "higher"), Score("cpbd_256", "CPBD (256 px)", "", "higher")),
        "cpbd",
    ),
    Metric(
        "identity",
        "Is it the source's face, and no more the target's?",
        "clip",
        ("source", "recogniser"),
        (Score("to_source", "cosine to source", "", "higher"), Score("to_target", "cosine to target", "", "lower")),
        "identity",
    ),
    Metric(
        "jitter",
        "Does the mouth tremble more than in the target video?",
        "clip",
        ("reference",),
        (
            Score("jitter", "mouth jitter", "px of 256", "lower"),
            Score("jitter_made", "of the result", "px of 256", ""),
            Score("jitter_given", "of the target", "px of 256", ""),
        ),
        "jitter",
    ),
    Metric(
        "silence",
        "Does the mouth rest while nobody speaks?",
        "clip",
        ("audio",),
        (
            Score("silence_change", "mouth change in silence", "grey levels a frame", "lower"),
            Score("silence_change_given", "of the target", "grey levels a frame", ""),
            Score("silence_opening", "opening spread in silence", "% of eye distance", "lower"),
            Score("silence_opening_given", "of the target", "% of eye distance", ""),
        ),
        "silence",
    ),
    Metric(
        "seam",
        "Does the border of the pasted face show?",
        "clip",
        ("reference",),
        (
            Score("seam", "seam", "grey levels a px", "lower"),
            Score("seam_made", "of the result", "grey levels a px", ""),
            Score("seam_given", "of the target", "grey levels a px", ""),
        ),
        "seam",
    ),
    Metric(
        "fid",
        "How far are generated faces from true ones, as a set?",
        "set",
        ("reference", "inception"),
        (Score("fid_96", "FID (96 px)", "", "lower", 1), Score("fid_256", "FID (256 px)", "", "lower", 1)),
        "fid",
        ("collect", "combine"),
    ),
    Metric(
        "recogniser_distance",
        "The same with the recogniser's features; no FID, but it needs no file.",
        "set",
        ("reference", "recogniser"),
        (Score("recogniser_distance", "recogniser distance", "", "lower"),),
        "fid",
        ("collect_recognised", "combine_recognised"),
    ),
    Metric(
        "id_retrieve",
        "How often is the source the nearest of all people?",
        "set",
        ("source", "recogniser"),
        (
            Score("id_frames", "ID-Retrieve (frames)", "%", "higher", 1),
            Score("id_videos", "ID-Retrieve (videos)", "%", "higher", 1),
        ),
        "identity",
        ("collect", "combine"),
    ),
)
METRICS = {metric.name: metric for metric in _ALL}


def metric(name: str) -> Metric:
    """A metric by name.

    Raises:
        ValueError: the name is unknown.
    """
    if name not in METRICS:
        raise ValueError(f"Unknown metric {name!r}. Known: {', '.join(METRICS)}.")
    return METRICS[name]
