"""The networks that can be trained, by name."""

from models import algebraic, segment_augmenter, volumetric

NETWORKS = {
    "algebraic": (algebraic.Algebraic, algebraic.Architecture),
    "volumetric": (volumetric.Volumetric, volumetric.Architecture),
    "augmenter": (segment_augmenter.RetrainedAugmenter, segment_augmenter.Architecture),
}
