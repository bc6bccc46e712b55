"""`python -m training gallery`: one picture of what a generator does, good and bad, on inputs that anybody may show.

Both portraits and the speech are the demo's. What is shown is fixed by rules and not chosen by how well it came out,
and every number in a caption is measured on what is shown.
"""

from __future__ import annotations

import argparse
import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from models.adaptation import adapt
from models.adapters import merge
from models.face_work import as_pictures
from models.faces import Detection
from models.footage import gather
from models.frames import FrameArray, to_rgb_uint8

from .adapt import bar_of
from .clips import FPS
from .demo import FONT, face_square, not_installed, save_picture, tile
from .end_to_end import swaying
from .outputs import check_outputs
from .studio import Picture, Studio

COLUMNS, SIDE, LINES, TITLE = 6, 192, 2, 26  # pictures a line, px of one, lines under it, px of a title
AROUND = 1.7  # side of what is shown of a face over its box
CONTRAST = 4  # by which differences are multiplied to be seen
CLIP = 80  # frames of the clip to adapt to
SMALL, DARK, COVER = 7, 10, (40, 40, 44)  # hard input: how much smaller, how much darker; RGB of what hides a mouth
QUALITIES, MOST_BYTES = range(90, 45, -5), 250_000  # of a JPEG: the first quality that fits is taken

Row = tuple[str, list[Picture]]  # title and pictures


def shown(image: Picture, caption: str) -> Picture:
    """A picture of a row."""
    return tile(image, caption, SIDE, LINES)


def reconstruction(studio: Studio) -> Row:
    """Both people, nothing said."""
    row = []
    for name, still in studio.portraits.items():
        frames, track = studio.draw(still, studio.silence, None)
        change = (np.abs(frames[0].astype(int) - still) * CONTRAST).clip(0, 255).astype(np.uint8)
        result = f"result; mouth differs by\n{studio.mouth_change(still, frames[0], track):.1f} grey levels of 255"
        captions = (f"{name}, target", result, f"difference x {CONTRAST}")
        for image, caption in zip((still, frames[0], change), captions, strict=True):
            row.append(shown(face_square(image, studio.faces[name].box, AROUND), caption))
    return (
        "Reconstruction: own face kept, no sound, so lips are to shut. A still is its own reference: the easiest case",
        row,
    )


def dubbing(studio: Studio) -> Row:
    """One person says the sentence: extremes of the sound, then of what the lips do."""
    still, box = studio.portraits["Collins"], studio.faces["Collins"].box
    frames, track = studio.draw(still, studio.speech, None)
    opening, width = studio.lips(frames, track)
    moments = {
        "the quietest sound": studio.loudness.argmin(),
        "the loudest sound": studio.loudness.argmax(),
        "lips most open": opening.argmax(),
        "lips narrowest": width.argmin(),
        "lips widest": width.argmax(),
    }
    row = [shown(face_square(still, box, AROUND), "Collins, target")]
    for what, i in moments.items():
        row.append(shown(face_square(frames[i], box, AROUND), f"{what},\nat {i / float(FPS):.2f} s"))
    r = np.corrcoef(opening, studio.loudness)[0, 1]
    title = f"Dubbing: own face kept, other speech. Lips' opening follows loudness with r = {r:.2f} over {len(frames)}"
    return f"{title} frames, by the bundled lip reader (no independent judge)", row


def swaps(studio: Studio) -> Row:
    """Each person's face in the other's picture, at the loudest moment of the sentence."""
    row = []
    for source, target in (("Collins", "Hopper"), ("Hopper", "Collins")):
        frames, _ = studio.draw(studio.portraits[target], studio.loudest, studio.people[source])
        likeness = "cosine to source {:.2f},\nto target {:.2f}".format(*studio.cosines(frames[0], source, target))
        images = (studio.portraits[source], studio.portraits[target], frames[0])
        captions = (f"{source}, source", f"{target}, target", likeness)
        for image, name, caption in zip(images, (source, target, target), captions, strict=True):
            row.append(shown(face_square(image, studio.faces[name].box, AROUND), caption))
    return "Swap: identity and speech at once; cosines by the bundled recogniser (no independent judge)", row


def adaptation(studio: Studio, steps: int) -> Row:
    """The last frame of a clip, which is held out, before and after the generator was adapted to the clip."""
    clip = FrameArray(np.concatenate([swaying(studio.portraits["Collins"], i) for i in range(CLIP)]), FPS)
    footage = gather(clip, None, studio.generator, studio.detector, studio.recogniser)
    bar, move = bar_of("adapt", "step")
    with bar:
        result = adapt(studio.generator, footage, steps=steps, progress=move)
    adapted = replace(studio.generator, network=copy.deepcopy(studio.generator.network))
    merge(adapted.network, result.state, "the adapter")
    last = [len(footage) - 1]
    crops, references = (as_pictures(some[last]) for some in (footage.crops, footage.references()))
    before, after, own = result.before, result.after, footage.person
    row = [shown(footage.crops[-1], "held-out frame,\nthe network's crop")]
    for generator, who, caption in (
        (studio.generator, None, f"face kept,\nbefore: {before.kept:.2f} dB"),
        (adapted, None, f"face kept,\nafter: {after.kept:.2f} dB"),
        (studio.generator, own, f"drawn from own identity,\nbefore: {before.own:.2f} dB"),
        (adapted, own, f"drawn from own identity,\nafter: {after.own:.2f} dB"),
        (adapted, studio.people["Hopper"], "Hopper swapped in,\nafter"),
    ):
        made = generator.generate(crops, footage.windows[last], who, references)
        row.append(shown(to_rgb_uint8(made[0].permute(1, 2, 0)), caption))
    best = result.metadata["best_step"]
    kept = f"step {best} of {steps}" if best else f"no step of {steps} was better, nothing changed"
    title = f"Adaptation to a swaying still that says nothing, so only looks are learnt; {kept}."
    return f"{title} PSNR of held-out frames, lower half without the mouth", row


def hard_cases(studio: Studio) -> Row:
    """Pairs of target and result where it is known to go wrong, at the loudest moment of the sentence."""
    collins, still, face = studio.portraits["Collins"], studio.portraits["Hopper"], studio.faces["Hopper"]
    row = []
    frames, track = studio.draw(still, studio.loudest, studio.people["Collins"])
    eyes, lips = _around(face, slice(2), 2), _around(face, slice(3, 5), 1.2)
    laid = f"drawn at {studio.generator.px} px,\nlaid in at {track.crop_sides[0]:.0f} px"
    for what, box, caption in (("glasses", eyes, "Collins swapped in,\nwho wears none"), ("large face", lips, laid)):
        row += [shown(face_square(still, box, 1), f"{what}:\ntarget"), shown(face_square(frames[0], box, 1), caption)]
    covered = collins.copy()
    x0, y0, x1, y1 = _around(studio.faces["Collins"], slice(3, 5), 0.4).round().astype(int)
    covered[y0 : y1 + 2 * (y1 - y0), x0:x1] = COVER
    small = np.asarray(Image.fromarray(collins).reduce(SMALL))
    row += _spoilt(studio, "something before the mouth", covered)
    row += _spoilt(studio, "turned by 90 degrees", np.rot90(collins).copy())
    row += _spoilt(studio, f"1/{SMALL} as large", small)
    row += _spoilt(studio, f"1/{DARK} of the light", collins // DARK)
    return "Failures and hard input", row


def _around(face: Detection, points: slice, sides: float) -> NDArray[np.float32]:
    """Box around some landmarks; its side is measured in distances between the eyes."""
    centre, apart = face.landmarks[points].mean(0), np.hypot(*(face.landmarks[1] - face.landmarks[0]))
    return np.concatenate([centre - sides * apart / 2, centre + sides * apart / 2])


def _spoilt(studio: Studio, what: str, still: Picture) -> list[Picture]:
    """A picture unlike those that were trained on, and what was taken for its face, talking."""
    row = [shown(still, f"{what}:\ntarget")]
    try:
        frames, track = studio.draw(still, studio.loudest, None)
    except ValueError:
        return [*row, shown(still, "no face is found:\nleft as it was")]
    found = np.concatenate([track.landmarks[0].min(0), track.landmarks[0].max(0)])
    changed = studio.mouth_change(still, frames[0], track)
    caption = f"taken for the face, talking;\nits mouth differs by {changed:.1f}"
    return [*row, shown(face_square(frames[0], found, 2 * AROUND), caption)]


def gallery(rows: list[Row]) -> Picture:
    """Every row with its title over it, uint8 [H, W, 3]."""
    lines = []
    for title, pictures in rows:
        banner = Image.new("RGB", (SIDE * COLUMNS, TITLE), "lightgrey")
        ImageDraw.Draw(banner).text((6, 5), title, fill="black", font_size=FONT)
        lines.append(np.asarray(banner))
        lines += [np.concatenate(pictures[i : i + COLUMNS], 1) for i in range(0, len(pictures), COLUMNS)]
    return np.concatenate(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `python -m training gallery`."""
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="JPEG to write")
    parser.add_argument(
        "--weights", default="builtin", metavar="FILE", help="generator of this project to show (default %(default)s)"
    )
    parser.add_argument(
        "--adapt-steps", type=int, default=100, metavar="N", help="steps of the adaptation (default %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    """Draw and write.

    Raises:
        ValueError: a portrait's package is not installed, weights that cannot do all of this, or the picture cannot be
            written.
    """
    check_outputs([("--output", args.output)], [("--weights", args.weights)])
    try:
        studio = Studio(args.weights)
    except ImportError as error:
        raise not_installed(error) from error
    args.output.parent.mkdir(parents=True, exist_ok=True)
    rows = [reconstruction(studio), dubbing(studio), swaps(studio), adaptation(studio, args.adapt_steps)]
    picture = gallery([*rows, hard_cases(studio)])
    for quality in QUALITIES:
        save_picture(args.output, picture, quality=quality)
        if args.output.stat().st_size <= MOST_BYTES:
            break
    print(f"{args.output} ({args.output.stat().st_size / 1e3:.0f} kB)")
    return 0
