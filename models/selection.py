"""Which face of a clip is meant: by order, by a point, by who it is, or by where another video has it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .tracklets import Sighting, Tracklet

if TYPE_CHECKING:
    from .face_track import FaceTrack

Shots = Sequence[Sequence[Tracklet]]  # the faces of each shot

ORDERS = ("largest", "smallest", "left-right", "right-left")
MATCH = 0.3  # least cosine of the reference and a face of the clip
SURE = 0.4  # of the way from the threshold to 1: what a face's best score must reach to count in an order
NEAR = 1.5  # face sizes around a face within which a point, or a place, means it


@dataclass(frozen=True, eq=False)
class Selection:
    """Which face to follow. A place wins over a reference, a reference over a point, a point over the order.

    An order counts only faces that are detected with some certainty at least once, if there are any: lamps and hands
    that look a little like faces do not shift it. All else may mean any face.

    Attributes:
        order: "largest", "smallest", "left-right" or "right-left".
        index: place in that order, from 0.
        reference: embedding [D] of the wanted person; needs a tracker that embeds with the same recogniser.
        point: (x, y) in pixels, in or near the wanted face in frame `frame`.
        frame: where order and point are looked at; without a face there, the nearest frame that has one.
        place: a face of another video that shows the same, frame by frame; whoever stands there is followed.

    Raises:
        ValueError: an order that there is not, or a negative index.
    """

    order: str = "largest"
    index: int = 0
    reference: NDArray[np.floating] | None = None
    point: tuple[float, float] | None = None
    frame: int = 0
    place: FaceTrack | None = None

    def __post_init__(self) -> None:
        if self.order not in ORDERS:
            raise ValueError(f"The face order {self.order!r} is unknown; choose one of {', '.join(ORDERS)}.")
        if self.index < 0:
            raise ValueError(f"The face index is {self.index}; faces are counted from 0.")

    def check(self, frames: int) -> None:
        """Refuse what makes no sense for a clip of so many frames.

        Raises:
            ValueError: says what there is.
        """
        if self.place is None and self.reference is None and frames and not 0 <= self.frame < frames:
            raise ValueError(f"The selection frame {self.frame} is outside the clip's frames 0 to {frames - 1}.")


def sightings_of(selection: Selection, shots: Shots, threshold: float, match: float = MATCH) -> dict[int, Sighting]:
    """Where the selected face is, by frame.

    From shot to shot it is followed by identity where faces have one, else the order is applied to each shot anew, at
    its frame of most faces.

    Args:
        selection: which face.
        shots: at least one face in all of them.
        threshold: the detector's.
        match: least cosine between a reference and a face that is taken for the same person.

    Raises:
        ValueError: no face fits the selection.
    """
    if selection.place is not None:
        return _at(selection.place, shots)
    if selection.reference is not None:
        return _by_identity(shots, selection.reference, match)
    sure = _sure(shots, threshold)
    chosen = _chosen(shots if selection.point is not None else sure, selection)
    if chosen.identity is not None:
        return _by_identity(shots, chosen.identity, match, chosen)
    parts = [
        chosen if chosen in shot else _in_order(likely, selection) for shot, likely in zip(shots, sure, strict=True)
    ]
    return {frame: sighting for part in parts if part for frame, sighting in part.sightings.items()}


def _sure(shots: Shots, threshold: float) -> Shots:
    """The faces that count in an order."""
    least = threshold + SURE * (1 - threshold)
    sure = [[tracklet for tracklet in shot if tracklet.peak >= least] for shot in shots]
    return sure if any(sure) else shots


def _chosen(shots: Shots, selection: Selection) -> Tracklet:
    """The face meant by point or order in the selection's frame."""
    everyone = [tracklet for shot in shots for tracklet in shot]
    frame = min((f for t in everyone for f in t.sightings), key=lambda f: abs(f - selection.frame))
    there = [t for t in everyone if frame in t.sightings]
    if selection.point is not None:
        point = np.array(selection.point)
        best = min(there, key=lambda t: _distance(t.sightings[frame], point))
        if _distance(best.sightings[frame], point) > NEAR:
            places = ", ".join("({:.0f}, {:.0f})".format(*t.sightings[frame].centre) for t in there)
            raise ValueError(f"No face near {selection.point} in frame {frame}; its faces are at {places}.")
        return best
    if selection.index >= len(there):
        raise ValueError(
            f"Frame {frame} shows {len(there)} face{'s' * (len(there) != 1)}; face {selection.index}, counted from "
            "0, was asked for. Choose a smaller number or another selection frame."
        )
    return _ordered(there, frame, selection.order)[selection.index]


def _by_identity(
    shots: Shots, reference: NDArray[np.floating], match: float, fixed: Tracklet | None = None
) -> dict[int, Sighting]:
    """Sightings of the person; `fixed` is taken in any case."""
    wanted = np.asarray(reference, np.float64).ravel()
    scored = []
    for tracklet in (t for shot in shots for t in shot):
        if (vector := tracklet.identity) is not None:
            if len(vector) != len(wanted):
                raise ValueError(
                    f"The reference has {len(wanted)} numbers, the clip's embeddings {len(vector)}: they come from "
                    "different recognisers. Embed the reference with the one that tracks."
                )
            scored.append((float(vector @ wanted / np.linalg.norm(wanted)), tracklet))
    scored.sort(key=lambda pair: -pair[0])
    if not scored:
        raise ValueError("Selecting by a reference needs a recogniser: give the tracker an `embed` function.")
    if fixed is None and scored[0][0] < match:
        raise ValueError(
            f"The reference person is not in the clip: the most similar face, first seen in frame "
            f"{scored[0][1].first.frame}, reaches {scored[0][0]:.2f} and {match:.2f} is needed. Use another "
            "reference picture, or choose the face by order or point."
        )
    result = {} if fixed is None else dict(fixed.sightings)
    for score, tracklet in scored:
        if score >= match and not result.keys() & tracklet.sightings.keys():
            result.update(tracklet.sightings)
    return result


def _at(place: FaceTrack, shots: Shots) -> dict[int, Sighting]:
    """Sightings of those who stand at a place, nearest first; one at a time."""
    there, centres = place.present, place.centres
    found: list[tuple[float, Tracklet]] = []
    for tracklet in (t for shot in shots for t in shot):
        both = [(s, centres[f]) for f, s in tracklet.sightings.items() if f < len(place) and there[f]]
        if both and (apart := float(np.mean([_distance(*pair) for pair in both]))) <= NEAR:
            found.append((apart, tracklet))
    if not found:
        raise ValueError(
            f"No face is where the other video has it ({np.count_nonzero(there)} frames of that show it). Compare "
            "videos of the same frames, brought to one size."
        )
    result: dict[int, Sighting] = {}
    for _, tracklet in sorted(found, key=lambda pair: pair[0]):
        if not result.keys() & tracklet.sightings.keys():
            result.update(tracklet.sightings)
    return result


def _distance(sighting: Sighting, point: NDArray[np.floating]) -> float:
    """From a face's centre to a point, in face sizes."""
    return float(np.hypot(*(sighting.centre - point))) / sighting.size


def _ordered(tracklets: Iterable[Tracklet], frame: int, order: str) -> list[Tracklet]:
    by_size = order in ("largest", "smallest")
    return sorted(
        tracklets,
        key=lambda t: t.sightings[frame].size if by_size else t.sightings[frame].centre[0],
        reverse=order in ("largest", "right-left"),
    )


def _in_order(shot: Sequence[Tracklet], selection: Selection) -> Tracklet | None:
    """The face of that order in the shot's (first) frame of most faces, if there are so many."""
    counts: dict[int, int] = {}
    for frame in sorted(f for tracklet in shot for f in tracklet.sightings):
        counts[frame] = counts.get(frame, 0) + 1
    if not counts or max(counts.values()) <= selection.index:
        return None
    frame = max(counts, key=lambda f: counts[f])
    return _ordered((t for t in shot if frame in t.sightings), frame, selection.order)[selection.index]
