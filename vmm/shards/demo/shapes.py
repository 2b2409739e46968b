"""Shapes in motion: what the demo clips show, how they are rendered, what their captions say.

Every motion is the exact time reversal of its twin: the frames of "moves to the left", played
backwards, are those of "moves to the right". Only a model that uses the order of frames can tell
their captions apart.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from itertools import product

import numpy as np

SHAPES = ("circle", "ring", "cross", "bar")
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (230, 40, 40),
    "green": (40, 190, 60),
    "blue": (50, 80, 230),
    "yellow": (235, 220, 50),
}
SIZES: dict[str, float] = {"small": 11.0, "large": 17.0}  # radius, in 1/64 of the picture
TEXTURES = ("plain", "striped")
BACKGROUNDS = ("black", "striped")
MOTIONS: dict[str, str] = {
    "left": "moves to the left",
    "right": "moves to the right",
    "up": "moves up",
    "down": "moves down",
    "grow": "grows",
    "shrink": "shrinks",
    "appear": "appears",
    "vanish": "vanishes",
}
TWIN_MOTIONS = (("left", "right"), ("up", "down"), ("grow", "shrink"), ("appear", "vanish"))
_TWIN = {a: b for pair in TWIN_MOTIONS for a, b in (pair, pair[::-1])}

GRAIN_LEVELS = 1.5  # standard deviation of the fixed-pattern noise, of 255


@dataclass(frozen=True)
class Scene:
    """One combination of attributes."""

    shape: str
    colour: str
    size: str
    texture: str
    background: str
    motion: str

    @property
    def still_caption(self) -> str:
        """What a single frame of the scene shows."""
        return (
            f"a {self.size} {self.texture} {self.colour} {self.shape} "
            f"on a {self.background} background"
        )

    @property
    def caption(self) -> str:
        """What the clip shows."""
        return (
            f"a {self.size} {self.texture} {self.colour} {self.shape} {MOTIONS[self.motion]} "
            f"on a {self.background} background"
        )

    @property
    def twin(self) -> Scene:
        """The same scene played backwards."""
        return replace(self, motion=_TWIN[self.motion])

    def attributes(self) -> dict[str, str]:
        """The combination as a plain dictionary."""
        return asdict(self)


def questions(scene: Scene) -> dict[str, tuple[str, str]]:
    """Ask about a scene: what is asked for -> question and answer.

    Only what happens needs more than one frame.
    """
    return {
        "colour": ("what colour is it?", scene.colour),
        "shape": ("what shape is it?", scene.shape),
        "size": ("what size is it?", scene.size),
        "event": ("what happens?", MOTIONS[scene.motion]),
    }


def all_answers() -> list[str]:
    """List every answer to ``questions`` once."""
    return [*COLOURS, *SHAPES, *SIZES, *MOTIONS.values()]


def twin_pairs() -> list[tuple[Scene, Scene]]:
    """Every scene once, beside its twin, in a fixed order."""
    return [
        (Scene(*look, motion), Scene(*look, twin))
        for look in product(SHAPES, COLOURS, SIZES, TEXTURES, BACKGROUNDS)
        for motion, twin in TWIN_MOTIONS
    ]


@dataclass(frozen=True)
class _Layout:
    """What is drawn at random for a clip, besides the grain."""

    centre: np.ndarray  # (2,) x, y
    radius: float
    travel: float  # half of the distance moved
    phase: float  # of the background's stripes, in periods
    tint: np.ndarray  # (3,) added to the colour

    @staticmethod
    def draw(scene: Scene, rng: np.random.Generator) -> _Layout:
        return _Layout(
            centre=rng.uniform(26, 38, 2),
            radius=SIZES[scene.size] * rng.uniform(0.9, 1.1),
            travel=rng.uniform(11, 16),
            phase=rng.uniform(0, 1),
            tint=rng.uniform(-10, 10, 3),
        )


def render(
    scene: Scene, num_frames: int, image_size: int, rng: np.random.Generator, pace: float = 1
) -> np.ndarray:
    """Draw a clip.

    Args:
        scene: What to draw.
        num_frames: Frames T, evenly spread from the start to the end of the clip.
        image_size: Side of the picture, pixels.
        rng: Draws place, exact size, travel, background phase, tint and grain. A scene and its
            twin rendered with equal generators have the same frames in opposite order.
        pace: Of the share ``u`` of the clip's time, ``u ** pace`` of the motion is done, before
            a scene that is another's twin is turned around.

    Returns:
        (T, H, W, 3) uint8 frames.
    """
    forward, backward = next(pair for pair in TWIN_MOTIONS if scene.motion in pair)
    layout = _Layout.draw(scene, rng)
    u = np.linspace(0, 1, num_frames, dtype=np.float32) ** np.float32(pace)
    scale = image_size / 64
    axis = (np.arange(image_size, dtype=np.float32) + 0.5) / scale
    x, y, radius, opacity = _trajectory(forward, layout, u)
    dx = axis[None, None, :] - x[:, None, None]
    dy = axis[None, :, None] - y[:, None, None]
    distance = _signed_distance(scene.shape, dx, dy, radius[:, None, None])
    cover = np.clip(0.5 - distance * scale, 0, 1) * opacity[:, None, None]
    colour = np.asarray(COLOURS[scene.colour], np.float32) + layout.tint.astype(np.float32)
    paint = _texture(scene.texture, dx, dy)[..., None] * colour
    behind = _background(scene.background, axis, layout.phase)[None, :, :, None]
    frames = behind + cover[..., None] * (paint - behind)
    frames += GRAIN_LEVELS * rng.standard_normal((image_size, image_size, 1), dtype=np.float32)
    pixels = np.clip(np.rint(frames), 0, 255).astype(np.uint8)
    return pixels[::-1] if scene.motion == backward else pixels


def _trajectory(
    motion: str, layout: _Layout, u: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return x, y, radius and opacity, each (T,) float32, for the instants ``u`` in [0, 1]."""
    one = np.ones_like(u)
    x: np.ndarray
    y: np.ndarray
    radius: np.ndarray
    x, y = (np.float32(c) * one for c in layout.centre)
    radius, opacity = np.float32(layout.radius) * one, one
    if motion == "left":
        x = x + np.float32(layout.travel) * (1 - 2 * u)
    elif motion == "up":
        y = y + np.float32(layout.travel) * (1 - 2 * u)
    elif motion == "grow":
        radius = radius * (0.4 + 0.9 * u)
    else:
        opacity = u
    return x, y, radius, opacity


def _signed_distance(shape: str, dx: np.ndarray, dy: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Distance to the outline, negative inside, broadcast to (T, H, W)."""
    ax, ay = np.abs(dx), np.abs(dy)
    if shape == "circle":
        return np.sqrt(dx * dx + dy * dy) - 0.9 * r
    if shape == "ring":
        return np.abs(np.sqrt(dx * dx + dy * dy) - 0.8 * r) - 0.2 * r
    if shape == "bar":
        return np.maximum(ax - r, ay - 0.35 * r)
    bars = np.maximum(ax - 0.25 * r, ay - r), np.maximum(ax - r, ay - 0.25 * r)
    return np.minimum(*bars)


def _texture(texture: str, dx: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """Brightness factor of the shape's paint; the pattern moves with the shape."""
    if texture == "plain":
        return np.ones((1, 1, 1), np.float32)
    wave = np.sin((dx + dy) * np.float32(2 * np.pi / 11))
    return 0.6 + 0.4 * np.clip(3 * wave, -1, 1)


def _background(background: str, axis: np.ndarray, phase: float) -> np.ndarray:
    """(H, W) grey levels of a background that never moves."""
    if background == "black":
        return np.full((len(axis), len(axis)), 15, np.float32)
    stripes = np.clip(3 * np.sin(2 * np.pi * (axis / 8 + phase)), -1, 1).astype(np.float32)
    return np.broadcast_to(70 + 18 * stripes[None, :], (len(axis), len(axis)))
