"""rtmlib, called frame by frame: how long it takes. Run by `benchmarks.keypoints`.

    PYTHON keypoints_peer.py '{"detector": ..., "pose": ..., "device": ..., "threads": ..., "videos": [...]}'

In a Python that has rtmlib; imports nothing of this project. It prints one line of JSON.
"""

import json
import sys
import time
from functools import partial
from importlib.metadata import version

import cv2
import onnxruntime
from rtmlib import Custom, PoseTracker


class BestPerson:
    """A detector of rtmlib's, for the person alone of whom it is surest."""

    det_mode = "human"

    def __init__(self, detector):
        self._detector = detector

    def __call__(self, image):
        """Return the box of one person of an image, or of none."""
        return self._detector(image)[:1]  # sorted by score in the file


def tracker(task: dict) -> PoseTracker:
    """A tracker of rtmlib with its defaults, detection in every frame, for one person."""
    solution = partial(
        Custom, det_class="RTMDet", det=task["detector"], det_input_size=tuple(task["detector_px"]),
        pose_class="RTMPose", pose=task["pose"], pose_input_size=tuple(task["pose_px"]),
    )  # fmt: skip
    found = PoseTracker(solution, backend="onnxruntime", device=task["device"])
    for tool in (found.det_model, found.pose_model):  # rtmlib has no setting for threads
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = task["threads"]
        options.log_severity_level = 4
        providers = tool.session.get_providers()
        tool.session = onnxruntime.InferenceSession(tool.onnx_model, options, providers=providers)
    found.det_model = BestPerson(found.det_model)
    return found


def main() -> None:
    """Go through the videos as rtmlib's own example does."""
    task = json.loads(sys.argv[1])
    wall, cpu = time.perf_counter(), time.process_time()
    frames = crops = 0
    track = tracker(task)
    for video in task["videos"]:
        track.reset()
        capture = cv2.VideoCapture(video)
        while True:
            more, image = capture.read()
            if not more:
                break
            keypoints, _ = track(image)
            frames, crops = frames + 1, crops + len(keypoints)
    found = {
        "frames": frames, "crops": crops, "wall_s": time.perf_counter() - wall,
        "cpu_s": time.process_time() - cpu, "version": version("rtmlib"),
    }  # fmt: skip
    print(json.dumps(found))


if __name__ == "__main__":
    main()
