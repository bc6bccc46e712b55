"""Save Embedding and Load Embedding."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import Any

import folder_paths
from comfy_api.latest import io

from . import folders, host

OUTPUT_MARK = " [output]"


def _saved() -> list[str]:
    """Files of output/wavsyncswap; never raises, see `folders`."""
    folder = Path(folder_paths.get_output_directory(), folders.FOLDER)
    found = (Path(place, name) for place, _, names in os.walk(folder) for name in names)
    kept = (path for path in found if path.suffix == ".safetensors" and os.path.isfile(path))
    return sorted(path.relative_to(folder).as_posix() + OUTPUT_MARK for path in kept)


def _path(name: str) -> Path:
    if not name.endswith(OUTPUT_MARK):
        return folders.model_path(name)
    folder = Path(folder_paths.get_output_directory(), folders.FOLDER).resolve()
    path = (folder / name.removesuffix(OUTPUT_MARK)).resolve()
    if not (path.is_relative_to(folder) and path.is_file()):
        raise ValueError(f"There is no embedding '{name}' in {folder}. Press R in the page and choose another.")
    return path


def _inside(filename: str) -> str:
    """A name for a file in output/wavsyncswap, where Load Embedding looks.

    Raises:
        ValueError: it leads out of that folder, or names none.
    """
    name = filename.strip().replace("\\", "/").strip("/") or "face"
    parts = PurePosixPath(name).parts
    if not parts or ".." in parts:
        raise ValueError(
            f"filename is '{filename}', which is no name of a file in output/{folders.FOLDER}. Give a name such as"
            " face, or people/face for a sub-folder."
        )
    return "/".join(parts)


class SaveEmbedding(io.ComfyNode):
    """An identity as a small file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Schema."""
        return host.schema(
            node_id="WSS_SaveEmbedding",
            display_name="Save Face Embedding",
            description=(
                "Writes an identity to output/wavsyncswap as .safetensors (a few kB), never over an existing file."
            ),
            inputs=[
                host.EmbeddingSocket.Input("embedding", tooltip="From ArcFace Embed."),
                io.String.Input(
                    "filename",
                    default="face",
                    tooltip=(
                        "Name of the file without number and suffix. Default face:"
                        " output/wavsyncswap/face_00001_.safetensors."
                    ),
                ),
            ],
            outputs=[
                host.EmbeddingSocket.Output(display_name="embedding", tooltip="The embedding, unchanged."),
                io.String.Output(display_name="path", tooltip="Where the file was written."),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, embedding: Any, filename: str) -> io.NodeOutput:
        """Number the file as the host numbers pictures."""
        prefix = f"{folders.FOLDER}/{_inside(filename)}"
        folder, name, counter, _, _ = folder_paths.get_save_image_path(prefix, folder_paths.get_output_directory())
        path = Path(folder, f"{name}_{counter:05}_.safetensors")
        embedding.save(path)
        return io.NodeOutput(embedding, str(path))


class LoadEmbedding(io.ComfyNode):
    """An identity from a file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Schema."""
        names = [*folders.model_files("embeddings"), *_saved()]
        return host.schema(
            node_id="WSS_LoadEmbedding",
            display_name="Load Face Embedding",
            description="Reads an identity that Save Face Embedding wrote.",
            inputs=[
                io.Combo.Input(
                    "file",
                    options=names or ["none found"],
                    tooltip=(
                        "File of models/wavsyncswap/embeddings, or of output/wavsyncswap (marked [output]). Press R"
                        " after saving a new one."
                    ),
                )
            ],
            outputs=[
                host.EmbeddingSocket.Output(display_name="embedding", tooltip="For Generate or Talking Swap Video."),
                io.String.Output(display_name="report", tooltip="Recogniser, pictures averaged, quality 0 to 1."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, file: str) -> Any:
        """Read again when the file has changed."""
        return file, folders.file_state(_path(file))

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        """Read and check."""
        from ..models.identity import FaceEmbedding

        embedding = FaceEmbedding.load(_path(file))
        report = f"recogniser {embedding.recogniser}, {embedding.count} picture(s), quality {embedding.quality:.2f}"
        return io.NodeOutput(embedding, report)
