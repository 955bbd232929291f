"""The networks that can be trained, by name."""

from models import algebraic, volumetric

NETWORKS = {
    "algebraic": (algebraic.Algebraic, algebraic.Architecture),
    "volumetric": (volumetric.Volumetric, volumetric.Architecture),
}
