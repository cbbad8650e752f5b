"""What `plan` says about disk space: known sizes of the stores, what stages wrote last time, what is free."""

from __future__ import annotations

from typing import Dict, Iterable, List

from launch.pipeline import Pipeline
from launch.plan import Plan, Step
from launch.views.plan import shown
from textocvp.config.data import SlotStoreConfig
from textocvp.files import bytes_below, format_bytes, space_at
from textocvp.terminal import format_table

STORES = {"prepare_data": "frames", "precompute_slots": "slots"}
"""Stage -> the folder below EXP that it writes."""
CHANNELS = 4
"""Bytes per pixel of a generated frame in the store: red, green, blue and the object mask, uint8."""
FLOAT = 4


def space_lines(pipeline: Pipeline, plan: Plan) -> List[str]:
    """A table of what is known, the free space, and a warning where it is too little."""
    exact, last = store_bytes(pipeline), _written(plan, plan.steps)
    rows = [
        (shown(stage), *(format_bytes(known[stage]) if known.get(stage) else "" for known in (exact, last)))
        for stage in dict.fromkeys(step.task.stage for step in plan.steps)
        if stage in exact or last.get(stage)
    ]
    space = space_at(plan.root)
    table = format_table(("stage", "data to write", "last run wrote"), rows) if rows else []
    free = f"free: {format_bytes(space.free)} of {format_bytes(space.total)}"
    return ["", "space:", *(f"  {line}" for line in [*table, free]), *space_warnings(pipeline, plan)]


def space_warnings(pipeline: Pipeline, plan: Plan) -> List[str]:
    """A line where the bytes that are known to be still needed exceed the free space."""
    to_run = {step.task.stage for step in plan.to_run}
    needed = _written(plan, (step for step in plan.to_run if step.aside))  # the old outputs are kept
    for stage, number in store_bytes(pipeline).items():
        if stage in to_run and stage not in needed:
            needed[stage] = max(0, number - bytes_below(plan.root / STORES[stage]))
    missing, free = sum(needed.values()), space_at(plan.root).free
    if missing <= free:
        return []
    return [
        f"WARNING: {plan.root}: at least {format_bytes(missing)} still to be written, {format_bytes(free)} "
        f"free; `make prune EXP={plan.root}` removes what is never needed again"
    ]


def _written(plan: Plan, steps: Iterable[Step]) -> Dict[str, int]:
    """Stage -> bytes of the outputs in the manifests of some tasks."""
    found: Dict[str, int] = {}
    for step in steps:
        manifest = plan.records.manifest(step.task.id)
        for entry in manifest.outputs.values() if manifest else ():
            found[step.task.stage] = found.get(step.task.stage, 0) + entry["bytes"]
    return found


def store_bytes(pipeline: Pipeline) -> Dict[str, int]:
    """Stage -> bytes of the data in its store, without HDF5's own; {} where the data is not generated.

    frames: videos x frames x H x W x 4 (uint8: RGB and mask)
    slots:  windows x frames x N x D x 4 (float32)
    """
    data = pipeline.data
    if data is None:
        return {}
    own = pipeline.experiments[""]
    height, width = own.dataset.img_size
    videos = data.num_train + data.num_valid + data.num_test
    found = {"prepare_data": videos * data.num_frames * height * width * CHANNELS}
    if not pipeline.slots_online and data.num_valid:  # else the reader splits the training videos
        window = max(each.prediction_params.num_frames for each in pipeline.predictor_experiments or (own,))
        slots = own.suite.slots if own.suite else SlotStoreConfig()
        starts = len(range(0, data.num_frames - window + 1, slots.stride)) * slots.draws
        windows = (
            data.num_train * (starts if own.dataset.random_start else 1) + data.num_valid + data.num_test
        )
        params = own.model.model_params
        found["precompute_slots"] = windows * window * params.num_slots * params.slot_dim * FLOAT
    return found
