"""The list of nodes, and the one folder that the pack adds to the host."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from . import folders
from .adapt import Adapt, LoadAdapter
from .arcface_embed import ArcFaceEmbed
from .embedding_files import LoadEmbedding, SaveEmbedding
from .face_crop import FaceCrop
from .generate import Generate
from .identity_score import IdentityScore
from .load_audio_mel import LoadAudioMel
from .load_model import LoadModel
from .paste_back import PasteBack
from .sync_score import SyncScore
from .talking_swap_video import TalkingSwapVideo


class WavSyncSwap(ComfyExtension):
    """What the host asks for after loading the pack."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Register `models/wavsyncswap` and hand over the nodes."""
        folders.register_folder()
        return [
            LoadModel,
            Adapt,
            LoadAdapter,
            LoadAudioMel,
            FaceCrop,
            ArcFaceEmbed,
            SaveEmbedding,
            LoadEmbedding,
            Generate,
            PasteBack,
            TalkingSwapVideo,
            SyncScore,
            IdentityScore,
        ]
