"""ComfyUI-WavSyncSwap: a face in a video takes another identity and speaks any audio. Only the entry point."""

WEB_DIRECTORY = "./web"

# The host loads this folder as a package. Anything else that imports the file (a test runner, an editor) has no host.
if __package__:
    from .nodes import comfy_entrypoint  # noqa: F401
