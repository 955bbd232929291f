"""Recipes: everything that decides what comes out of a training."""

from typing import Annotated, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt

from models.simulation.population import Population

Architecture = TypeVar("Architecture", bound=BaseModel)
Views = Annotated[int, Field(ge=2, le=8)]


class Schedule(BaseModel, Generic[Architecture]):
    """A network, and how it is trained on whatever it is trained on."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    method: str
    architecture: Architecture
    seed: int = Field(0, ge=0, lt=2**32)
    """The same seed on the same kind of device gives the same weights."""
    windows: PositiveInt
    """Of a batch: each is another person."""
    frames: PositiveInt
    """Of a window."""
    steps: PositiveInt
    """The learning rate has fallen to zero after so many."""
    learning_rate: float = Field(gt=0, le=1)
    """The largest: reached after the warm-up, and falling along a cosine from there."""
    warm_up_steps: int = Field(100, ge=0)
    weight_decay: float = Field(0.01, ge=0)
    """Of AdamW (Loshchilov and Hutter, Decoupled weight decay regularization, ICLR 2019)."""
    largest_gradient: PositiveFloat = 1.0
    """Longer gradients are cut to this norm."""
    averaging: float = Field(0.999, ge=0, lt=1)
    """Weights are validated and exported as running averages; this is the share of the old in them."""
    validation_every: PositiveInt
    """Steps."""
    validation_windows: PositiveInt = 16
    """For each entry of the fixed suite, such as a size of errors."""
    patience: PositiveInt
    """Training stops after so many validations without a better one."""
    mixed_precision: bool = False
    """On CUDA devices, convolutions in bfloat16; geometry stays in float32."""
    threads: PositiveInt = 1
    """On the CPU."""


class Recipe(Schedule[Architecture], Generic[Architecture]):
    """Of a method of triangulation; `Recipe[Architecture]` is one method's."""

    population: Population = Population()
    views: dict[Views, PositiveFloat] = Field(min_length=1)
    """How often a batch has so many views, in relation to the others."""
