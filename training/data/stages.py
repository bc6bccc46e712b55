"""The way of one video from file to tracks: stage after stage, each done once whatever happens in between."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from .features import features
from .footage import normalise, probe, still
from .items import Item, Settings
from .pictures import encode, smaller
from .quality import identity, quality
from .sync import sync
from .tracking import crop, track
from .work import FAILED, Work, discard_partial, replacing

log = logging.getLogger(__name__)
Stage = Callable[[Item, Work, Settings], dict]

STAGES: dict[str, Stage] = {
    "probe": probe,
    "normalise": normalise,
    "track": track,
    "crop": crop,
    "features": features,
    "sync": sync,
    "quality": quality,
    "identity": identity,
}
STILL, STILL_SIDE = "still.jpg", 120  # of an item that cannot be used, for the report
DROPPING = ("quality", "sync", "identity")  # stages that may drop single tracks; the first one's reason is told


def prepare_item(item: Item, folder: Path, settings: Settings) -> str:
    """Bring one item through all stages that are not done yet.

    Args:
        item: what.
        folder: of all working folders.
        settings: how.

    Returns:
        One line on how it went. An item that cannot be used has its stage and reason in failed.json.
    """
    work = Work(folder / item.key)
    for name, stage in STAGES.items():
        if work.is_done(FAILED):
            break
        if work.is_done(name):
            continue
        try:
            work.finish(name, stage(item, work, settings))
        except (ValueError, IndexError) as error:  # what the engine says of a file that is damaged or does not fit
            _keep_still(item, work)
            work.finish(FAILED, {"stage": name, "reason": str(error)})
    discard_partial(work.folder)
    if work.is_done(FAILED):
        return f"{item.name}: {work.result(FAILED)['reason']}"
    return f"{item.name}: {len(work.result('track')['tracks'])} tracks"


def _keep_still(item: Item, work: Work) -> None:
    picture = still(item)
    if picture is not None:
        with replacing(work.path(STILL)) as file:
            file.write(encode(smaller(picture, STILL_SIDE)))
