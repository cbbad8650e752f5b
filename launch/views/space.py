"""What `plan` says about disk space: known sizes of the stores, what stages wrote last time, what is free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Optional

from launch.pipeline import Pipeline
from launch.plan import Plan
from launch.views.plan import shown
from textocvp.config.data import SlotStoreConfig
from textocvp.config.synthetic import DEFAULTS
from textocvp.files import bytes_below, format_bytes, space_at
from textocvp.terminal import format_table

STORES = {"prepare_data": "frames", "precompute_slots": "slots"}
"""Stage -> the folder below EXP that it writes."""
CHANNELS = 4
"""Bytes per pixel of a generated frame in the store: red, green, blue and the object mask, uint8."""
FLOAT = 4


@dataclass(frozen=True)
class StageSpace:
    """Bytes of one stage, all its tasks together."""

    stage: str
    exact: Optional[int]
    """What it will have written in the end, where that is a product of known numbers."""
    last: int
    """What its last run wrote."""
    on_disk: int
    """What is there now of `exact`."""
    again: int
    """Bytes of outputs that are moved aside and written again."""
    to_run: bool

    @property
    def missing(self) -> int:
        """Bytes that it is known to need still."""
        return max(self.again, (self.exact or 0) - self.on_disk) if self.to_run else 0


def space_lines(pipeline: Pipeline, plan: Plan) -> List[str]:
    """A table of what is known, the free space, and a warning where it is too little."""
    stages = stage_spaces(pipeline, plan)
    rows = [
        (
            shown(each.stage),
            "" if each.exact is None else format_bytes(each.exact),
            format_bytes(each.last) if each.last else "",
        )
        for each in stages
        if each.exact is not None or each.last
    ]
    space = space_at(plan.root)
    table = format_table(("stage", "data to write", "last run wrote"), rows) if rows else []
    free = f"free: {format_bytes(space.free)} of {format_bytes(space.total)}"
    return ["", "space:", *(f"  {line}" for line in [*table, free]), *_warning(plan, stages, space.free)]


def space_warnings(pipeline: Pipeline, plan: Plan) -> List[str]:
    """The warning alone, where there is one."""
    return _warning(plan, stage_spaces(pipeline, plan), space_at(plan.root).free)


def _warning(plan: Plan, stages: List[StageSpace], free: int) -> List[str]:
    missing = sum(each.missing for each in stages)
    if missing <= free:
        return []
    return [
        f"WARNING: {plan.root}: at least {format_bytes(missing)} are still to be written, "
        f"{format_bytes(free)} are free; `make prune EXP={plan.root}` removes what is never needed again"
    ]


def stage_spaces(pipeline: Pipeline, plan: Plan) -> List[StageSpace]:
    """What is known of each stage of a plan."""
    exact = store_bytes(pipeline)
    last: Dict[str, int] = {}
    again: Dict[str, int] = {}
    for step in plan.steps:
        manifest, stage = plan.records.manifest(step.task.id), step.task.stage
        written = sum(entry["bytes"] for entry in manifest.outputs.values()) if manifest else 0
        last[stage] = last.get(stage, 0) + written
        again[stage] = again.get(stage, 0) + written * step.aside
    to_run = {step.task.stage for step in plan.to_run}
    folders = {stage: plan.root / STORES[stage] for stage in exact}
    there = {stage: bytes_below(folder) for stage, folder in folders.items()}
    return [
        StageSpace(stage, exact.get(stage), last[stage], there.get(stage, 0), again[stage], stage in to_run)
        for stage in last
    ]


def store_bytes(pipeline: Pipeline) -> Dict[str, int]:
    """Stage -> bytes of the data in its store, without HDF5's own; {} where the data is not generated.

    frames: videos x frames x H x W x 4 (uint8: RGB and mask)
    slots:  windows x frames x N x D x 4 (float32)
    """
    data = pipeline.data
    if data is None:
        return {}
    own = pipeline.experiments[""]
    num_frames = data.num_frames or DEFAULTS["num_frames"]
    height, width = own.dataset.img_size
    videos = data.num_train + data.num_valid + data.num_test
    found = {"prepare_data": videos * num_frames * height * width * CHANNELS}
    if not pipeline.slots_online and data.num_valid:  # else the reader splits the training videos
        window = max(each.prediction_params.num_frames for each in pipeline.predictor_experiments or (own,))
        slots = own.suite.slots if own.suite else SlotStoreConfig()
        starts = len(range(0, num_frames - window + 1, slots.stride)) * slots.draws
        windows = (
            data.num_train * (starts if own.dataset.random_start else 1) + data.num_valid + data.num_test
        )
        params = own.model.model_params
        found["precompute_slots"] = windows * window * params.num_slots * params.slot_dim * FLOAT
    return found
