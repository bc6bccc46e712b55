"""Nodes for the tests alone, put into the host's custom_nodes as `wss_probe`: look at tensors, make odd ones."""

import json
import os
import sys
from pathlib import Path

import folder_paths
import torch


class Keep:
    """Write a tensor of the graph to the output folder, bit for bit."""

    OUTPUT_NODE, RETURN_TYPES, FUNCTION, CATEGORY = True, (), "keep", "test"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"value": ("*", {}), "name": ("STRING", {})}}

    @classmethod
    def VALIDATE_INPUTS(cls, input_types):
        return True

    def keep(self, value, name):
        torch.save(value.clone(), Path(folder_paths.get_output_directory(), name + ".pt"))
        return {"ui": {"shape": list(value.shape)}}


class Odd:
    """An image batch with another number of channels or frames."""

    RETURN_TYPES, FUNCTION, CATEGORY = ("IMAGE",), "make", "test"

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {"image": ("IMAGE",), "channels": ("INT", {"default": 3}), "frames": ("INT", {"default": 1})}
        }

    def make(self, image, channels, frames):
        picture = torch.cat([image, torch.ones_like(image)], -1)[:1, :, :, :channels]
        return (picture.repeat(frames, 1, 1, 1),)


class State:
    """What a well-behaved pack leaves alone."""

    OUTPUT_NODE, RETURN_TYPES, FUNCTION, CATEGORY = True, (), "state", "test"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    @classmethod
    def IS_CHANGED(cls):
        return float("nan")

    def state(self):
        functions = {name: id(value) for name, value in vars(folder_paths).items() if callable(value)}
        torch_state = [torch.get_num_threads(), str(torch.get_default_dtype()), torch.is_grad_enabled()]
        torch_state += [torch.backends.cudnn.benchmark, torch.are_deterministic_algorithms_enabled()]
        found = [dict(os.environ), list(sys.path), functions, torch_state, os.getcwd()]
        return {"ui": {"state": [json.dumps(found)]}}


NODE_CLASS_MAPPINGS = {"TestKeep": Keep, "TestOdd": Odd, "TestState": State}
