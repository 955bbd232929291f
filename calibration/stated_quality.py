"""How good a calibration says that it is."""

import tomllib
from pathlib import Path
from xml.etree import ElementTree

from calibration.readers import WRONG_CONTENT, Calibration

NOT_STATED = "not stated"


def stated_quality(calibration: Calibration) -> str:
    """What the file says of its own error, for people; `not stated` if it does not, or says 0.

    A Qualisys file has each camera's average residual, those of aniposelib and Pose2Sim one error of
    all cameras; OpenCap's pickles have none. What program and which unit it was is not always known.
    """
    if not isinstance(calibration, Path) or calibration.is_dir():
        return NOT_STATED
    name = calibration.name.casefold()
    try:
        if name.endswith(".qca.txt"):
            return _qualisys(calibration)
        if name.endswith(".toml"):
            return _toml(calibration)
    except WRONG_CONTENT:  # reading the cameras tells what is wrong with the file
        return NOT_STATED
    return NOT_STATED


def _qualisys(path: Path) -> str:
    cameras = ElementTree.parse(path).getroot().findall("cameras/camera")
    residuals = {each.attrib["serial"]: float(each.get("avg-residual", 0)) for each in cameras}
    if not any(residuals.values()):
        return NOT_STATED
    listed = ", ".join(f"{name} {value:.2f}" for name, value in residuals.items())
    return f"average residuals, as Qualisys gives them: {listed}"


def _toml(path: Path) -> str:
    metadata = tomllib.loads(path.read_text(encoding="utf-8")).get("metadata", {})
    error = float(metadata.get("error", 0))
    return f"error {error:.3g}, as the file gives it" if error > 0 else NOT_STATED
