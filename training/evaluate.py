"""`python -m training evaluate`: a test set through several systems, and the paper's three tables side by side.

Every video and every number is kept on its own, so a run that was stopped goes on where it was; whatever was made with
other weights, pairs or judges is made anew.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.checkpoints import sha256_file
from models.faces import Detector, load_detector
from models.identity import FaceEmbedding, load_recogniser
from models.metrics import METRICS
from models.metrics.fid import load_inception
from models.metrics.landmarks import load_landmarks
from models.metrics.subject import Tools
from models.metrics.sync_model import bundled_expert, load_sync_model
from models.upstream import split

from .evaluation import paper, speed
from .evaluation.contenders import SYNTAX, TRUTH, Contender, Entry, enter
from .evaluation.judging import Item, Judge, galleries
from .evaluation.making import Maker, Recognisers
from .evaluation.pairs import Pair, read_pairs, shuffled_pairs, write_pairs
from .evaluation.report import Findings, warning, write_report
from .evaluation.strips import write_strips
from .evaluation.summary import RESAMPLES, Cell, cells, differences
from .evaluation.tables import Table, difference_table, quality_tables, speed_tables
from .outputs import check_folder

log = logging.getLogger(__name__)

PARTS = ("quality", "speed")
DRAWS_NOTHING = "random weights draw nothing that could be judged; they are for table 3"


@dataclass
class Evaluation:
    """One evaluation.

    Attributes:
        folder: for everything.
        pairs: the test set.
        entries: the systems.
        detector: finds faces, in making and in judging.
        recognisers: of the systems.
        device: torch device.
        precision: of all systems but those in their programs' own way.
    """

    folder: Path
    pairs: list[Pair]
    entries: list[Entry]
    detector: Detector
    recognisers: Recognisers
    device: str
    precision: str

    @property
    def making(self) -> dict[str, Any]:
        """What every video depends on beside pair and system; a system's weights say which recogniser is theirs."""
        return {"precision": self.precision, "detector": [self.detector.name, self.detector.threshold]}

    def items(self, entry: Entry) -> list[Item]:
        """One a pair."""
        return [Item(self.folder, entry, pair, self.making) for pair in self.pairs]

    def maker(self, entry: Entry) -> Maker:
        """A system, loaded."""
        return Maker(entry, entry.load(self.device, self.precision), self.detector, self.recognisers)

    def check(self) -> None:
        """Load every system once: what cannot be used is told now, and not after hours.

        Raises:
            ValueError: says which system, and why.
        """
        for entry in (entry for entry in self.entries if not entry.contender.is_truth):
            try:
                system = entry.load(self.device, self.precision)
                if entry.contender.upstream:
                    split(system)
                if system.takes_identity and not entry.contender.keep:
                    self.recognisers.of(system, entry.stand_in)
                elif not system.keeps_identity:
                    system.check_identity(None)
            except ValueError as error:
                raise ValueError(f"{entry.name}: {error}") from error

    def make_all(self, everything: dict[str, list[Item]]) -> None:
        """Make every video that is not there yet, system after system."""
        for items in everything.values():
            missing = [item for item in items if item.made is None or "failed" in item.made]
            maker = self.maker(items[0].entry) if missing else None
            for number, item in enumerate(missing, 1):
                assert maker is not None
                log.info("%s: video %d of %d, %s", item.entry.name, number, len(missing), item.pair.name)
                item.make(maker)

    def judge_all(self, everything: dict[str, list[Item]], judge: Judge, sources: Mapping[str, FaceEmbedding]) -> None:
        """Measure everything that is not measured yet."""
        for items in everything.values():
            for number, item in enumerate(items, 1):
                log.info("%s: measuring %d of %d, %s", item.entry.name, number, len(items), item.pair.name)
                item.judge(judge, sources.get(item.pair.name))


def quality(evaluation: Evaluation, judge: Judge) -> tuple[list[Table], list[tuple[str, str, str, str]]]:
    """Make, measure and draw: tables, and what was left out."""
    entries = [entry for entry in evaluation.entries if not entry.stand_in]
    skipped = [(one.name, "all", "tables 1 and 2", DRAWS_NOTHING) for one in evaluation.entries if one.stand_in]
    if not entries:
        return [], skipped
    items = {entry.name: evaluation.items(entry) for entry in entries}
    evaluation.make_all(items)
    sources = galleries(evaluation.pairs, judge)
    evaluation.judge_all(items, judge, sources)
    people = np.array([source.vector for source in sources.values()])
    found: list[tuple[Entry, dict[str, Cell]]] = []
    methods: dict[str, str] = {}
    for entry in entries:
        numbers, by = cells(items[entry.name], judge, people)
        found.append((entry, numbers))
        methods |= by
        skipped += [
            (entry.name, item.pair.name, metric, reason)
            for item in items[entry.name]
            for metric, reason in item.skipped(judge).items()
        ]
    notes = [text for text in (warning(entries),) if text]
    recogniser = judge.tools.recogniser
    if recogniser and recogniser.id in {one.id for one in evaluation.recognisers.known}:
        notes.append("Likeness is judged by a recogniser that systems were trained with; another is stricter.")
    by_pair = [list(one) for one in zip(*items.values(), strict=True)]
    write_strips(evaluation.folder / "strips", evaluation.pairs, by_pair, evaluation.detector)
    tables = quality_tables(found, methods, notes)
    for one in (entry for entry in entries if entry.of_paper == "wavsyncswap"):
        against = [
            (entry, differences(items[one.name], items[entry.name], judge)) for entry in entries if entry is not one
        ]
        table = difference_table(one, against, notes[:1] if warning(entries) else [])
        tables += [table] if table else []
    return tables, skipped


def timed(evaluation: Evaluation, seconds: float, repeats: int) -> list[Table]:
    """Table 3."""
    entries = [entry for entry in evaluation.entries if not entry.contender.is_truth]
    if not entries:
        return []
    folder = evaluation.folder / "speed"
    makers = [evaluation.maker(entry) for entry in entries]
    stage = speed.stage(evaluation.pairs, folder, seconds, makers[0])
    where = speed.machine(evaluation.device)
    about = {"device": where, "seconds": seconds, **evaluation.making}
    found = speed.measure(makers, stage, folder, repeats, about)
    height, width = stage.frames.shape[1:3]
    clip = f"{float(stage.seconds):.2f} s, {len(stage.frames)} frames of {width}x{height}"
    notes = [text for text in (warning(entries),) if text]
    notes += [
        f"{where}. Clip of {clip}. Batch {speed.BATCH}, SimSwap in its program's own way one frame at a time and in "
        f"fp32; the others in {evaluation.precision}.",
        speed.WHAT,
    ]
    if any(entry.stand_in for entry in entries):
        notes.append("Random Wav2Lip weights are run, and hand on the face that went in, so that SimSwap finds it.")
    return speed_tables(entries, found, notes)


def judge_of(args: argparse.Namespace, detector: Detector) -> Judge:
    """The tools that the command line names."""
    sync = args.sync or bundled_expert()
    recogniser = load_recogniser(args.identity_judge, args.device)
    files = {"sync": sync, "landmarks": args.landmarks, "inception": args.inception}
    tools = Tools(
        detector,
        recogniser,
        load_sync_model(sync, args.device) if sync else None,
        load_landmarks(args.landmarks) if args.landmarks else None,
        load_inception(args.inception, args.device) if args.inception else None,
        min_track=args.min_track,
    )
    about = {name: sha256_file(path) for name, path in files.items() if path}
    about |= {"recogniser": recogniser.id, "min_track": args.min_track, "detector": detector.name}
    return Judge(tools, tuple(args.metrics), about)


def test_set(args: argparse.Namespace) -> list[Pair]:
    """The pairs that the command line names.

    Raises:
        ValueError: a negative limit; else as `read_pairs` and `shuffled_pairs`.
    """
    if args.limit < 0:
        raise ValueError(f"--limit is {args.limit}; give the number of pairs, or 0 for all.")
    pairs = read_pairs(args.manifest) if args.manifest else shuffled_pairs(args.data, args.split, args.seed)
    return pairs[: args.limit] if args.limit else pairs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `python -m training evaluate`."""
    test = parser.add_mutually_exclusive_group(required=True)
    test.add_argument(
        "--data",
        type=Path,
        help="folder of videos; each becomes a target, another's first frame its face (default: none, see --manifest)",
    )
    test.add_argument(
        "--manifest",
        type=Path,
        help="test set as CSV: target, source, and audio, name, person if known (default: none, see --data)",
    )
    parser.add_argument("--split", default="val", help="of --data, where its manifest.csv has splits (default: val)")
    parser.add_argument("--seed", type=int, default=0, help="of the shuffle of --data (default: 0)")
    parser.add_argument("--limit", type=int, default=0, metavar="N", help="only the first N pairs (default: 0 = all)")
    parser.add_argument("--output", type=Path, required=True, help="folder for videos, numbers, tables, pictures")
    parser.add_argument(
        "--systems",
        nargs="+",
        required=True,
        metavar="SYSTEM",
        help=f"{TRUTH}, or {SYNTAX}. FILE: builtin, any weights that infer takes, a checkpoint of a training run, or "
        "random:KIND (wav2lip, simswap, base-96, small-96, base-256) to measure speed without weights. Two files are a "
        "cascade. upstream: the original programs' way with whole frames; keep: no source face; SIDE: px of SimSwap",
    )
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=list(PARTS), help="tables 1 and 2, 3 (default: all)"
    )
    making = parser.add_argument_group("making")
    making.add_argument(
        "--recognisers", nargs="+", default=["builtin"], help="those that the systems understand (default: builtin)"
    )
    making.add_argument("--detector", default="builtin", help="builtin, or an insightface pack (default: builtin)")
    making.add_argument(
        "--precision", choices=("fp32", "bf16", "fp16", "auto"), default="fp32", help="of all systems (default: fp32)"
    )
    making.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: cpu)")
    judging = parser.add_argument_group("judging")
    judging.add_argument(
        "--metrics", nargs="+", choices=list(METRICS), default=list(METRICS), help="what is measured (default: all)"
    )
    judging.add_argument("--sync", type=Path, help="syncnet_v2.model, or a sync expert (default: the bundled one)")
    judging.add_argument(
        "--identity-judge",
        default="builtin",
        help="recogniser that judges likeness; better not the one in the losses (default: builtin)",
    )
    judging.add_argument(
        "--landmarks", type=Path, help="face_landmarker.task, or 1k3d68.onnx of buffalo_l (default: none, no LMD)"
    )
    judging.add_argument("--inception", type=Path, help="pt_inception-2015-12-05-6726825d.pth (default: none, no FID)")
    judging.add_argument(
        "--min-track", type=int, default=100, help="least detections of a face for LSE, frames (default: 100)"
    )
    timing = parser.add_argument_group("timing")
    timing.add_argument("--repeats", type=int, default=20, help="rounds (default: 20)")
    timing.add_argument("--seconds", type=float, default=10.0, help="length of the clip, s (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Evaluate, and say where the report is."""
    check_folder("--output", args.output)
    contenders = [Contender.parse(text) for text in args.systems]
    pairs = test_set(args)
    args.output.mkdir(parents=True, exist_ok=True)
    write_pairs(args.output / "pairs.csv", pairs)
    weights = args.output / "weights"
    entries = enter(contenders, weights)
    detector = load_detector(args.detector, args.device)
    recognisers = Recognisers.load(args.recognisers, weights, args.device)
    evaluation = Evaluation(args.output, pairs, entries, detector, recognisers, args.device, args.precision)
    evaluation.check()
    tables: list[Table] = []
    skipped: Sequence[tuple[str, str, str, str]] = ()
    settings: dict[str, Any] = {"pairs": len(pairs), **evaluation.making}
    if "quality" in args.parts:
        judge = judge_of(args, detector)
        settings["judge"] = judge.about
        tables, skipped = quality(evaluation, judge)
    if "speed" in args.parts:
        tables = [*tables, *timed(evaluation, args.seconds, args.repeats)]
    people = len({pair.person for pair in pairs})
    about = [
        f"{len(pairs)} pairs, sources of {people} people. Detector {detector.name}; systems in {args.precision}, in "
        "their programs' own way in fp32.",
        f"[ ] is the 95 % interval of {RESAMPLES} bootstrap samples of the videos, n the number of videos. ↑ more is "
        f"better, ↓ less is. {paper.PROTOCOL}",
    ]
    names, strips = [pair.name for pair in pairs], any((args.output / "strips").glob("*.jpg"))
    page = write_report(args.output, Findings(entries, tables, about, skipped, names, strips, settings))
    print(page.with_suffix(".md").read_text(encoding="utf-8"))
    print(page)
    return 0
