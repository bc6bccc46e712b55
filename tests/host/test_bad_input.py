"""Every bad input gets the documented behaviour or one clear error."""

from __future__ import annotations

import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.host import graphs, media
from tests.host.comfy import Host

ONE_FACE = "one_face.mp4"


@pytest.fixture(scope="module", autouse=True)
def inputs(host: Host, astronaut: np.ndarray) -> Path:
    """Small files, good and bad, in the input folder."""
    folder = host.base / "input"
    small = astronaut[:360, 40:400]
    frames = media.nodding(small, 6)
    empty = np.full_like(small, 90)
    media.write_video(folder / ONE_FACE, frames, Fraction(25), media.babble(0.24))
    media.write_video(folder / "silent_film.mp4", frames, Fraction(25))
    media.write_video(folder / "nobody.mp4", np.stack([empty] * 4), Fraction(25))
    media.write_video(folder / "comes_late.mp4", np.stack([empty] * 3 + list(frames[:3])), Fraction(25))
    media.write_video(folder / "one_frame.mp4", frames[:1], Fraction(25))
    media.write_video(folder / "two_faces.mp4", np.concatenate([frames, frames[:, :, ::-1]], 2), Fraction(25))
    media.write_video(folder / "odd.mkv", frames[:, :359, :333], Fraction(25), pixel_format="yuv444p")
    whole = (folder / ONE_FACE).read_bytes()
    (folder / "corrupt.mp4").write_bytes(whole[: len(whole) // 3])
    Image.fromarray(empty).save(folder / "nobody.png")
    Image.fromarray(np.dstack([small, np.full(small.shape[:2], 200, np.uint8)])).save(folder / "rgba.png")
    Image.fromarray(small).convert("L").save(folder / "grey.png")
    return folder


def test_no_face_in_the_video(host: Host) -> None:
    message = host.fail(graphs.without_video(graphs.swap("nobody.mp4", keep=("images",))))
    assert "face" in message.lower()
    assert "threshold" in message.lower()


def test_no_face_in_the_source_picture(host: Host) -> None:
    graph = graphs.without_video(graphs.swap(ONE_FACE, keep=("images",)))
    graphs.find(graph, "LoadImage")["image"] = "nobody.png"
    assert "face" in host.fail(graph).lower()


def test_face_absent_in_part_passes_through(host: Host) -> None:
    graph = graphs.without_video(graphs.swap("comes_late.mp4", keep=("frames", "images", "mask")))
    graph["50"] = graphs.text(["7", 4])
    result = host.run(graph)
    frames, images, mask = (
        torch.load(host.base / "output" / f"{name}.pt", weights_only=True) for name in ("frames", "images", "mask")
    )
    assert torch.equal(frames[:3], images[:3])
    assert mask[:3].max() == 0
    assert not torch.equal(frames[4], images[4])
    assert "0-2" in result["50"]["text"][0]


def test_two_faces_the_chosen_one_changes(host: Host) -> None:
    for order, changed, kept in (
        ("left-right", slice(0, 360), slice(360, 720)),
        ("right-left", slice(360, 720), slice(0, 360)),
    ):
        graph = graphs.without_video(graphs.swap("two_faces.mp4", keep=("frames", "images")))
        graphs.find(graph, "WSS_FaceCrop")["face_order"] = order
        host.run(graph)
        frames, images = (
            torch.load(host.base / "output" / f"{name}.pt", weights_only=True) for name in ("frames", "images")
        )
        assert torch.equal(frames[:, :, kept], images[:, :, kept]), order
        assert not torch.equal(frames[:, :, changed], images[:, :, changed]), order


def test_count_mismatch_names_all_counts(host: Host) -> None:
    graph = graphs.without_video(graphs.swap(ONE_FACE, keep=("images",)))
    graph["60"] = {"class_type": "ImageFromBatch", "inputs": {"image": ["9", 0], "batch_index": 0, "length": 4}}
    graphs.find(graph, "WSS_PasteBack")["crops"] = ["60", 0]
    message = host.fail(graph)
    assert "'frames' holds 6, 'crops' 4 and 'track' 6" in message


def test_frames_of_another_size(host: Host) -> None:
    graph = graphs.without_video(graphs.swap(ONE_FACE, keep=("images",)))
    graph["60"] = {
        "class_type": "ImageScaleBy",
        "inputs": {"image": ["2", 0], "upscale_method": "bilinear", "scale_by": 0.5},
    }
    graphs.find(graph, "WSS_PasteBack")["frames"] = ["60", 0]
    message = host.fail(graph)
    assert "180x180" in message
    assert "360x360" in message


def test_video_without_sound_keeps_the_mouth_shut(host: Host) -> None:
    graph = graphs.without_video(graphs.swap("silent_film.mp4", keep=("images",)))
    graphs.find(graph, "WSS_LoadAudioMel")["audio"] = ["2", 1]
    graph["50"] = graphs.text(["6", 3])
    assert "silence" in host.run(graph)["50"]["text"][0]


def test_file_of_the_input_folder_as_speech(host: Host) -> None:
    graph = {
        "1": {"class_type": "WSS_LoadAudioMel", "inputs": {"audio_file": "demo_speech.flac", "seconds": 5.0}},
        "2": graphs.text(["1", 3]),
    }
    assert "demo_speech.flac" in host.run(graph)["2"]["text"][0]
    graph["1"]["inputs"]["audio_file"] = "gone.wav"
    assert "gone.wav" in host.fail(graph)


@pytest.mark.parametrize("channels", [1, 4])
def test_grey_and_rgba_frames(host: Host, channels: int) -> None:
    graph = graphs.without_video(graphs.swap(ONE_FACE, keep=("images",)))
    make = {"image": ["2", 0], "channels": channels, "frames": 3}
    graph["60"] = {"class_type": "TestOdd", "inputs": make}
    graphs.find(graph, "WSS_FaceCrop")["images"] = ["60", 0]
    graphs.find(graph, "WSS_PasteBack")["frames"] = ["60", 0]
    host.run(graph)
    assert torch.load(host.base / "output" / "images.pt", weights_only=True).shape == (3, 360, 360, 3)


@pytest.mark.parametrize("name", ["rgba.png", "grey.png"])
def test_grey_and_rgba_source_pictures(host: Host, name: str) -> None:
    graph = graphs.without_video(graphs.swap(ONE_FACE, keep=("images",)))
    graphs.find(graph, "LoadImage")["image"] = name
    host.run(graph)


@pytest.mark.parametrize("name, frames", [("one_frame.mp4", 1), ("odd.mkv", 6)])
def test_odd_clips_stream(host: Host, name: str, frames: int) -> None:
    graph = graphs.load("streaming_video")
    graphs.find(graph, "LoadVideo")["file"] = name
    (saved,) = graphs.outputs(graph, host.run(graph), "SaveVideo")["images"]
    assert media.count_frames(host.saved(saved))[0] == frames


def test_corrupt_video(host: Host) -> None:
    graph = graphs.load("streaming_video")
    graphs.find(graph, "LoadVideo")["file"] = "corrupt.mp4"
    status, body = host.post("/prompt", {"prompt": graph})
    assert status == 200, body
    entry = host.wait(body["prompt_id"])
    assert entry["status"]["status_str"] == "error"
    assert list((host.base / "temp").glob("*.part*")) == []


def video_graphs(file: str) -> dict[str, dict[str, Any]]:
    """A graph that ends with each node that takes a VIDEO, by the node's name."""
    settings: dict[str, Any] = {"detector": "builtin", "threshold": 0.6, "face_order": "largest", "face_index": 0}
    settings |= {"select_frame": 0, "point_x": -1, "point_y": -1, "fps": 25.0, "video": ["1", 0], "model": "auto"}
    settings |= {"mode": "video", "min_frames": 16, "min_face": 100, "valid_only": False, "steps": 1, "name": "a"}
    start: dict[str, Any] = {"1": {"class_type": "LoadVideo", "inputs": {"file": file}}}
    start["2"] = {"class_type": "WSS_LoadModel", "inputs": {"model": "builtin (small 96)", "precision": "fp32"}}
    start["3"] = {"class_type": "LoadImage", "inputs": {"image": "demo_portrait.png"}}
    portrait = {"image": ["3", 0], "recogniser": "builtin", "detector": "builtin", "threshold": 0.6}
    start["4"] = {"class_type": "WSS_ArcFaceEmbed", "inputs": portrait}
    streaming = graphs.load("streaming_video")
    graphs.find(streaming, "LoadVideo")["file"] = file
    made = {"WSS_TalkingSwapVideo": streaming}
    for name, more in (
        ("WSS_SyncScore", {}),
        ("WSS_IdentityScore", {"source": ["4", 0]}),
        ("WSS_Adapt", {"model": ["2", 0]}),
    ):
        made[name] = {**start, "5": {"class_type": name, "inputs": {**settings, **more}}, "6": graphs.text(["5", 1])}
    return made


@pytest.mark.parametrize("name", ["corrupt.mp4", "empty.mp4", "page.mp4"])
def test_a_damaged_video_is_the_same_clear_error_everywhere(host: Host, inputs: Path, name: str) -> None:
    (inputs / "empty.mp4").touch()
    (inputs / "page.mp4").write_text("<!DOCTYPE html><html>404</html>")
    for kind, graph in video_graphs(name).items():
        message = host.fail(graph)
        assert message.startswith(name), (kind, message)
        assert "damaged" in message, (kind, message)


def test_a_bare_h264_stream(host: Host, inputs: Path, astronaut: np.ndarray) -> None:
    """Its length is not written in it, so the host cannot tell it."""
    media.write_bare_video(inputs / "bare.h264", media.nodding(astronaut[:360, 40:400], 6), Fraction(25))
    made = video_graphs("bare.h264")
    (saved,) = graphs.outputs(made["WSS_TalkingSwapVideo"], host.run(made["WSS_TalkingSwapVideo"]), "SaveVideo")[
        "images"
    ]
    assert media.count_frames(host.saved(saved))[0] == 6
    host.run(made["WSS_IdentityScore"])
    assert "at least 50 are needed" in host.fail(made["WSS_Adapt"])


def test_a_video_with_odd_sides_compares_with_its_original(host: Host) -> None:
    graph = video_graphs("odd.mkv")["WSS_IdentityScore"]
    made = graphs.find(video_graphs("odd.mkv")["WSS_TalkingSwapVideo"], "WSS_TalkingSwapVideo")
    inputs = {**made, "model": ["2", 0], "video": ["1", 0]}
    for name in ("audio", "face"):
        inputs.pop(name)
    graph["7"] = {"class_type": "WSS_TalkingSwapVideo", "inputs": inputs}
    graph["8"] = {"class_type": "LoadVideo", "inputs": {"file": "odd.mkv"}}
    graph["2"] = {"class_type": "WSS_LoadModel", "inputs": {"model": "builtin (small 96)", "precision": "fp32"}}
    graph["5"]["inputs"] |= {"video": ["7", 0], "original": ["8", 0]}
    assert float(host.run(graph)["6"]["text"][0]) > 0.5  # the face was kept


def test_sound_wired_from_a_silent_video_is_silence(host: Host) -> None:
    """The target's own speech is not what was asked for."""
    silent: dict[str, Any] = {"80": {"class_type": "LoadVideo", "inputs": {"file": "silent_film.mp4"}}}
    silent["81"] = {"class_type": "GetVideoComponents", "inputs": {"video": ["80", 0]}}
    made = {name: {**graph, **silent} for name, graph in video_graphs(ONE_FACE).items()}
    talking = made["WSS_TalkingSwapVideo"]
    graphs.find(talking, "WSS_TalkingSwapVideo").pop("audio")
    assert "No sound" not in graphs.outputs(talking, host.run(talking), "PreviewAny")["text"][0]
    graphs.find(talking, "WSS_TalkingSwapVideo")["audio"] = ["81", 1]
    assert "No sound: the lips rest" in graphs.outputs(talking, host.run(talking), "PreviewAny")["text"][0]
    score = made["WSS_SyncScore"]
    assert "no sound" not in host.fail(score)  # the clip is too short, but is heard
    graphs.find(score, "WSS_SyncScore")["audio"] = ["81", 1]
    assert "no sound" in host.fail(score)
    mel = {"audio_file": "demo_speech.flac", "seconds": 1.0, "audio": ["81", 1]}
    graph = {**silent, "1": {"class_type": "WSS_LoadAudioMel", "inputs": mel}, "2": graphs.text(["1", 3])}
    assert "no sound: silence" in host.run(graph)["2"]["text"][0]


def test_portrait_and_video_together_or_neither(host: Host) -> None:
    graph = graphs.load("streaming_video")
    graphs.find(graph, "WSS_TalkingSwapVideo")["portrait"] = ["2", 0]
    assert "either 'video' or 'portrait'; both are connected" in host.fail(graph)
    for name in ("video", "portrait"):
        del graphs.find(graph, "WSS_TalkingSwapVideo")[name]
    assert "neither is connected" in host.fail(graph)


def test_portrait_without_speech(host: Host) -> None:
    graph = graphs.load("still_portrait")
    del graphs.find(graph, "WSS_TalkingSwapVideo")["audio"]
    assert "needs speech" in host.fail(graph)


def embedding_graph(name: str) -> dict[str, Any]:
    graph = graphs.without_video(graphs.swap(ONE_FACE, keep=("images",)))
    graph["8"] = {"class_type": "WSS_LoadEmbedding", "inputs": {"file": name}}
    return graph


def test_embedding_of_another_recogniser(host: Host) -> None:
    from models.identity import FaceEmbedding

    folder = host.base / "models" / "wavsyncswap" / "embeddings"
    folder.mkdir(exist_ok=True)
    vector = np.zeros(512, np.float32)
    vector[0] = 1
    FaceEmbedding(vector, "somebody-else-r100", 1.0, 1).save(folder / "foreign.safetensors")
    assert "somebody-else-r100" in host.fail(embedding_graph("embeddings/foreign.safetensors"))


def test_embedding_through_a_file_is_the_same(host: Host) -> None:
    save = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "demo_portrait.png"}},
        "2": {
            "class_type": "WSS_ArcFaceEmbed",
            "inputs": {"image": ["1", 0], "recogniser": "builtin", "detector": "builtin", "threshold": 0.5},
        },
        "3": {"class_type": "WSS_SaveEmbedding", "inputs": {"embedding": ["2", 0], "filename": "hero"}},
        "4": graphs.text(["3", 1]),
    }
    path = Path(host.run(save)["4"]["text"][0])
    assert path.parent == host.base / "output" / "wavsyncswap"
    name = path.name + " [output]"
    assert (
        name
        in host.get("/object_info/WSS_LoadEmbedding")["WSS_LoadEmbedding"]["input"]["required"]["file"][1]["options"]
    )
    host.run(embedding_graph(name))


def test_embedding_name_cannot_leave_its_folder(host: Host) -> None:
    """The host asks for the file's age before it runs anything, so a refused name may end there, too."""
    status, body = host.post("/prompt", {"prompt": embedding_graph("../../../secret.safetensors [output]")})
    if status == 200:
        assert host.wait(body["prompt_id"])["status"]["status_str"] == "error"


@pytest.mark.parametrize("content", ["truncated", "html", "empty"])
def test_damaged_weights(host: Host, root: Path, content: str) -> None:
    whole = next((root / "models" / "bundled").glob("*.safetensors")).read_bytes()
    contents = {"truncated": whole[: len(whole) // 2], "html": b"<!DOCTYPE html><html>404</html>", "empty": b""}
    name = f"{content}.safetensors"
    (host.base / "models" / "wavsyncswap" / name).write_bytes(contents[content])
    graph = graphs.without_video(graphs.swap(ONE_FACE, keep=("images",)))
    graphs.find(graph, "WSS_LoadModel")["model"] = name
    assert name in host.fail(graph)


def test_cancel_takes_effect_at_once_and_leaves_nothing(host: Host, astronaut: np.ndarray) -> None:
    media.write_video(host.base / "input" / "long.mp4", media.nodding(astronaut[:360, 40:400], 400), Fraction(25))
    graph = graphs.load("streaming_video")
    graphs.find(graph, "LoadVideo")["file"] = "long.mp4"
    before = set((host.base / "temp").glob("*"))
    prompt = host.submit(graph)
    time.sleep(4)
    pressed = time.monotonic()
    host.post("/interrupt", {"prompt_id": prompt})
    entry = host.wait(prompt, 60)
    assert time.monotonic() - pressed < 15  # one chunk, on a busy machine
    assert any(event == "execution_interrupted" for event, _ in entry["status"]["messages"])
    assert set((host.base / "temp").glob("*")) == before
