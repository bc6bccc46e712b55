"""The device that a command was given, looked at before any work; nothing is put on it."""

from __future__ import annotations

import torch


def check_device(name: str) -> None:
    """Refuse a device that is none, or that is not here.

    Args:
        name: as torch calls devices: cpu, cuda, cuda:1, mps ...

    Raises:
        ValueError: says what was found and what there is.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"--device {name!r} is no device. Give cpu, cuda, cuda:N or mps.") from error
    if device.type == "cpu" and device.index is None:
        return
    if device.type == "cuda":
        # Counting makes no context, which would cost memory on the first card in every process of a run.
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) < found:
            return
        built = f"is built for CUDA {torch.version.cuda}" if torch.version.cuda else "is built without CUDA"
        reason = f"{found} CUDA device(s) found, and this torch ({torch.__version__}) {built}"
    elif device.type == "mps" and torch.backends.mps.is_available():
        return
    else:
        reason = _fault(device)
        if not reason:
            return
    raise ValueError(f"--device {name} cannot be used: {reason}. Choose another, or see `python -m training doctor`.")


def _fault(device: torch.device) -> str:
    """Why a device of a rare kind does not compute; "" = it does."""
    if device.type == "cpu":
        return "there is one CPU for torch, without a number"
    try:
        right = torch.ones(2, device=device).sum().item() == 2
    except (RuntimeError, AssertionError, ImportError, AttributeError) as error:
        return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
    return "" if right else "it computes wrong sums"
