"""Host adapters: the only layer that knows ComfyUI. Every node is a thin shell around `models`."""

from __future__ import annotations

from typing import Any


async def comfy_entrypoint() -> Any:
    """The pack's extension; the host calls this once at start-up."""
    from .extension import WavSyncSwap

    return WavSyncSwap()
