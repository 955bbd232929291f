"""SimCC: keypoints as two one-dimensional distributions, over columns and rows.

Li et al., SimCC: a simple coordinate classification perspective for human pose estimation, ECCV
2022; as in RTMPose (Jiang et al., arXiv 2303.07399, 2023) and mmpose 1.3.2, `SimCCLabel`.
"""

import numpy as np
from jaxtyping import Float, UInt8


def decode(
    columns: Float[np.ndarray, "*any column"], rows: Float[np.ndarray, "*any row"]
) -> tuple[Float[np.ndarray, "*any 2"], Float[np.ndarray, "*any"]]:
    """Return where keypoints are (column and row, in bins) and their scores.

    The position is that of the highest bin, unrefined, as in the published deployments. The score
    is the smaller of the two maxima, as in mmpose (rtmlib takes their mean): a keypoint is where it
    is only if both axes say so. Scores are no probabilities; see `confidence`.
    """
    at = np.stack([columns.argmax(-1), rows.argmax(-1)], -1).astype(float)
    return at, np.minimum(columns.max(-1), rows.max(-1))


def confidence(scores: Float[np.ndarray, "*any"], sure: float) -> Float[np.ndarray, "*any"]:
    """Scale scores to 0 to 1 by what a sure network answers, and clip.

    Networks are trained towards a bump with a maximum of 1 on a ground of 0, times the ratio of the
    two temperatures of their loss: `sure` is 1 for RTMPose and DWPose (mmpose's configurations:
    KLDiscretLoss, beta 10 for both) and 10 for RTMW (beta 1 for the network, label_beta 10 for the
    label). Scores above that are found, as nothing bounds them. rtmlib gives scores as they are, and
    so Pose2Sim's likelihoods of RTMW are above 1.
    """
    return np.clip(scores / sure, 0, 1)


def maps(
    columns: Float[np.ndarray, "*any column"],
    rows: Float[np.ndarray, "*any row"],
    confidences: Float[np.ndarray, "*any"],
    bins_per_cell: int,
) -> UInt8[np.ndarray, "*any map_row map_column"]:
    """Coarse maps whose maxima are the confidences, in 255ths: the product of the two axes.

    Each axis' ground, the median, becomes 0, as in the label; otherwise the product would show a
    cross. A cell holds the highest of its bins, so that the keypoint is in the highest cell.
    """
    across, down = (_bump(each, bins_per_cell) for each in (columns, rows))
    product = (255 * confidences[..., None] * down)[..., :, None] * across[..., None, :]
    return np.rint(product, out=product).astype(np.uint8)


def _bump(
    bins: Float[np.ndarray, "*any bin"], bins_per_cell: int
) -> Float[np.ndarray, "*any cell"]:
    above = np.clip(bins - np.median(bins, -1, keepdims=True), 0, None)
    highest = above.max(-1, keepdims=True)
    share = above / np.where(highest > 0, highest, 1)
    return np.maximum.reduceat(share, np.arange(0, bins.shape[-1], bins_per_cell), -1)


def cells_from_bins(
    bins: Float[np.ndarray, "*any"], bins_per_cell: int
) -> Float[np.ndarray, "*any"]:
    """Where bins are on the axis of a map's cells; whole numbers are the centres of both."""
    return (bins - (bins_per_cell - 1) / 2) / bins_per_cell
