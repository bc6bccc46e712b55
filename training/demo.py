"""The main job on inputs that need no download: two portraits from installed packages and the speech in the repo.

Both portraits are official United States government photographs in the public domain: NASA's of Eileen Collins, which
ships in scikit-image, and the Navy's of Grace Hopper, which ships in matplotlib.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from models.faces import Detector

SPEECH = Path(__file__).resolve().parents[1] / "example_workflows" / "demo_speech.flac"
OUTPUT = Path("outputs") / "demo" / "talking_swap.mp4"
TILE = 320  # px, side of a picture in the row
CAPTION, FONT, LINE = 24, 12, 15  # px under it for one line, of its letters, and for each line more
RESULT_TILES = 4
AROUND = 2.2  # side of the shown square over the longer side of the face box


def astronaut() -> np.ndarray:
    """The default source face: Eileen Collins, uint8 [512, 512, 3] RGB."""
    from skimage.data import astronaut

    return np.ascontiguousarray(astronaut())


def hopper() -> np.ndarray:
    """The default target: Grace Hopper, uint8 [606, 512, 3] RGB."""
    import matplotlib
    from PIL import Image

    path = Path(matplotlib.get_data_path(), "sample_data", "grace_hopper.jpg")
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def not_installed(error: ImportError) -> ValueError:
    """What to say where a portrait's package is missing."""
    return ValueError(
        f"The demo's portraits come from scikit-image and matplotlib, and one is missing ({error}). "
        "Run `python install.py demo`, or install it; `demo` takes --video and --face in their place."
    )


def face_square(image: np.ndarray, box: np.ndarray, around: float = AROUND) -> np.ndarray:
    """The square around a face, moved and shrunk as far as the picture's edge demands.

    Args:
        image: uint8 [H, W, 3] RGB.
        box: x1, y1, x2, y2 in pixels.
        around: side of the square over the longer side of the box.

    Returns:
        uint8 [S, S, 3], a view into `image`.
    """
    height, width = image.shape[:2]
    side = int(min(height, width, around * max(box[2] - box[0], box[3] - box[1])))
    left = int(np.clip((box[0] + box[2] - side) / 2, 0, width - side))
    top = int(np.clip((box[1] + box[3] - side) / 2, 0, height - side))
    return image[top : top + side, left : left + side]


def tile(image: np.ndarray, caption: str, side: int = TILE, lines: int = 1) -> np.ndarray:
    """A picture fitted into a white square with a caption under it.

    Args:
        image: uint8 [H, W, 3] RGB.
        caption: short ASCII lines.
        side: of the square, px.
        lines: for which there is room under it.

    Returns:
        uint8 [side + CAPTION + (lines - 1) * LINE, side, 3] RGB.
    """
    from PIL import Image, ImageDraw, ImageOps

    framed = Image.new("RGB", (side, side + CAPTION + (lines - 1) * LINE), "white")
    framed.paste(ImageOps.pad(Image.fromarray(image), (side, side), Image.Resampling.LANCZOS, "white"))
    ImageDraw.Draw(framed).text((6, side + 4), caption, fill="black", font_size=FONT, spacing=LINE - FONT)
    return np.asarray(framed)


def side_by_side(face: np.ndarray, target: np.ndarray, result: list[np.ndarray]) -> np.ndarray:
    """Source face, target and frames of the result in one row.

    Args:
        face: uint8 [H, W, 3] RGB.
        target: a frame of the target video, uint8 RGB.
        result: frames of the result, uint8 RGB.

    Returns:
        uint8 [TILE + CAPTION, TILE * number of pictures, 3] RGB.
    """
    tiles = [tile(face, "source face"), tile(target, "target")]
    tiles += [tile(frame, f"result {i + 1} of {len(result)}") for i, frame in enumerate(result)]
    return np.concatenate(tiles, axis=1)


def close_up(image: np.ndarray, detector: Detector) -> np.ndarray:
    """The square around the largest face of uint8 [H, W, 3] RGB; the whole picture if it shows none."""
    from models.faces import largest_face

    try:
        return face_square(image, largest_face(image, detector).box)
    except ValueError:
        return image


def spread_frames(video: Path, count: int) -> list[np.ndarray]:
    """`count` frames at even distances through a video, uint8 [H, W, 3] RGB each; fewer if it has fewer."""
    from models.video import VideoFile

    source = VideoFile(video)
    frames = source.info.frames
    count = min(count, frames)
    picks = [(2 * i + 1) * frames // (2 * count) for i in range(count)]
    return [source.read(i, i + 1)[0] for i in picks]


def save_picture(path: Path, image: np.ndarray, **options: Any) -> Path:
    """Write uint8 [H, W, 3] RGB as the type that the name says, with Pillow's options of it; returns the path."""
    from PIL import Image

    Image.fromarray(image).save(path, **options)
    return path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `python -m training demo`; every value is a path."""
    parser.add_argument(
        "--video",
        type=Path,
        metavar="FILE",
        help="target video or portrait (default: the Navy's portrait in matplotlib)",
    )
    parser.add_argument(
        "--face", type=Path, metavar="FILE", help="source face (default: NASA's portrait in scikit-image)"
    )
    parser.add_argument("--audio", type=Path, default=SPEECH, metavar="FILE", help="speech (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=OUTPUT, metavar="FILE", help="mp4 to write (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Make the video and the picture beside it, and tell where they are.

    Returns:
        Exit status of the job.

    Raises:
        ValueError: a default portrait's package is not installed, or the job's own errors.
    """
    from models.faces import load_detector

    from . import infer
    from .outputs import check_outputs

    out: Path = args.out.resolve()
    beside = out.with_suffix(".png")
    target, source = (out.with_name(f"{out.stem}_{name}.png") for name in ("target", "source_face"))
    written = [("--out", out), ("side by side", beside)]
    written += [] if args.video else [("target", target)]
    written += [] if args.face else [("source face", source)]
    check_outputs(written, [("--video", args.video), ("--face", args.face), ("--audio", args.audio)])
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        video = args.video or save_picture(target, hopper())
        face = args.face or save_picture(source, astronaut())
    except ImportError as error:
        raise not_installed(error) from error
    parser = argparse.ArgumentParser()
    infer.add_arguments(parser)
    files = ["--video", str(video), "--face", str(face), "--audio", str(args.audio), "--out", str(out)]
    # bounce: a clip of any length follows the speech, as the portrait does
    status = infer.run(parser.parse_args([*files, "--length", "bounce"]))
    if status:
        return status
    detector = load_detector("builtin")
    shown = [infer.first_frame(face), infer.first_frame(video), *spread_frames(out, RESULT_TILES)]
    shown = [close_up(image, detector) for image in shown]
    picture = save_picture(beside, side_by_side(shown[0], shown[1], shown[2:]))
    print(f"\nvideo:        {out}\nside by side: {picture}")
    return 0
