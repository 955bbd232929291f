"""Networks in ONNX files, run by ONNX Runtime on the CPU or on a GPU."""

from pathlib import Path

import numpy as np
from jaxtyping import Float

from models.assets import cache_folder
from pipeline.errors import PipelineError

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
"""What ONNX Runtime calls the devices."""
FALLBACKS = {"cpu": ("cpu",), "cuda": ("cuda", "cpu"), "tensorrt": ("tensorrt", "cuda", "cpu")}
"""By device: where each part of a network is run, the first that can."""
PIXELS_AT_ONCE = 2**21
"""Given to a network in one call where its file lets us: 18 crops of 384 x 288, 5 images of 640 x
640. Bounds the memory."""
FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
OUT_OF_MEMORY = ("allocate memory", "out of memory", "bad alloc", "bad_alloc")

Outputs = tuple[np.ndarray, ...]
"""What a network gives for one image."""


class OnnxNetwork:
    """A network that takes images of one size, as many at once as its file allows.

    What the file says is read from it: `size` is its images' (width, height), px, or None where it
    takes any; `dtype` of the images; `operators` are those of its graph, and `first_operators`
    those that its images meet first.
    """

    def __init__(self, path: Path, device: str, threads: int):
        """Load a file for a device: cpu, cuda, tensorrt, or auto (cuda if there is one, else cpu).

        `threads` are the CPU's. Raises PipelineError if the file or the device cannot be used.
        """
        self.path = path
        self.device = _device(device)
        self._session = _session(path, self.device, threads)
        self._check_device(device)
        takes = self._session.get_inputs()
        if len(takes) != 1 or len(takes[0].shape) != 4 or takes[0].shape[1] != 3:
            raise PipelineError(
                f"{path} does not take images alone, so it is no person detector or pose model. "
                f"It takes {', '.join(f'{each.name} {each.shape}' for each in takes) or 'nothing'}."
            )
        if takes[0].type not in FLOATS:
            raise PipelineError(
                f"{path} takes {takes[0].type}, but only networks that take floating point images "
                "(16 or 32 bit) can be run. Export it without quantised inputs."
            )
        self._name, self.dtype = takes[0].name, FLOATS[takes[0].type]
        batch, _, height, width = takes[0].shape  # names where the file leaves them open
        self._batch = batch if isinstance(batch, int) else None
        fixed = isinstance(height, int) and isinstance(width, int)
        self.size = (width, height) if fixed else None
        self.operators, self.first_operators = _operators(path, self._name)

    def run(
        self, images: Float[np.ndarray, "image 3 height width"], at_once: int | None = None
    ) -> list[Outputs]:
        """Return the outputs for each of the images, which are as the network takes them.

        `at_once` images are given to it in one call, or what the file fixes, or else what
        PIXELS_AT_ONCE allows.
        """
        fitting = max(1, PIXELS_AT_ONCE // (images.shape[2] * images.shape[3]))
        size, results = self._batch or at_once or fitting, []
        for start in range(0, len(images), size):
            some = images[start : start + size]
            count = len(some)
            if self._batch and count < size:
                padding = np.zeros((size - count, *some.shape[1:]), some.dtype)
                some = np.concatenate([some, padding])
            outputs = self._run_once(some)
            results += [tuple(each[i] for each in outputs) for i in range(count)]
        return results

    def _run_once(self, images):
        try:
            outputs = self._session.run(None, {self._name: images.astype(self.dtype, copy=False)})
        except _errors() as error:
            if any(sign in str(error).lower() for sign in OUT_OF_MEMORY):
                raise PipelineError(
                    f"the memory is too small to run {self.path} on {len(images)} images. Lower "
                    "batch_size of the detect and keypoints stages, or take a smaller model."
                ) from error
            raise PipelineError(f"{self.path} fails to run: {_short(error)}") from error
        if any(each.shape[:1] != (len(images),) for each in outputs):
            raise PipelineError(
                f"{self.path} gives outputs that are not by image, so it is no person detector or "
                f"pose model. Their shapes: {', '.join(str(each.shape) for each in outputs)}."
            )
        return outputs

    def _check_device(self, asked: str) -> None:
        """ONNX Runtime goes on without a GPU that it cannot use: slowly, and without a word."""
        used = self._session.get_providers()
        if PROVIDERS[self.device] in used:
            return
        if asked != "auto":
            raise PipelineError(
                f"device '{asked}' was asked for, and ONNX Runtime was built for it, but it cannot "
                "be used: its libraries are missing, or there is no such GPU. See "
                "https://onnxruntime.ai/docs/execution-providers; or use device cpu."
            )
        self.device = "cpu"


def _runtime():
    try:
        import onnxruntime

        onnxruntime.get_available_providers()  # which the folder that an uninstallation left lacks
    except (ImportError, AttributeError) as error:
        raise PipelineError(
            f"ONNX Runtime is not installed, or broken ({error}). Install it: pip uninstall "
            "onnxruntime onnxruntime-gpu, then pip install onnxruntime (or, for NVIDIA GPUs, "
            "onnxruntime-gpu)."
        ) from error
    return onnxruntime


def _errors() -> tuple[type[Exception], ...]:
    """All that ONNX Runtime raises: its exceptions have no base class of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    listed = vars(state).values()
    return tuple(e for e in listed if isinstance(e, type) and issubclass(e, Exception))


def available_devices() -> list[str]:
    """The devices that ONNX Runtime was built for. Raises PipelineError if it cannot be used."""
    offered = _runtime().get_available_providers()
    return [device for device, provider in PROVIDERS.items() if provider in offered]


def _device(asked: str) -> str:
    available = available_devices()
    if asked == "auto":
        return "cuda" if "cuda" in available else "cpu"
    if asked not in available:
        raise PipelineError(
            f"device '{asked}' was asked for, but this ONNX Runtime has only {', '.join(available)}. "
            "For NVIDIA GPUs: pip uninstall onnxruntime, then pip install onnxruntime-gpu."
        )
    return asked


def _session(path: Path, device: str, threads: int):
    runtime = _runtime()
    if not path.is_file():
        raise PipelineError(f"there is no file {path}. Name an .onnx file.")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    # Threads that wait do not spin: others decode and prepare the next images meanwhile.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # what matters comes as an exception
    if device != "cpu":
        runtime.preload_dlls()  # CUDA's libraries from Python packages, where they are installed
    try:
        return runtime.InferenceSession(path, options, providers=_providers(device))
    except _errors() as error:
        raise PipelineError(
            f"{path} cannot be loaded: it is no ONNX network, or cut short, or needs what this ONNX "
            f"Runtime does not have ({_short(error)}). Fetch or export it again."
        ) from error


def _providers(device: str) -> list[tuple[str, dict]]:
    options: dict[str, dict] = {each: {} for each in FALLBACKS[device]}
    if device == "tensorrt":  # which takes minutes to build a network
        folder = cache_folder() / "tensorrt"
        folder.mkdir(parents=True, exist_ok=True)
        kept = {"trt_engine_cache_enable": True, "trt_engine_cache_path": str(folder)}
        options["tensorrt"] = kept
    return [(PROVIDERS[each], chosen) for each, chosen in options.items()]


def _operators(path: Path, name: str) -> tuple[frozenset[str], frozenset[str]]:
    """Kinds of operators in a file's graph, and of those that take its input `name`."""
    import onnx

    nodes = onnx.load(path, load_external_data=False).graph.node  # each after those it needs
    same, first = {name}, set()
    for node in nodes:
        if same.isdisjoint(node.input):
            continue
        if node.op_type == "Cast":  # the same images, in another type
            same.update(node.output)
        else:
            first.add(node.op_type)
    return frozenset(node.op_type for node in nodes), frozenset(first)


def _short(error: Exception) -> str:
    said = str(error).strip().splitlines()[0].rsplit(" : ", 1)[-1].rsplit("failed:", 1)[-1]
    return said.strip().rstrip(".")[:200]
