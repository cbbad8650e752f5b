"""Drawing a scene: bodies with their shadows on the table and on each other, rubber and metal."""

from collections.abc import Sequence

import numpy as np

from textocvp.synthetic.geometry import (
    EYE,
    KEY_LIGHT,
    Body,
    Boxes,
    Camera,
    combine,
    make_bodies,
    per_pose,
    rotate,
)
from textocvp.synthetic.motion import Track
from textocvp.synthetic.scene import COLORS, GOLD, SceneObject
from textocvp.synthetic.shapes import Ray

FILL_LIGHT = np.array([-0.75, -0.45, 0.5]) / np.linalg.norm([-0.75, -0.45, 0.5])
"""Weak light from the other side; it casts no shadow."""


def _dot(vectors: Ray, direction: np.ndarray) -> np.ndarray:
    return combine([np.float32(component) for component in direction], vectors)


def shade(thing: SceneObject, normals: Ray, rays: Ray, height: np.ndarray, lit: np.ndarray) -> np.ndarray:
    """Colours (P,S,h,w,3).

    Args:
        normals, rays: unit vectors as components (P,S,h,w), rays from the eye to the surface.
        height: of the points above the table; the table's darkness reaches up to low ones.
        lit: share of the key light that arrives.
    """
    nx, ny, nz = normals
    facing = nx * rays[0] + ny * rays[1] + nz * rays[2]
    key_cosine, fill = _dot(normals, KEY_LIGHT), _dot(normals, FILL_LIGHT)
    if thing.shape == "snitch":  # its rings show their inner sides too
        outside = np.where(facing > 0, np.float32(-1), np.float32(1))
        nz, facing, key_cosine, fill = nz * outside, facing * outside, key_cosine * outside, fill * outside
    towards_light = np.maximum(_dot(rays, KEY_LIGHT) - 2 * facing * key_cosine, 0)
    near_table = np.minimum(height * np.float32(0.3 / (0.5 * thing.radius)), np.float32(0.3))
    ambient = (np.float32(0.72) + np.float32(0.28) * nz) * (np.float32(0.7) + near_table)
    key = np.maximum(key_cosine, 0) * lit
    fill = np.maximum(fill, 0)
    if thing.material == "rubber":
        diffuse = np.float32(0.42) * ambient + np.float32(0.68) * key + np.float32(0.16) * fill
        gloss = np.float32(0.10) * _power(towards_light, 8) * lit
    else:
        # what a mirror shows: the table below, a dim room above, a bright horizon, a lamp
        upwards = rays[2] - 2 * facing * nz
        sky = np.float32(0.95) - np.float32(0.75) * upwards
        table = np.float32(0.42) + np.float32(0.15) * upwards
        blend = np.clip(np.float32(3) * upwards + np.float32(0.5), 0, 1)
        studio = table + blend * (sky - table) + np.float32(0.55) * _power(towards_light, 8)
        diffuse = np.float32(0.26) * ambient + np.float32(0.36) * key + np.float32(0.08) * fill
        diffuse = diffuse + np.float32(0.62) * studio
        gloss = np.float32(0.85) * _power(towards_light, 32) * lit + np.float32(0.10) * studio
    rgb = np.empty((*diffuse.shape, 3), dtype=np.float32)
    for channel, base in enumerate(COLORS.get(thing.color, GOLD)):
        np.minimum(np.float32(base) * diffuse + gloss, 1, out=rgb[..., channel])
    return rgb


def _power(base: np.ndarray, exponent: int) -> np.ndarray:
    """base ** exponent for a power of two, by squaring; numpy's own takes ten times as long."""
    while exponent > 1:
        base, exponent = base * base, exponent // 2
    return base


SHADOW = np.float32(0.46)
"""Share of the table's light that the key light's shadow takes."""
CONTACT = 0.45
"""Share of the remaining light that an object takes where it touches the table."""
CONTACT_REACH = 2.0
"""How far from its centre an object darkens the table, in radii."""


def render_video(
    camera: Camera, objects: Sequence[SceneObject], tracks: Sequence[Track]
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a scene.

    Returns:
        frames (T,H,W,3) uint8 and masks (T,H,W) uint8: 0 the table, i + 1 where most samples show object i.
    """
    bodies = make_bodies(objects, tracks)
    num_frames, (_, *samples_and_pixels) = len(tracks[0].positions), camera.rays.shape
    depth = np.full((num_frames, *samples_and_pixels), np.inf, dtype=np.float32)
    ids = np.zeros(depth.shape, dtype=np.uint8)
    rgb = np.zeros((*depth.shape, 3), dtype=np.float32)
    for index, body in enumerate(bodies):
        boxes = camera.boxes(body.centre, body.reach)
        if not boxes.empty:
            own_depth, own_rgb = draw_body(camera, bodies, index, boxes)
            for frames, pose in body.frames_of_poses(num_frames):
                box = (frames, slice(None), *boxes.pixels(pose))
                nearer = own_depth[pose] < depth[box]
                np.copyto(depth[box], own_depth[pose], where=nearer)
                np.copyto(ids[box], np.uint8(index + 1), where=nearer)
                np.copyto(rgb[box], own_rgb[pose], where=nearer[..., None])
    shadow, contact = draw_table_light(camera, bodies, num_frames)
    light = np.where(shadow, 1 - SHADOW, np.float32(1))
    light[ids > 0] = 0
    image = rgb.sum(axis=1)
    image += (light.sum(axis=1) * contact)[..., None] * camera.table_rgb
    image *= np.float32(255 / camera.rays.shape[1])  # colours and light are at most 1
    return (image + np.float32(0.5)).astype(np.uint8), majority(ids, len(bodies))


def draw_body(
    camera: Camera, bodies: Sequence[Body], index: int, boxes: Boxes
) -> tuple[np.ndarray, np.ndarray]:
    """One body as the camera sees it in these boxes, with the others' shadows on it, but nothing in front.

    Returns:
        depth (P,S,h,w), infinite where rays miss; rgb (P,S,h,w,3).
    """
    body, rays = bodies[index], boxes.cut(camera.rays)
    eye = tuple(np.array(component, dtype=np.float32) for component in EYE)
    origin, direction = body.own_frame(np.arange(body.num_poses), eye, rays)
    near, _ = body.shape.intersect(origin, direction)
    met = np.isfinite(near)
    near = np.where(met, near, np.float32(0))
    normals = body.shape.normal(*(o + near * d for o, d in zip(origin, direction)))
    if body.rotations is not None:
        normals = rotate(body.rotations, normals)
    depth = near * np.float32(body.thing.radius)
    points = tuple(start + depth * ray for start, ray in zip(eye, rays))
    if body.contained:
        met &= points[2] < per_pose(body.ceiling.astype(np.float32))
    lit = shadow_on_body(camera, bodies, index, points, normals)
    rgb = shade(body.thing, normals, rays, points[2], lit)
    return np.where(met, depth, np.float32(np.inf)), rgb


def shadow_on_body(
    camera: Camera, bodies: Sequence[Body], index: int, points: Ray, normals: Ray
) -> np.ndarray:
    """Share of the key light, 0 or 1, that the other bodies let through to points (P,S,h,w) of one body.

    What is inside a cone, or about to be, casts no shadow on it.
    """
    body = bodies[index]
    lit = np.ones(points[2].shape, dtype=np.float32)
    for other, caster in enumerate(bodies):
        if other == index or caster.contained or (caster.num_poses > 1 and body.num_poses == 1):
            continue
        poses = np.flatnonzero(body.shaded_by(caster))
        if len(poses):
            starts = tuple(p[poses] + np.float32(0.02) * n[poses] for p, n in zip(points, normals))
            cast = poses if caster.num_poses > 1 else np.zeros_like(poses)
            origin, direction = caster.own_frame(cast, starts, camera.light_rays)
            _, far = caster.shape.intersect(origin, direction)
            lit[poses] *= far <= 0
    return lit


def draw_table_light(
    camera: Camera, bodies: Sequence[Body], num_frames: int
) -> tuple[np.ndarray, np.ndarray]:
    """Light on the table.

    Returns:
        shadow (T,S,H,W) bool, where a body hides the key light; contact (T,H,W), lower around bodies.
    """
    shadow = np.zeros((num_frames, *camera.rays.shape[1:]), dtype=bool)
    contact = np.ones((num_frames, camera.size, camera.size), dtype=np.float32)
    for body in bodies:
        foot = body.centre - KEY_LIGHT * (body.centre[:, 2:] / KEY_LIGHT[2])
        boxes = camera.boxes(foot, body.reach / KEY_LIGHT[2] * 1.08)  # the light's spread makes it larger
        if not boxes.empty:
            points = (*boxes.cut(camera.table), np.array(0, dtype=np.float32))
            _, far = body.shape.intersect(
                *body.own_frame(np.arange(body.num_poses), points, camera.light_rays)
            )
            hidden = far > np.float32(1e-3)
            for frames, pose in body.frames_of_poses(num_frames):
                shadow[(frames, slice(None), *boxes.pixels(pose))] |= hidden[pose]
        below = body.positions * np.array([1.0, 1.0, 0.0])
        boxes = camera.boxes(below, CONTACT_REACH * body.thing.radius)
        if not boxes.empty:
            remaining = contact_light(body, *boxes.cut(camera.table[:, :1]))
            for frames, pose in body.frames_of_poses(num_frames):
                contact[(frames, *boxes.pixels(pose))] *= remaining[pose]
    return shadow, contact


def contact_light(body: Body, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(P,h,w) share of light that table points, each (P,1,h,w), keep next to a body on the table.

    The sky's light, roughly: it grows with distance, up to 1 at CONTACT_REACH, and when the body is lifted.
    """
    dx = x - per_pose(body.centre[:, 0].astype(np.float32))
    dy = y - per_pose(body.centre[:, 1].astype(np.float32))
    radius = body.thing.radius
    near = np.maximum(0, 1 - (dx * dx + dy * dy) * np.float32(1 / (CONTACT_REACH * radius) ** 2))
    lifted = body.positions[:, 2] - body.positions[:, 2].min()
    strength = CONTACT * np.exp(-3 * lifted / radius)
    return (1 - per_pose(strength.astype(np.float32)) * near * near)[:, 0]


def majority(ids: np.ndarray, num_objects: int) -> np.ndarray:
    """(T,H,W): the id that most samples of (T,S,H,W) show; an object wins a tie against the table."""
    best = np.zeros(ids[:, 0].shape, dtype=np.uint8)
    most = (ids == 0).sum(axis=1, dtype=np.uint8)
    for number in range(1, num_objects + 1):
        count = (ids == number).sum(axis=1, dtype=np.uint8)
        best[(count >= most) & (count > 0)] = number
        most = np.maximum(most, count)
    return best
