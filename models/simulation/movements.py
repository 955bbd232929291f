"""Movements: built-in curves of a squat, gait, sit-to-stand and a drop jump, a little random.

Angles follow OpenSim's conventions: knee flexion, hip flexion and dorsiflexion are positive, and a
negative pelvis tilt leans the trunk forwards. The person faces +X, Y is up, Z to their right.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.interpolate import CubicSpline, PchipInterpolator

RATE_HZ = 100.0
"""Of the truth, as motion capture usually has."""
GRAVITY_M_S2 = 9.81

Curves = dict[str, Float[np.ndarray, "time"]]
"""Degrees by coordinate."""


@dataclass(frozen=True)
class Movement:
    """Curves of a built-in movement, and how it meets the floor."""

    curves: Curves
    time_s: Float[np.ndarray, "time"]
    lift_m: Float[np.ndarray, "time"] | float = 0.0
    """Of the lower foot above the floor: a box, or a flight."""
    forward_m: Float[np.ndarray, "time"] | float = 0.0
    """How far the feet have gone."""
    walks: bool = False
    """The pelvis goes at the constant speed at which the lower foot does not slide."""


def squat(random: np.random.Generator) -> Movement:
    """Three squats to about 100° of knee flexion, feet flat, arms forward."""
    time_s, depth = _repetitions(random, count=3, period_s=1.9, still_s=0.7)
    deepest = random.normal(100, 7)
    ankle, tilt = 0.27 * deepest * depth, -random.normal(27, 5) * depth
    return Movement(
        _both_sides(_legs_flat(deepest * depth, ankle, tilt), random)
        | _trunk(-random.normal(25, 8) * depth, tilt)
        | _arms(70 * depth, 10 + 0 * depth),
        time_s,
    )


def sit_to_stand(random: np.random.Generator) -> Movement:
    """From a chair to standing and back, twice; the trunk leans forwards as it leaves the seat."""
    time_s, standing = _repetitions(random, count=2, period_s=2.8, still_s=0.7, hold=0.35)
    standing = standing / standing.max()  # nobody stands more than upright
    seated = 1 - standing
    lean = np.sin(np.pi * standing) ** 2
    knee = random.normal(92, 4) * seated
    tilt = -random.normal(30, 4) * lean + random.normal(6, 3) * seated
    ankle = 6 * seated + 12 * lean * np.sqrt(np.clip(seated, 0, 1))
    return Movement(
        _both_sides(_legs_flat(knee, ankle, tilt), random)
        | _trunk(-random.normal(25, 8) * lean, tilt)
        | _arms(20 * seated, 60 * seated + 10),
        time_s,
    )


def drop_jump(random: np.random.Generator) -> Movement:
    """Off a box of 30 cm, landing, a jump at once, and landing again."""
    box_m, jump_m = 0.30, random.uniform(0.18, 0.28)
    fall_s, flight_s = np.sqrt(2 * box_m / GRAVITY_M_S2), np.sqrt(8 * jump_m / GRAVITY_M_S2)
    contact_s, settle_s, still_s = 0.36, 0.9, 0.5
    landing = still_s + 0.25 + fall_s  # a step off the box takes 0.25 s
    takeoff, second = landing + contact_s, landing + contact_s + flight_s
    time_s = np.arange(0, second + settle_s, 1 / RATE_HZ)
    crouch, deep = random.normal(82, 6), random.normal(68, 6)
    knots = [0, still_s, landing - 0.1, landing, (landing + takeoff) / 2, takeoff,
             (takeoff + second) / 2, second, second + 0.22, second + settle_s]  # fmt: skip

    def curve(*values):
        return PchipInterpolator(knots, values)(time_s)

    knee = curve(3, 3, 12, 18, crouch, 8, 14, 18, deep, 5)
    ankle = curve(1, 1, -22, -16, 28, -30, -28, -16, 22, 1)
    tilt = curve(0, 0, -4, -8, -24, -2, -4, -8, -22, 0)
    flat = curve(1, 1, 0, 0, 1, 0, 0, 0, 1, 1)  # in the air the feet point down
    hip = flat * (knee - ankle - tilt) + (1 - flat) * (knee * 0.8 - tilt)
    in_fall = np.clip(time_s - (landing - fall_s), 0, None)
    falling = np.clip(box_m - GRAVITY_M_S2 * in_fall**2 / 2, 0, None)
    in_flight = np.clip(time_s - takeoff, 0, flight_s)
    gone = np.clip((time_s - still_s) / (landing - still_s), 0, 1)
    flying = GRAVITY_M_S2 * in_flight * (flight_s - in_flight) / 2
    return Movement(
        _both_sides({"hip_flexion": hip, "knee_angle": knee, "ankle_angle": ankle}, random)
        | _trunk(0.8 * tilt, tilt)
        | _arms(curve(0, 0, 20, 20, -25, 70, 60, 20, 10, 0), curve(10, 10, 30, 30, 40, 20, 20, 30, 30, 10)),
        time_s,
        lift_m=falling + flying,
        forward_m=0.30 * gone**2,
    )  # fmt: skip


# Normal gait at a free speed: angle (degrees) at each tenth of the stride from heel strike on, read
# off the curves of Winter, The Biomechanics and Motor Control of Human Gait, 2nd ed., 1991, and
# Perry and Burnfield, Gait Analysis, 2nd ed., 2010, to about 3°.
GAIT = {
    "hip_flexion": [26, 24, 15, 5, -5, -12, -6, 10, 24, 30],
    "knee_angle": [5, 16, 15, 8, 5, 12, 37, 59, 50, 18],
    "ankle_angle": [0, -4, 4, 8, 10, 6, -15, -4, 1, 2],
    "hip_adduction": [0, 5, 6, 4, 3, 0, -4, -5, -3, -1],
    "pelvis_list": [-1, -4, -3, -1, 0, 1, 4, 3, 1, 0],
}


def gait(random: np.random.Generator) -> Movement:
    """Three strides at a free walking speed."""
    stride_s, strides = random.uniform(1.02, 1.18), 3
    time_s = np.arange(0, strides * stride_s, 1 / RATE_HZ)
    phase = time_s / stride_s
    size = random.normal(1, 0.06)
    right = {name: size * _periodic(values)(phase % 1) for name, values in GAIT.items()}
    left = {name: size * _periodic(values)((phase + 0.5) % 1) for name, values in GAIT.items()}
    curves = {}
    for joint in ("hip_flexion", "knee_angle", "ankle_angle", "hip_adduction"):
        curves[f"{joint}_r"], curves[f"{joint}_l"] = right[joint], left[joint]
    swing = 20 * np.cos(2 * np.pi * phase)
    curves |= {
        "pelvis_list": right["pelvis_list"],
        "pelvis_rotation": 4 * np.cos(2 * np.pi * phase),
        "pelvis_tilt": -6 + 0 * phase,
        "hip_rotation_r": -3 * np.cos(2 * np.pi * phase),
        "hip_rotation_l": 3 * np.cos(2 * np.pi * phase),
        "arm_flex_r": -swing, "arm_flex_l": swing, "elbow_flex_r": 20 - swing / 3,
        "elbow_flex_l": 20 + swing / 3,
        "pro_sup_r": 85 + 0 * phase,
        "pro_sup_l": 85 + 0 * phase, "lumbar_extension": 4 + 0 * phase,
    }  # fmt: skip
    return Movement(curves, time_s, walks=True)


def stand(random: np.random.Generator) -> Movement:
    """Standing upright and nearly still for a second and a half: a static trial."""
    time_s = np.arange(0, 1.5, 1 / RATE_HZ)
    sway = 0.4 * np.sin(2 * np.pi * (0.5 * time_s + random.uniform()))
    legs = _legs_flat(2 + sway, 1 + sway / 2, -1 + 0 * sway)
    return Movement(_both_sides(legs, random) | _arms(0 * sway, 12 + 0 * sway), time_s)


MOVEMENTS: dict[str, Callable[[np.random.Generator], Movement]] = {
    "squats": squat, "gait": gait, "sit-to-stand": sit_to_stand, "dropjump": drop_jump, "static": stand,
}  # fmt: skip


def _repetitions(random, count, period_s, still_s, hold=0.0):
    """Time, and a course between 0 and 1 that rises and falls smoothly `count` times."""
    knots, values, at = [0.0, still_s], [0.0, 0.0], still_s
    for _ in range(count):
        period, top = period_s * random.normal(1, 0.06), random.normal(1, 0.03)
        for share, value in ((0.5 - hold / 2, top), (0.5 + hold / 2, top), (1, 0), (1.08, 0)):
            if at + share * period > knots[-1]:
                knots.append(at + share * period)
                values.append(value)
        at = knots[-1]
    time_s = np.arange(0, at, 1 / RATE_HZ)
    linear = PchipInterpolator(knots, values)(time_s)
    return time_s, smoothed(linear)


def smoothed(values, width_s=0.2):
    """Without the corners in speed that people's movements do not have."""
    count = int(width_s * RATE_HZ)
    window = np.hanning(count + 2)[1:-1]
    padded = np.pad(values, (count // 2, count - 1 - count // 2), mode="edge")
    return np.convolve(padded, window / window.sum(), "valid")


def _legs_flat(knee, ankle, tilt) -> Curves:
    """With feet flat on the floor, tilt, hip, knee and ankle add up to nothing."""
    return {"hip_flexion": knee - ankle - tilt, "knee_angle": knee, "ankle_angle": ankle}


def _both_sides(legs: Curves, random) -> Curves:
    """Both legs, a little different from each other, feet set apart and turned out.

    Only a little: with both feet on the floor, 1 % of a deep squat lifts one of them by 1 cm.
    """
    curves = {"pelvis_list": np.zeros_like(legs["knee_angle"])}
    apart, out = random.normal(-7, 2), random.normal(-4, 3)
    for side in "rl":
        size = 1 + random.normal(0, 0.005)
        curves |= {f"{name}_{side}": size * values for name, values in legs.items()}
        curves[f"hip_adduction_{side}"] = np.full_like(legs["knee_angle"], apart)
        curves[f"hip_rotation_{side}"] = np.full_like(legs["knee_angle"], out)
    return curves


def _trunk(extension, tilt) -> Curves:
    """Lumbar extension and pelvis tilt. People bend the lumbar spine more than one thinks: by 46° in
    OpenCap's recording of squats.
    """
    return {"lumbar_extension": extension, "pelvis_tilt": tilt}


def _arms(flexion, elbow) -> Curves:
    return {
        f"{name}_{side}": values
        for side in "rl"
        for name, values in (
            ("arm_flex", flexion),
            ("elbow_flex", elbow),
            ("arm_add", np.full_like(flexion, -8.0)),
            ("pro_sup", np.full_like(flexion, 85.0)),
        )
    }


def _periodic(values):
    share = np.linspace(0, 1, len(values) + 1)
    return CubicSpline(share, [*values, values[0]], bc_type="periodic")
