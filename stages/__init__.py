"""The stages of the pipeline, one file each, in the order in which data flows."""

ORDER = (
    "frames",
    "detect",
    "keypoints",
    "synchronize",
    "triangulate",
    "smooth",
    "augment",
    "export",
    "kinematics",
    "report",
)
