"""The healthy chest of a phantom: anatomy of a patient, and how it is drawn.

All shapes live in chest coordinates: the origin is the centre of the image, x runs to the right of
the image (the patient's left), y downwards, and 1 is the edge of the image. Brightness is in grey
levels of 8 bits.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Points = NDArray[np.float64]


# --- anatomy of a patient -------------------------------------------------------------------------

SIDES = (-1, 1)
APEX_X = 0.13


@dataclass(frozen=True)
class Anatomy:
    """What all images of one patient share: lengths in image edges, levels in grey levels."""

    half_width: float
    apex: float
    bases: tuple[float, float]
    dome: float
    gap: float
    heart_top: float
    heart_bulges: tuple[float, float]
    shoulder: float
    rib_spacing: float
    rib_drop: float
    rib_width: float
    body_level: float
    lung_depth: float
    texture: int

    def outer(self, y: Points) -> Points:
        """Distance of the lateral lung border from the midline at height `y`."""
        down = np.clip((y - self.apex) / (0.8 * (max(self.bases) - self.apex)), 0, 1)
        return np.asarray(APEX_X + (self.half_width - APEX_X) * (1 - (1 - down) ** 2) ** 0.55)

    def heart(self, side: int, y: Points) -> Points:
        """Distance of the border of great vessels and heart from the midline at height `y`; the
        left has a knob.
        """
        low = np.clip((y - self.heart_top) / (max(self.bases) - self.heart_top), 0, 1)
        if side < 0:
            return np.asarray(self.gap + self.heart_bulges[0] * np.sin(np.pi * low) ** 0.8)
        knob = 0.025 * np.exp(-(((y - self.heart_top + 0.03) / 0.035) ** 2))
        return np.asarray(
            self.gap + self.heart_bulges[1] * np.sin(np.pi / 2 * low**1.2) ** 1.3 + knob
        )

    def inner(self, side: int, y: Points) -> Points:
        """Distance of the medial lung border from the midline at height `y`."""
        down = np.clip((y - self.apex) / 0.14, 0, 1)
        narrow = APEX_X - (APEX_X - self.gap) * np.sqrt(1 - (1 - down) ** 2)
        return np.where(down < 1, narrow, self.heart(side, y))

    def lung(self, side: int) -> Points:
        """Outline of one lung: down its lateral border, along the diaphragm's dome, up its medial
        border.
        """
        base = self.bases[side > 0]
        y = self.apex + (base - self.apex) * np.linspace(0, 1, 60) ** 1.5
        lateral = np.stack([self.outer(y), y], axis=1)
        medial = np.stack([self.inner(side, y), y], axis=1)
        start, end, t = lateral[-1], medial[-1], np.linspace(0, 1, 30)
        floor = start + t[:, None] * (end - start)
        floor[:, 1] -= self.dome * np.sin(np.pi * t**0.75) ** 0.7 + 0.03 * t
        medial = medial[medial[:, 1] < floor[-1, 1]]
        return np.concatenate([lateral, floor, medial[::-1]]) * (side, 1)

    def place(self, side: int, across: Points | float, down: Points | float) -> Points:
        """The points of a lung `across` of the way to its chest wall and `down` of the way to its
        dome: (..., 2).
        """
        y = np.asarray(self.apex + down * (self.bases[side > 0] - self.dome - self.apex))
        inner = self.inner(side, y)
        return np.stack([side * (inner + across * (self.outer(y) - inner)), y], axis=-1)


def draw_anatomy(rng: np.random.Generator) -> Anatomy:
    """Draw the chest of one patient."""
    base = rng.uniform(0.24, 0.33)
    return Anatomy(
        half_width=rng.uniform(0.33, 0.40),
        apex=rng.uniform(-0.39, -0.33),
        bases=(base - rng.uniform(0.0, 0.03), base),
        dome=rng.uniform(0.06, 0.10),
        gap=rng.uniform(0.055, 0.075),
        heart_top=rng.uniform(-0.11, -0.05),
        heart_bulges=(rng.uniform(0.015, 0.045), rng.uniform(0.09, 0.15)),
        shoulder=rng.uniform(-0.03, 0.03),
        rib_spacing=rng.uniform(0.062, 0.074),
        rib_drop=rng.uniform(0.05, 0.11),
        rib_width=rng.uniform(0.017, 0.023),
        body_level=rng.uniform(145, 161),
        lung_depth=rng.uniform(75, 85),
        texture=int(rng.integers(2**32)),
    )


# --- drawing --------------------------------------------------------------------------------------


class Canvas:
    """Draws shapes given in chest coordinates onto square float fields, through the pose of one
    image.
    """

    def __init__(self, size: int, pose: np.random.Generator):
        # Thin ribs need a fine grid: small images are drawn larger and averaged down at the end.
        self.size = size
        self.edge = size * -(-192 // size)
        angle, scale = np.radians(pose.uniform(-4, 4)), pose.uniform(0.95, 1.04)
        self.turn = scale * np.array(
            [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        )
        self.shift = pose.uniform(-0.025, 0.025, size=2)

    def fill(self, *shapes: Points, softness: float = 0.0) -> Floats:
        """The union of polygons, (corners, 2) or (n, corners, 2), as 0 to 1 and blurred by
        `softness` image edges.
        """
        field = np.zeros((self.edge, self.edge), np.uint8)
        for shape in shapes:
            corners = (shape @ self.turn.T + self.shift + 0.5) * self.edge - 0.5
            for polygon in np.rint(corners * 16).astype(np.int32).reshape(-1, *shape.shape[-2:]):
                cv2.fillPoly(field, [polygon], 255, cv2.LINE_AA, shift=4)
        return self.blur(np.asarray(field / np.float32(255)), softness)

    def blur(self, field: Floats, softness: float) -> Floats:
        """Smooth a field with a Gaussian of `softness` image edges."""
        sigma = softness * self.edge
        if sigma < 0.3:
            return field
        # A wide Gaussian is as good on a coarse grid, and far cheaper.
        grid = max(1, self.edge // max(1, int(sigma / 3)))
        coarse = (
            cv2.resize(field, (grid, grid), interpolation=cv2.INTER_AREA)
            if grid < self.edge
            else field
        )
        sigma *= grid / self.edge
        soft = cv2.GaussianBlur(coarse, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
        return np.asarray(
            cv2.resize(soft, field.shape[::-1], interpolation=cv2.INTER_LINEAR), np.float32
        )

    def clouds(self, rng: np.random.Generator, cells: int) -> Floats:
        """Smooth random field of about unit variance with `cells` bumps along the edge."""
        coarse = rng.standard_normal((cells, cells), dtype=np.float32)
        return np.asarray(
            cv2.resize(coarse, (self.edge, self.edge), interpolation=cv2.INTER_CUBIC), np.float32
        )

    def finish(self, field: Floats) -> Floats:
        """Average down to the size of the image."""
        return np.asarray(
            cv2.resize(field, (self.size, self.size), interpolation=cv2.INTER_AREA), np.float32
        )

    def mask(self, field: Floats) -> Bytes:
        """Where at least half of a pixel is covered, as 0 or 255 at the size of the image."""
        return np.where(self.finish(field) >= 0.5, 255, 0).astype(np.uint8)


def circle(corners: int) -> Points:
    """Corners of a regular polygon with radius 1."""
    angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def box(left: float, top: float, right: float, bottom: float) -> Points:
    """Corners of an upright rectangle."""
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])


def mirrored(curves: Points) -> Points:
    """Curves, (n, points, 2), of one side, and the same on the other."""
    return np.concatenate([curves, curves * (-1, 1)])


def bands(paths: Points, width: Points | float, taper: float = 1.0) -> Points:
    """Outlines of bands around curves, (n, points, 2), `width` wide at the start and `taper` times
    that at the end.
    """
    x, y = np.moveaxis(np.gradient(paths, axis=1), 2, 0)
    across = np.stack([-y, x], axis=2) / np.hypot(x, y)[:, :, None]
    half = (
        across
        * (np.reshape(width, (-1, 1)) / 2 * np.linspace(1, taper, paths.shape[1]))[:, :, None]
    )
    return np.concatenate([paths + half, (paths - half)[:, ::-1]], axis=1)


def body(anatomy: Anatomy) -> Points:
    """Outline of neck, shoulders and trunk."""
    drop, wall = anatomy.shoulder, anatomy.half_width
    x = [0.10, 0.11, 0.17, 0.34, 0.47, 0.56, wall + 0.15, wall + 0.11, wall + 0.14]
    y = [-0.9, -0.45, drop - 0.41, drop - 0.37, drop - 0.29, -0.12, 0.05, 0.30, 0.9]
    right = np.stack([x, y], axis=1)
    return np.concatenate([right, right[::-1] * (-1, 1)])


def ribs(anatomy: Anatomy) -> tuple[Points, Points]:
    """Centre lines of the posterior ribs, from the spine to the wall, and of the anterior ones,
    from there inwards.
    """
    number, t = np.arange(10.0)[:, None], np.linspace(0, 1, 24)
    start = anatomy.apex - 0.01 + number * anatomy.rib_spacing
    drop = anatomy.rib_drop * (0.5 + 0.09 * number)
    wall = anatomy.outer(start + drop) + 0.008
    turn = np.sin(np.pi / 2 * t)
    posterior = [0.03 + (wall - 0.03) * turn, start - 0.025 * np.sin(np.pi * t**0.7) + drop * t**3]
    anterior = [wall - (wall - 0.17) * turn, start + drop + 0.11 * t**1.3]
    return mirrored(np.stack(posterior, axis=2)), mirrored(np.stack(anterior, axis=2)[1:7])


def clavicles(anatomy: Anatomy) -> Points:
    """Centre lines of the clavicles, from the sternum to the shoulders."""
    t = np.linspace(0, 1, 24)
    y = anatomy.apex + 0.085 - (0.07 - anatomy.shoulder) * t + 0.018 * np.sin(2 * np.pi * t)
    return mirrored(np.stack([0.04 + 0.38 * t, y], axis=1)[None])


def vessels(anatomy: Anatomy, side: int, count: int = 14) -> Points:
    """Outlines of the vessels that fan out from one hilum and thin towards the chest wall."""
    rng, t = np.random.default_rng([anatomy.texture, side > 0]), np.linspace(0, 1, 16)[:, None]
    hilum = np.array([side * (anatomy.gap + 0.02), anatomy.heart_top + 0.06])
    ends = anatomy.place(side, rng.uniform(0.3, 0.9, count), rng.uniform(0.1, 1.0, count))[:, None]
    bends = rng.normal(0, 0.03, (count, 1, 2))
    return bands(
        hilum + t * (ends - hilum) + np.sin(np.pi * t) * bends,
        rng.uniform(0.008, 0.014, count),
        0.2,
    )


def draw_chest(canvas: Canvas, anatomy: Anatomy) -> tuple[Floats, Floats]:
    """The healthy chest in grey levels, and its lungs as 0 to 1, both on the canvas' fine grid."""
    lungs = canvas.fill(*(anatomy.lung(side) for side in SIDES))
    air = canvas.blur(lungs, 0.006)
    tissue = canvas.fill(body(anatomy), softness=0.008)
    dome_top = min(anatomy.bases) - anatomy.dome
    belly = canvas.fill(box(-0.9, dome_top, 0.9, 0.9), softness=0.03) * (1 - air)
    y = np.linspace(anatomy.apex - 0.1, max(anatomy.bases), 60)
    borders = [np.stack([side * anatomy.heart(side, y), y], axis=1) for side in SIDES]
    heart = canvas.fill(np.concatenate([borders[0], borders[1][::-1]]), softness=0.012)
    spine = canvas.fill(box(-0.037, -0.9, 0.037, 0.9), softness=0.012)
    discs = canvas.fill(
        *(box(-0.04, v, 0.04, v + 0.008) for v in np.arange(-0.6, 0.6, 0.05)), softness=0.003
    )
    trachea = canvas.fill(box(-0.018, -0.6, 0.016, anatomy.heart_top), softness=0.006)
    hila = [anatomy.place(side, 0.05, 0.5) + 0.04 * circle(20) * (0.8, 1.4) for side in SIDES]
    posterior, anterior = ribs(anatomy)
    # A rib is a tube: its walls absorb more than its middle.
    bones = 21 * canvas.fill(bands(posterior, anatomy.rib_width), softness=0.002)
    bones -= 8 * canvas.fill(bands(posterior, 0.55 * anatomy.rib_width), softness=0.002)
    bones += 10 * canvas.fill(bands(anterior, 0.9 * anatomy.rib_width), softness=0.003)
    bones += 24 * canvas.fill(bands(clavicles(anatomy), 0.026), softness=0.003)
    branches = canvas.fill(*(vessels(anatomy, side) for side in SIDES), softness=0.002)

    chest = 12 + tissue * anatomy.body_level * (0.75 + 0.25 * canvas.blur(tissue, 0.06))
    chest += 38 * tissue * belly - anatomy.lung_depth * air
    chest += (1 - air) * (26 * heart * (1 - 0.9 * belly) - 22 * trachea)
    chest += 24 * spine - 8 * discs
    chest += air * (11 * branches + 22 * canvas.fill(*hila, softness=0.02))
    chest += bones * tissue * (1 - 0.8 * belly)
    return chest.astype(np.float32), lungs
