"""Plans on the terminal: tasks, edges, resources, batch scripts, disk space; and the report stage's table."""

from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, Sequence

from launch import CODE
from launch.jobs import Submission
from launch.pipeline import Pipeline
from launch.plan import Action, Plan, Step
from launch.state import ledger
from launch.state.snapshot import snapshot_folder, snapshot_path
from launch.state.task import ANY, OK, Task, TaskId
from slurm.site import ClusterConfig
from textocvp.config.data import SlotStoreConfig
from textocvp.files import bytes_below, format_bytes, space_at
from textocvp.terminal import format_table

REPORT = "summary.txt"
"""In EXP: the table that the report stage writes."""
STORES = {"prepare_data": "frames", "precompute_slots": "slots"}
"""Stage -> the folder below EXP that it writes."""
CHANNELS = 4
"""Bytes per pixel of a generated frame in the store: red, green, blue and the object mask, uint8."""
FLOAT = 4


def summary_line(plan: Plan, cluster: ClusterConfig) -> str:
    """A summary of a plan in one line."""
    counts = {action: sum(step.action is action for step in plan.steps) for action in Action}
    others = counts.pop(Action.OUTSIDE)
    parts = [f"{number} {action.value}" for action, number in counts.items() if number]
    end = "; nothing to submit" if counts[Action.QUEUED] else "; nothing is left to do"
    end = f"; nothing to do; not done: {_count(others, 'task')} not requested" if others else end
    end = "" if counts[Action.RUN] else end
    return f"{plan.root} on {cluster.name}: {len(plan.steps)} tasks, {', '.join(parts)}{end}"


def provenance_notes(plan: Plan, about: Mapping[str, Any]) -> List[str]:
    """Notes about done tasks that were created by other code or another image; they still count as done.

    Also about done tasks whose outputs may block new ones.

    Args:
        about: revision and image of a submission now.
    """
    notes = []
    if plan.at_stake:
        notes.append(
            f"note: {', '.join(tasks_text(plan.at_stake))} done; if their inputs change, they fail, "
            "or with --rerun (RERUN=1) move their outputs aside"
        )
    done = [plan.records.manifest(step.task.id) for step in plan.steps if step.action is Action.DONE]
    for what, name in (("other code", "revision"), ("another image", "image")):
        found = [getattr(manifest, name) for manifest in done if getattr(manifest, name) != about[name]]
        if found:
            others = ", ".join(sorted({other[:12] or "unknown" for other in found}))
            now = about[name][:12] or "none"
            notes.append(f"note: {len(found)} done tasks were created by {what} ({others}; now {now})")
    return notes


def plan_lines(plan: Plan, cluster: ClusterConfig) -> List[str]:
    """Stages, their resources, and each task with its edges and its action."""
    lines, stage = [summary_line(plan, cluster)], ""
    for step in plan.steps:
        task = step.task
        if task.stage != stage:
            stage = task.stage
            lines += ["", f"{shown(stage)}: {resources_text(cluster, stage)}"]
        why = f" ({step.why})" if step.why else ""
        label = f" {task.label}" if task.label else ""
        lines.append(f"  [{task.index}]{label}: {step.action.value}{why}")
        lines.append(f"      {task.command}")
        lines += [f"      after {edges_text(task)}"] if task.after else []
    return lines


def script_lines(plan: Plan, cluster: ClusterConfig, about: Mapping[str, Any]) -> List[str]:
    """The exact batch script of every array that would be submitted.

    Stages stand for job ids that are not known yet: afterok:TRAIN-DECOMP_0.

    Args:
        about: the ledger's values for the jobs.
    """
    from slurm.executor import sbatch_text  # submitit: not needed to plan a local run

    submission = Submission(cluster, plan.root, snapshot_path(CODE, snapshot_folder(plan.root)), about)
    arrays = by_stage(plan.to_run)
    new = {step.task.id: f"{shown(step.task.stage).upper()}_{step.task.index}" for step in plan.to_run}
    jobs, earlier = {**plan.queued_jobs, **new}, ledger.submitted_jobs(plan.root)
    lines = []
    for tasks in arrays.values():
        for job, group in submission.array_jobs(tasks, jobs, earlier):
            lines += ["", f"{tasks_text(task.id for task in group)[0]} is submitted as:"]
            lines += [f"    {line}".rstrip() for line in sbatch_text(cluster, job).splitlines()]
    return lines


def by_stage(steps: Iterable[Step]) -> Dict[str, List[Task]]:
    """The steps' tasks, grouped by stage, in order."""
    stages: Dict[str, List[Task]] = {}
    for step in steps:
        stages.setdefault(step.task.stage, []).append(step.task)
    return stages


def shown(stage: str) -> str:
    """A stage's id with hyphens, for people."""
    return stage.replace("_", "-")


def edges_text(task: Task) -> str:
    """The dependencies of a task by stage: "success of train-decomp[0,2]"."""
    words = {ANY: "the end of", OK: "success of"}
    modes = dict.fromkeys(edge.mode for edge in task.after)
    return ", ".join(
        f"{words[mode]} {names}"
        for mode in modes
        for names in tasks_text(edge.id for edge in task.after if edge.mode == mode)
    )


def tasks_text(tasks: Iterable[TaskId]) -> List[str]:
    """Tasks grouped by stage, in order: "train-decomp[0,2-5]"."""
    groups: Dict[str, List[int]] = {}
    for stage, index in tasks:
        groups.setdefault(stage, []).append(index)
    return [f"{shown(stage)}[{_ranges(indices)}]" for stage, indices in groups.items()]


def _ranges(numbers: Sequence[int]) -> str:
    """ "0,2-5": three or more in a row are written as the first and the last."""
    runs: List[List[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 2 else ",".join(map(str, run)) for run in runs)


def resources_text(cluster: ClusterConfig, stage: str) -> str:
    """The resources of a stage's jobs in one line; nothing limits the time of local runs."""
    resources = cluster.job_resources(stage)
    parts = [_count(resources.nodes, "node")]
    parts += [f"{_count(resources.gpus_per_node, 'GPU')} per node"] if resources.gpus_per_node else []
    parts += [f"{resources.ranks_per_node} processes per node"] if resources.ranks_per_node > 1 else []
    parts += [f"{_count(resources.cpus_per_task, 'core')} per process"] if resources.cpus_per_task else []
    parts += [f"{resources.mem_gb:g} GB"] if resources.mem_gb else []
    return ", ".join([*parts, *([f"limit {resources.time}"] if cluster.scheduler != "local" else [])])


def _count(number: int, name: str) -> str:
    return f"{number} {name}{'s' * (number > 1)}"


def space_lines(pipeline: Pipeline, plan: Plan) -> List[str]:
    """A table of known sizes, the free space, and a warning if there is too little."""
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
    """A warning if the bytes still to be written exceed the free space."""
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
        f"free; `make prune EXP={plan.root}` removes files that are no longer needed"
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
    """Stage -> bytes of the data in its store, without HDF5's own; {} if the data is not generated.

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
    if not pipeline.slots_online and data.num_valid:  # else the reader holds out training videos
        window = max(each.prediction_params.num_frames for each in pipeline.predictor_experiments or (own,))
        slots = own.suite.slots if own.suite else SlotStoreConfig()
        starts = len(range(0, data.num_frames - window + 1, slots.stride)) * slots.draws
        windows = (
            data.num_train * (starts if own.dataset.random_start else 1) + data.num_valid + data.num_test
        )
        params = own.model.model_params
        found["precompute_slots"] = windows * window * params.num_slots * params.slot_dim * FLOAT
    return found


def print_report(root: Path) -> None:
    """Print the report stage's table, if it has finished."""
    path = Path(root) / REPORT
    if (
        ledger.last_events(root).get(TaskId("report", 0), {}).get("event") == ledger.FINISHED
        and path.is_file()
    ):
        print(path.read_text().rstrip())
