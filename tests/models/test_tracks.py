from __future__ import annotations

import pickle
import time
from fractions import Fraction

import numpy as np
import pytest

from models import geometry
from models.face_track import FaceTrack, concatenate
from models.faces import Detection, load_detector
from models.selection import Selection
from models.tracks import FaceTracker, track_faces

WIDTH, HEIGHT = 320, 180
COLOURS = {"a": (220, 170, 140), "b": (90, 60, 160), "c": (60, 170, 90)}
VECTORS = {name: np.eye(8, dtype=np.float32)[i] for i, name in enumerate(COLOURS)}


def landmarks(x: float, y: float, side: float) -> np.ndarray:
    """Five points of a face whose box has its middle at (x, y), in pixel positions."""
    shape = (geometry.ARCFACE_TEMPLATE - (56, 72)) / 90
    return (shape * side + (x, y)).astype(np.float32)


class World:
    """A scripted clip: faces (name, x, y, side, score) per frame, drawn as patterned squares over a backdrop per shot.

    It is its own detector: frames carry their number in the first pixel.
    """

    name, threshold = "scripted", 0.5

    def __init__(self, script: list[list[tuple]], shots: tuple[int, ...] = ()):
        self.script = script
        random = np.random.default_rng(0)
        backdrops = [random.choice([10, 245], (6, 10, 3)).repeat(32, 1).repeat(30, 0) for _ in range(1 + len(shots))]
        self.frames = np.stack([self.draw(i, backdrops[sum(i >= s for s in shots)]) for i in range(len(script))])

    def draw(self, number: int, backdrop: np.ndarray) -> np.ndarray:
        frame = backdrop.astype(np.uint8)
        for name, x, y, side, *_ in self.script[number]:
            x0, y0 = max(0, int(x - side / 2)), max(0, int(y - side / 2))
            patch = frame[y0 : int(y + side / 2), x0 : int(x + side / 2)]
            patch[:] = COLOURS[name]
            patch[len(patch) // 2 :] //= 2 if name == "a" else 1
            patch[:, : patch.shape[1] // 2] //= 3 if name == "b" else 1
        frame[0, :2] = [[number // 256, number % 256, 0], [7, 7, 7]]
        return frame

    @staticmethod
    def number(frame: np.ndarray) -> int:
        return int(frame[0, 0, 0]) * 256 + int(frame[0, 0, 1])

    def detect(self, frames: np.ndarray) -> list[list[Detection]]:
        result = []
        for frame in frames:
            faces = [
                Detection(
                    np.float32([x - side / 2, y - side / 2, x + side / 2, y + side / 2]),
                    score[0] if score else 0.9,
                    landmarks(x, y, side),
                )
                for _, x, y, side, *score in self.script[self.number(frame)]
            ]
            result.append(sorted(faces, key=lambda face: -face.score))
        return result

    def embed(self, frames: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Whose face it is, read from the script."""
        vectors = []
        for frame, five in zip(frames, points, strict=True):
            faces = self.script[self.number(frame)]
            nearest = min(faces, key=lambda f: np.abs(landmarks(*f[1:4]) - five).max())
            vectors.append(VECTORS[nearest[0]])
        return np.stack(vectors)

    def track(self, selection: Selection | None = None, chunk: int = 7, embeds: bool = False, **options) -> FaceTrack:
        tracker = FaceTracker(self, Fraction(25), self.embed if embeds else None, **options)
        for start in range(0, len(self.frames), chunk):
            tracker.add(self.frames[start : start + chunk])
        return tracker.select(selection or Selection(), smoothing=0)

    def followed(self, track: FaceTrack) -> str:
        """Whose face the track shows in each frame, "." where absent."""
        names = ""
        for i, there in enumerate(track.present):
            faces = self.script[i]
            best = min(faces, key=lambda f: np.abs(landmarks(*f[1:4]) - track.landmarks[i]).max(), default=None)
            names += best[0] if there and best else "?" if there else "."
        return names


def test_one_face_standing_and_walking():
    world = World([[("a", 60 + 3 * i, 80, 60)] for i in range(40)])
    track = world.track()
    assert track.present.all()
    assert track.absent_ranges() == []
    assert track.frame_size == (WIDTH, HEIGHT)
    assert track.fps == 25
    np.testing.assert_allclose(track.matrices, geometry.crop_matrices(track.landmarks + 0.5), atol=1e-12)
    np.testing.assert_allclose(track.landmarks[7], landmarks(81, 80, 60))
    np.testing.assert_allclose(track.confidence, 0.9, atol=1e-6)


@pytest.mark.parametrize("embeds", [False, True])
@pytest.mark.parametrize("hidden", [0, 5])
def test_crossing_faces_keep_their_identity(embeds, hidden):
    """Two people walk through each other; the one behind is unseen for some frames."""
    script = []
    for i in range(60):
        a, b = ("a", 60 + 3.4 * i, 80, 60), ("b", 260 - 3.4 * i, 90, 60)
        behind = abs(i - 30) < hidden
        script.append([a] if behind else [b, a])
    world = World(script)
    left = world.track(Selection("left-right"), embeds=embeds)
    assert world.followed(left) == "a" * 60
    right = world.followed(world.track(Selection("right-left"), embeds=embeds))
    assert set(right) <= {"b", "."}
    assert right.count(".") == max(0, 2 * hidden - 1)


def test_absent_stays_absent_but_single_misses_are_bridged():
    script = [[] if 10 <= i < 20 or i in (30, 31) else [("a", 100 + i, 80, 60)] for i in range(40)]
    world = World(script)
    track = world.track()
    assert track.absent_ranges() == [(10, 19)]
    np.testing.assert_allclose(track.landmarks[30], landmarks(130, 80, 60), atol=1e-4)
    assert world.track(bridge=0).absent_ranges() == [(10, 19), (30, 31)]
    assert "absent 10-19" in track.report()
    np.testing.assert_array_equal(track.matrices[12], track.matrices[9])
    np.testing.assert_array_equal(track.matrices[18], track.matrices[20])
    assert track.confidence[12] == 0


def test_a_miss_at_a_cut_is_not_bridged():
    script = [[] if i == 10 else [("a", 100, 80, 60)] for i in range(20)]
    assert World(script, shots=(10,)).track().absent_ranges() == [(10, 10)]
    assert World(script).track().absent_ranges() == []


def test_smoothing_stays_within_shots():
    random = np.random.default_rng(1)
    script = [[("a", (80 if i < 20 else 220) + random.normal(0, 1), 80, 60)] for i in range(40)]
    world = World(script, shots=(20,))
    tracker = FaceTracker(world, Fraction(25))
    tracker.add(world.frames)
    rough, smooth = (tracker.select(Selection(), strength) for strength in (0, 0.7))
    assert smooth.cuts == (20,)
    centres = [geometry.invert(t.matrices) @ (0.5, 0.5, 1) for t in (rough, smooth)]
    jitter = [np.abs(np.diff(c[:20], axis=0)).mean() for c in centres]
    assert jitter[1] < 0.5 * jitter[0]
    assert np.abs(centres[1][:20, 0] - 80).max() < 5
    assert np.abs(centres[1][20:, 0] - 220).max() < 5
    np.testing.assert_array_equal(rough.landmarks, smooth.landmarks)


ORDERED = {
    ("largest", 0): "c",
    ("largest", 2): "a",
    ("smallest", 0): "a",
    ("left-right", 1): "a",
    ("right-left", 0): "c",
}


@pytest.mark.parametrize("order, index", ORDERED)
def test_order(order, index):
    world = World([[("a", 150, 90, 30), ("b", 50, 90, 40), ("c", 250, 90, 60)] for _ in range(12)])
    assert set(world.followed(world.track(Selection(order, index)))) == {ORDERED[order, index]}


def test_the_order_holds_at_the_frame_it_was_made_for():
    world = World([[("a", 60 + 4 * i, 60, 40), ("b", 260 - 4 * i, 130, 40)] for i in range(50)])
    assert set(world.followed(world.track(Selection("left-right", frame=0)))) == {"a"}
    assert set(world.followed(world.track(Selection("left-right", frame=49)))) == {"b"}


def test_point():
    world = World([[("a", 60, 60, 40), ("b", 200, 130, 40)] for _ in range(10)])
    assert set(world.followed(world.track(Selection(point=(190, 120))))) == {"b"}
    assert set(world.followed(world.track(Selection(point=(30, 60))))) == {"a"}
    with pytest.raises(ValueError, match=r"No face near .* \(60, 60\), \(200, 130\)"):
        world.track(Selection(point=(310, 5)))


def test_each_shot_by_order_or_by_identity():
    first = [[("a", 100, 80, 60), ("b", 250, 80, 40)] for _ in range(10)]
    second = [[("b", 80, 80, 70), ("a", 220, 80, 50)] for _ in range(10)]
    third = [[("c", 150, 90, 80)] for _ in range(10)]
    world = World(first + second + third, shots=(10, 20))
    assert world.followed(world.track()) == "a" * 10 + "b" * 10 + "c" * 10
    assert world.followed(world.track(embeds=True)) == "a" * 20 + "." * 10
    assert world.followed(world.track(Selection(reference=VECTORS["b"]), embeds=True)) == "b" * 20 + "." * 10
    assert world.followed(world.track(Selection("largest", 1))) == "b" * 10 + "a" * 10 + "." * 10
    assert world.track(embeds=True).cuts == (10, 20)


def test_reference_joins_a_person_who_left_and_came_back():
    script = [
        [("b", 250, 90, 70)] + ([("a", 60 if i < 60 else 160, 60, 30)] if not 20 <= i < 60 else []) for i in range(90)
    ]
    world = World(script)
    track = world.track(Selection(reference=2 * VECTORS["a"]), embeds=True)
    assert world.followed(track) == "a" * 20 + "." * 40 + "a" * 30


def test_reference_that_is_not_there():
    world = World([[("a", 100, 80, 60)]] * 10)
    with pytest.raises(ValueError, match=r"not in the clip.*0\.00 and 0\.30"):
        world.track(Selection(reference=VECTORS["c"]), embeds=True)
    with pytest.raises(ValueError, match="5 numbers.*8"):
        world.track(Selection(reference=np.ones(5)), embeds=True)
    with pytest.raises(ValueError, match="embed"):
        world.track(Selection(reference=VECTORS["a"]))


def test_false_alarms_do_not_shift_the_order():
    script = [
        [("a", 200, 80, 50), ("b", 40, 40, 60, 0.55)] + ([("c", 120, 140, 90, 0.9)] if i == 4 else [])
        for i in range(20)
    ]
    world = World(script)
    assert set(world.followed(world.track(Selection("left-right")))) == {"a"}
    assert set(world.followed(world.track(Selection("largest", frame=4)))) == {"a"}
    assert set(world.followed(world.track(Selection(point=(40, 40))))) == {"b"}
    weak = World([[("b", 40, 40, 60, 0.55)] for _ in range(5)])
    assert weak.track().present.all()  # the only candidates there are


def test_collapsed_landmarks_are_no_face():
    class Collapsed(World):
        def detect(self, frames):
            return [[Detection(d.box, 0.9, np.full((5, 2), 50, np.float32)) for d in f] for f in super().detect(frames)]

    with pytest.raises(ValueError, match="No face in any of 5 frames"):
        Collapsed([[("a", 100, 80, 60)]] * 5).track()


def test_a_shot_without_the_face_holds_the_nearest_of_the_clip():
    script = [[("a", 100 + i, 80, 60)] if i < 10 or i >= 20 else [] for i in range(30)]
    track = World(script, shots=(10, 20)).track()
    np.testing.assert_array_equal(track.matrices[10:15], np.repeat(track.matrices[9:10], 5, 0))
    np.testing.assert_array_equal(track.matrices[15:20], np.repeat(track.matrices[20:21], 5, 0))


def test_chunks_do_not_matter():
    random = np.random.default_rng(3)
    script = [
        [] if random.random() < 0.1 else [("a", 90 + i, 70, 50), ("b", 250 - i, 110, 45)][: random.integers(1, 3)]
        for i in range(60)
    ]
    world = World(script, shots=(25,))
    whole = world.track(chunk=60, embeds=True)
    for chunk in (1, 7, 32):
        other = world.track(chunk=chunk, embeds=True)
        np.testing.assert_array_equal(whole.present, other.present)
        np.testing.assert_array_equal(whole.matrices, other.matrices)
        assert whole.cuts == other.cuts


def test_only_numbers_are_kept():
    """Less than 1 kB for each face in a frame, whatever the frame's size."""
    world = World([[("a", 100, 80, 60)]] * 30)
    tracker = FaceTracker(world, Fraction(25))
    sizes = []
    for _ in range(3):
        tracker.add(world.frames)
        sizes.append(len(pickle.dumps((tracker._frames, tracker._shots))))
    assert sizes[2] - sizes[1] < 30 * 1000 < world.frames.nbytes / 100


def test_nothing_found_and_bad_requests():
    empty = World([[]] * 12)
    with pytest.raises(ValueError, match=r"No face in any of 12 frames of 320x180 px.*scripted at threshold 0\.5"):
        empty.track()
    with pytest.raises(ValueError, match="no frames"):
        track_faces([], empty, Fraction(25))
    world = World([[("a", 100, 80, 60)]] * 5)
    with pytest.raises(ValueError, match="order 'tallest'"):
        world.track(Selection("tallest"))
    with pytest.raises(ValueError, match="face index is -1; faces are counted from 0"):
        Selection(index=-1)
    with pytest.raises(ValueError, match="shows 1 face; face 2"):
        world.track(Selection(index=2))
    with pytest.raises(ValueError, match="frames 0 to 4"):
        world.track(Selection(frame=5))
    tracker = FaceTracker(world, Fraction(25))
    tracker.add(world.frames)
    with pytest.raises(ValueError, match="changes from"):
        tracker.add(np.zeros((1, 90, 160, 3), np.uint8))
    with pytest.raises(ValueError, match="uint8"):
        tracker.add(np.zeros((1, HEIGHT, WIDTH, 3), np.float32))


def test_a_selection_frame_without_a_face_means_the_nearest_with_one():
    script = [[("a", 60, 80, 40), ("b", 200, 80, 60)] if i >= 5 else [] for i in range(20)]
    assert World(script).followed(World(script).track()) == "." * 5 + "b" * 15


def test_progress_and_interrupt():
    world = World([[("a", 100, 80, 60)]] * 10)
    seen = []
    chunks = [world.frames[:4], world.frames[4:8], world.frames[8:]]
    track_faces(chunks, world, Fraction(25), progress=lambda done, total: seen.append(done))
    assert seen == [4, 8, 10]

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        track_faces(chunks, world, Fraction(25), progress=stop)


def test_slices_and_their_concatenation():
    world = World([[] if 12 <= i < 18 else [("a", 100 + i, 80, 60)] for i in range(30)], shots=(20,))
    track = world.track()
    part = track.slice(10, 25)
    assert len(part) == 15
    assert part.absent_ranges() == [(2, 7)]
    assert part.cuts == (10,)
    assert track.slice(20, 30).cuts == ()
    assert len(track.slice(25, 99)) == 5
    assert len(track.slice(5, 3)) == 0
    joined = concatenate([track.slice(0, 7), track.slice(7, 20), track.slice(20, 30)])
    for name in ("present", "matrices", "landmarks", "confidence"):
        np.testing.assert_array_equal(getattr(joined, name), getattr(track, name))
    assert joined.cuts == ()  # a cut between slices belongs to neither
    assert concatenate([track.slice(0, 20), track.slice(20, 30)], new_shots=True).cuts == (20,)
    assert concatenate([part, part], new_shots=True).cuts == (10, 15, 25)
    with pytest.raises(ValueError, match="at least one"):
        concatenate([])


def test_report_warns_of_a_face_larger_than_the_model():
    track = World([[("a", 160, 90, 120)]] * 3).track()
    side = np.median(track.crop_sides)
    assert f"crop side {side:.0f} px" in track.report()
    assert "warning" not in track.report(model_px=int(side) + 1)
    assert f"warning: the crop covers {side:.0f} px" in track.report(model_px=96)
    assert "one shot" in track.report()


def test_landmarks_and_pixels_agree():
    """The crop of a drawn point lies where the template says, so detections' and crops' half pixels fit."""
    world = World([[("a", 160.0, 90.0, 90.0)]] * 3)
    track = world.track()
    frame = np.zeros((1, HEIGHT, WIDTH, 3), np.float32)
    eye = np.rint(track.landmarks[0, 0]).astype(int)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    frame[0] = np.exp(-((x - eye[0]) ** 2 + (y - eye[1]) ** 2) / 8)[..., None]
    crop = geometry.warp_crops(frame, track.matrices[:1], 200)[0, ..., 0]
    centre = np.array([(crop * axis).sum() / crop.sum() for axis in np.mgrid[:200, :200][::-1]])
    off = (track.landmarks[0, 0] - eye) @ track.matrices[0, :, :2].T * 200
    expected = geometry.CROP_TEMPLATE[0] * 200 - 0.5 - off
    np.testing.assert_allclose(centre, expected, atol=3)  # the template fits a face to some pixels only
    exact = (np.float64([eye]) + 0.5) @ track.matrices[0, :, :2].T + track.matrices[0, :, 2]
    np.testing.assert_allclose(centre, exact[0] * 200 - 0.5, atol=0.1)


@pytest.fixture(scope="session")
def detector():
    try:
        return load_detector("builtin")
    except (ValueError, OSError, RuntimeError) as error:
        pytest.skip(f"no built-in detector: {error}")


def real(path, first: int, count: int, step: int = 1):
    av = pytest.importorskip("av")
    with av.open(str(path)) as file:
        for i, frame in enumerate(file.decode(video=0)):
            if i >= first + count:
                return
            if i >= first and (i - first) % step == 0:
                yield frame.to_ndarray(format="rgb24")[None]


def test_real_stage_with_cuts(shared_data, detector):
    chunks = real(shared_data / "scenes/stage_cuts_360p2997.mp4", 74, 24)
    track = track_faces(chunks, detector, Fraction(30000, 1001))
    assert track.cuts == (8,)
    assert track.present[8:].all()
    x = geometry.invert(track.matrices) @ (0.5, 0.5, 1)
    assert (np.abs(x[8:] - (195, 105)).max(0) < (90, 60)).all()  # the singer in the left half


def test_real_split_screen_in_order(shared_data, detector):
    tracker = FaceTracker(detector, Fraction(25))
    for frame in real(shared_data / "scenes/splitscreen5_720p25.mp4", 0, 12, 3):
        tracker.add(frame)
    tracks = [tracker.select(Selection("left-right", index)) for index in range(5)]
    assert all(track.present.all() for track in tracks)
    x = [(geometry.invert(track.matrices[0]) @ (0.5, 0.5, 1))[0] for track in tracks]
    np.testing.assert_allclose(x, [378, 410, 870, 910, 1190], atol=45)
    assert (np.diff(x) > 0).all()


def test_real_speaker_is_always_there(shared_data, detector):
    track = track_faces(real(shared_data / "scenes/kitchen_720p25.mp4", 0, 30, 3), detector, Fraction(25, 3))
    assert track.present.all()
    assert 230 < np.median(track.crop_sides) < 400


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("embeds", [False, True])
def test_many_chunks_at_a_time_give_the_track_of_one_after_the_other(monkeypatch, embeds, count):
    """Faces change at chunks' borders, and the first chunk is found last."""
    script = [[("a", 60 + i, 80, 60), *[("b", 220, 90 - i, 50)] * (i % 14 < 7)] for i in range(42)]
    world = World([*script, *[[("b", 90, 80, 60)]] * 14], shots=(42,))
    wanted = world.track(embeds=embeds)
    seen: list[int] = []

    class Late:
        name, threshold, shared = "late", 0.5, True

        def detect(self, frames: np.ndarray) -> list[list[Detection]]:
            time.sleep(0.2 * (world.number(frames[0]) == 0))
            return world.detect(frames)

    monkeypatch.setattr("models.tracks.threads", lambda: count)
    tracker = FaceTracker(Late(), Fraction(25), world.embed if embeds else None)
    tracker.add_all((world.frames[start : start + 7] for start in range(0, 56, 7)), seen.append)
    found = tracker.select(Selection(), smoothing=0)
    assert len(tracker) == 56 and seen == sorted(seen) and set(range(7, 57, 7)) <= set(seen)
    for name in ("present", "matrices", "landmarks", "confidence", "cuts"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))

    def stop(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        FaceTracker(Late(), Fraction(25)).add_all(iter([world.frames]), stop)
    with pytest.raises(ValueError, match="changes from"):
        tracker.add_all(iter([world.frames[:, :90]]), seen.append)
