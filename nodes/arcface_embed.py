"""ArcFace Embed."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from comfy_api.latest import io

from . import host, recognition, values


class ArcFaceEmbed(io.ComfyNode):
    """The identity of one person, from one or several pictures."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Schema."""
        return host.schema(
            node_id="WSS_ArcFaceEmbed",
            display_name="ArcFace Embed",
            description=(
                "Measures who is in the picture. Several pictures of one person (a batch) are averaged, outliers left"
                " out: a better likeness than one picture."
            ),
            inputs=[
                io.Image.Input(
                    "image",
                    tooltip="Source face: a photo, or a batch of photos of one person. The largest face counts.",
                ),
                io.Combo.Input(
                    "recogniser",
                    options=recognition.recogniser_names(),
                    default=recognition.BUILTIN,
                    tooltip=(
                        "Recognition network. Default builtin, which the built-in model was trained with. A model only"
                        " takes embeddings of its own recogniser; for SimSwap that is arcface_checkpoint.tar."
                    ),
                ),
                io.Combo.Input(
                    "detector",
                    options=recognition.detector_names(),
                    default=recognition.BUILTIN,
                    tooltip="Face detector. Default builtin; others are insightface packs.",
                ),
                io.Float.Input(
                    "threshold",
                    default=0.6,
                    min=0.05,
                    max=0.99,
                    step=0.01,
                    tooltip="Least detection score, 0 to 1. Default 0.6. Lower it for difficult pictures.",
                ),
            ],
            outputs=[
                host.EmbeddingSocket.Output(
                    display_name="embedding",
                    tooltip="Identity vector with its recogniser's name, for Generate or Save Embedding.",
                ),
                io.Image.Output(
                    display_name="aligned",
                    tooltip="The 112x112 faces that were measured: check that it is the right one.",
                ),
                io.String.Output(
                    display_name="report", tooltip="Pictures used and left out, recogniser, quality 0 to 1."
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, recogniser: str, detector: str, **_: Any) -> Any:
        """Embed again when the file of recogniser or detector has changed."""
        return recognition.recogniser_state(recogniser), recognition.detector_state(detector)

    @classmethod
    def execute(cls, image: torch.Tensor, recogniser: str, detector: str, threshold: float) -> io.NodeOutput:
        """Embed each picture, then average."""
        embedding, aligned, report = embed_source(image, recogniser, detector, threshold, host.progress())
        return io.NodeOutput(embedding, host.result(aligned), report)


def embed_source(
    images: torch.Tensor, recogniser: str, detector: str, threshold: float, step: host.Progress
) -> tuple[Any, torch.Tensor, str]:
    """Identity of the largest face of every picture, averaged.

    Args:
        images: host IMAGE, one person.
        recogniser: a choice of the recogniser widget.
        detector: a choice of the detector widget.
        threshold: least detection score.
        step: progress callable.

    Returns:
        FaceEmbedding, float32 [n, 112, 112, 3] measured faces, report.

    Raises:
        ValueError: no picture shows a face.
    """
    from ..models.faces import largest_face
    from ..models.identity import average_embeddings

    pictures = values.rgb(images, "image")
    network, finder = recognition.load_recogniser(recogniser), recognition.load_detector(detector, threshold)
    embeddings, faces, without = [], [], []
    for i, picture in enumerate(pictures):
        pixels = values.to_uint8(picture)
        try:
            found = largest_face(pixels, finder)
        except ValueError as error:
            without.append((i, error))
        else:
            embeddings.append(network.embed_image(pixels, finder))
            faces.append(network.align(pixels[None], found.landmarks[None])[0])
        step(i + 1, len(pictures))
    if not embeddings:
        raise without[0][1]
    embedding = embeddings[0] if len(embeddings) == 1 else average_embeddings(embeddings)
    report = (
        f"{embedding.count} of {len(pictures)} picture(s) used, recogniser {embedding.recogniser}, quality"
        f" {embedding.quality:.2f}"
    )
    if without:
        report += "; no face in picture " + ", ".join(str(i) for i, _ in without)
    return embedding, torch.from_numpy(np.stack(faces)).float() / 255, report
