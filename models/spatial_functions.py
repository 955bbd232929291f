"""Functions of one coordinate, as OpenSim models have them, evaluated all at once in torch.

Each is a piecewise polynomial: constants, lines and polynomials have one piece; OpenSim's SimmSpline
and PiecewiseLinearFunction one between each two knots, and a line to either side.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from models.opensim_model import opensim
from pipeline.errors import PipelineError

READABLE = (
    "Constant, LinearFunction, MultiplierFunction, PiecewiseLinearFunction, PolynomialFunction, "
    "SimmSpline"
)


@dataclass(frozen=True)
class PiecewisePolynomial:
    """A function of one number."""

    origins: Float[np.ndarray, "piece"]
    """Where each piece's own variable is 0 and, but for the first, where the piece begins."""
    coefficients: Float[np.ndarray, "piece power"]
    """Of each piece's powers, highest first."""

    def times(self, factor: float) -> "PiecewisePolynomial":
        """Multiply the values."""
        return PiecewisePolynomial(self.origins, factor * self.coefficients)

    @property
    def is_line(self) -> bool:
        """Whether slope and intercept say it all."""
        return self.coefficients.shape[0] == 1 and self.coefficients.shape[1] <= 2

    @property
    def line(self) -> tuple[float, float]:
        """Slope and intercept of a line or constant."""
        slope, intercept = np.pad(self.coefficients[0], (2 - self.coefficients.shape[1], 0))
        return slope, intercept


def _polynomial(*coefficients: float) -> PiecewisePolynomial:
    return PiecewisePolynomial(np.zeros(1), np.array([coefficients], float))


ZERO = _polynomial(0.0)
IDENTITY = _polynomial(1.0, 0.0)


def read_function(function: Any, where: str) -> PiecewisePolynomial:
    """Read an OpenSim function of at most one coordinate; `where` it is goes into errors.

    Raises PipelineError if it is of another kind or depends on several coordinates.
    """
    package, kind = opensim(), function.getConcreteClassName()
    if kind == "Constant":
        return _polynomial(package.Constant.safeDownCast(function).getValue())
    if kind == "MultiplierFunction":
        multiplier = package.MultiplierFunction.safeDownCast(function)
        return read_function(multiplier.getFunction(), where).times(multiplier.getScale())
    if kind == "LinearFunction":
        coefficients = package.LinearFunction.safeDownCast(function).getCoefficients()
        if coefficients.getSize() != 2:
            raise PipelineError(f"{where} depends on several coordinates, which is not supported")
        return _polynomial(coefficients.get(0), coefficients.get(1))
    if kind == "PolynomialFunction":
        coefficients = package.PolynomialFunction.safeDownCast(function).getCoefficients()
        return _polynomial(*(coefficients.get(index) for index in range(coefficients.size())))
    if kind in ("SimmSpline", "PiecewiseLinearFunction"):
        return _spline(getattr(package, kind).safeDownCast(function), kind == "SimmSpline", where)
    raise PipelineError(f"{where} is a {kind}, which is not supported. Supported are: {READABLE}")


def _spline(function: Any, smooth: bool, where: str) -> PiecewisePolynomial:
    """Pieces between knots; outside, lines that go on with the slope at the end.

    Four values say which cubic a piece is. (OpenSim's own derivative would take a std::vector, whose
    first use in a process decides whether OpenSim or ezc3d can pass such things on at all.)
    """
    x = np.array([function.getX(index) for index in range(function.getNumberOfPoints())])
    y = np.array([function.getY(index) for index in range(function.getNumberOfPoints())])
    if len(x) < 2 or np.any(np.diff(x) <= 0):
        raise PipelineError(f"{where} needs two points or more, each further along x than the last")
    width = np.diff(x)[:, None]
    pieces = np.stack([np.diff(y) / width[:, 0], y[:-1]], 1)
    if smooth:
        shares = np.linspace(0, 1, 4)
        at, package = x[:-1, None] + width * shares, opensim()
        values = [[function.calcValue(package.Vector(1, float(p))) for p in piece] for piece in at]
        pieces = np.linalg.solve(np.vander(shares), np.transpose(values)).T
        pieces /= width ** np.arange(3, -1, -1)
    end = np.polyval(np.polyder(pieces[-1]), width[-1, 0])
    before, after = np.zeros((2, 1, pieces.shape[1]))
    before[0, -2:], after[0, -2:] = (pieces[0, -2], y[0]), (end, y[-1])
    return PiecewisePolynomial(np.append(x[0], x), np.concatenate([before, pieces, after]))


class PiecewisePolynomials(nn.Module):
    """Many functions of one number each, evaluated together."""

    def __init__(self, functions: list[PiecewisePolynomial]):
        super().__init__()
        pieces = max((len(each.origins) for each in functions), default=1)
        powers = max((each.coefficients.shape[1] for each in functions), default=1)
        starts = torch.full((len(functions), pieces - 1), torch.inf, dtype=torch.float64)
        origins = torch.zeros(len(functions), pieces, dtype=torch.float64)
        coefficients = torch.zeros(powers, len(functions), pieces, dtype=torch.float64)
        for index, each in enumerate(functions):
            count, own = each.coefficients.shape
            starts[index, : count - 1] = torch.from_numpy(each.origins[1:])
            origins[index, :count] = torch.from_numpy(each.origins)
            coefficients[powers - own :, index, :count] = torch.from_numpy(each.coefficients.T)
        self.register_buffer("starts", starts)
        self.register_buffer("origins", origins)
        self.register_buffer("coefficients", coefficients)

    def forward(self, at: Float[Tensor, "*batch function"]) -> Float[Tensor, "*batch function"]:
        """Return each function's value at its own argument."""
        return self.with_slopes(at)[0]

    def with_slopes(
        self, at: Float[Tensor, "*batch function"]
    ) -> tuple[Float[Tensor, "*batch function"], Float[Tensor, "*batch function"]]:
        """Return each function's value and derivative at its own argument."""
        piece = (at[..., None] > self.starts).sum(-1)
        function = torch.arange(at.shape[-1], device=at.device)
        at = at - self.origins[function, piece]
        value = slope = torch.zeros_like(at)
        for coefficient in self.coefficients:
            slope = slope * at + value
            value = value * at + coefficient[function, piece]
        return value, slope
