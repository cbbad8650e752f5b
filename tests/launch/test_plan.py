import json
import shutil
from dataclasses import replace

import pytest

from launch.plan import Action, Job, make_plan
from launch.state.manifest import Reason, Records, Why, input_hashes, write_manifest
from launch.state.task import ANY, Edge, Task, job_folder, write_task
from slurm.queue import JobState
from textocvp.files import UserError, provenance

DONE, QUEUED, RUN, OUTSIDE = Action.DONE, Action.QUEUED, Action.RUN, Action.OUTSIDE


def chain():
    """a -> b[0], b[1] -> c (any); b is costly, c cheap."""
    first = Task("make_data", 0, "", ("x",), {"n": 1}, outputs=("a.txt",))
    after, ends = (Edge("make_data", 0),), tuple(Edge("train_decomp", index, ANY) for index in (0, 1))
    trainings = [
        Task("train_decomp", i, "", ("x",), {"lr": 1}, ("a.txt",), (f"b{i}.txt",), after=after)
        for i in (0, 1)
    ]
    trainings = [replace(task, leftovers=(f"resume{task.index}",)) for task in trainings]
    last = Task("select_decomp", 0, "", ("x",), {}, ("b*.txt",), ("c.txt",), after=ends, replaceable=True)
    return [first, *trainings, last]


def finish(root, task, text="text"):
    """What a job leaves behind that succeeded."""
    for name in task.outputs:
        (root / name).write_text(text)
    write_task(root, task)
    write_manifest(root, task, input_hashes(Records(root), task), 1.0, provenance())


@pytest.fixture
def finished(tmp_path):
    for task in chain():
        finish(tmp_path, task)
    return tmp_path


def actions(plan):
    return [step.action for step in plan.steps]


def test_nothing_is_done_at_first_and_everything_at_the_end_also_in_a_copy(finished, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    assert actions(make_plan(elsewhere / "new", chain())) == [RUN] * 4
    assert actions(make_plan(finished, chain())) == [DONE] * 4
    for path in finished.glob("jobs/*/*/manifest.json"):
        assert str(finished) not in path.read_text() and json.loads(path.read_text())["outputs"]
    shutil.copytree(finished, elsewhere / "copy")
    assert actions(make_plan(elsewhere / "copy", chain())) == [DONE] * 4


def test_what_is_missing_runs_and_so_does_what_depends_on_it(finished):
    (job_folder(finished, "train_decomp", 1) / "manifest.json").unlink()
    plan = make_plan(finished, chain())
    assert actions(plan) == [DONE, DONE, RUN, RUN]
    assert plan.steps[3].may_change == (("train_decomp", 1),)
    assert plan.steps[3].why == "train-decomp[1] may change"


def test_costly_tasks_below_what_is_missing_are_planned_not_refused(finished):
    (job_folder(finished, "make_data", 0) / "manifest.json").unlink()
    assert actions(make_plan(finished, chain())) == [RUN] * 4
    finish(finished, chain()[0])
    assert actions(make_plan(finished, chain())) == [DONE] * 4, "the same inputs again change nothing"
    finish(finished, chain()[0], "other")
    with pytest.raises(UserError, match=r"inputs: a\.txt"):
        make_plan(finished, chain())


def test_damaged_outputs_run_again(finished):
    (finished / "b0.txt").write_text("longer text")
    plan = make_plan(finished, chain())
    assert actions(plan) == [DONE, RUN, DONE, RUN]
    assert "expected 4 bytes, got 11" in str(plan.steps[1].reasons[0])


def test_another_config_is_refused_with_the_difference_or_moved_aside(finished):
    tasks = [replace(task, config={"lr": 2}) if task.stage == "train_decomp" else task for task in chain()]
    with pytest.raises(UserError) as error:
        make_plan(finished, tasks)
    assert all(part in str(error.value) for part in ("train-decomp[0]", "lr: 1 -> 2", "--rerun"))
    plan = make_plan(finished, tasks, rerun=True)
    assert [step.aside for step in plan.steps] == [False, True, True, False]


def test_a_cheap_stage_is_replaced_without_asking(finished):
    tasks = chain()
    tasks[3] = replace(tasks[3], config={"criterion": "other"})
    assert actions(make_plan(finished, tasks)) == [DONE, DONE, DONE, RUN]


def test_an_interrupted_task_with_another_config_is_not_resumed(tmp_path):
    tasks = chain()
    finish(tmp_path, tasks[0])
    write_task(tmp_path, tasks[1])
    (tmp_path / "resume0").mkdir()
    assert make_plan(tmp_path, tasks).steps[1].reasons == (Reason(Why.NOT_FINISHED),)
    tasks[1] = replace(tasks[1], config={"lr": 2})
    with pytest.raises(UserError, match=r"lr: 1 -> 2"):
        make_plan(tmp_path, tasks)


def test_jobs_that_wait_or_run_are_kept_while_what_they_wait_for_is(tmp_path):
    tasks = chain()
    for task in tasks:
        write_task(tmp_path, task)
    finish(tmp_path, tasks[0])
    states = (None, JobState("RUNNING"), JobState("PENDING"), JobState("PENDING"))
    jobs = {task.id: Job(f"1{n}", "site", states[n]) for n, task in enumerate(tasks) if n}
    assert actions(make_plan(tmp_path, tasks, jobs=jobs)) == [DONE, QUEUED, QUEUED, QUEUED]
    del jobs[("train_decomp", 1)]
    plan = make_plan(tmp_path, tasks, jobs=jobs)
    assert actions(plan) == [DONE, QUEUED, RUN, RUN]
    assert [job.job_id for job in plan.superseded] == ["13"]


def test_a_running_job_whose_inputs_are_to_be_created_again_or_with_another_config(tmp_path):
    tasks, running = chain(), JobState("RUNNING")
    for task in tasks:
        write_task(tmp_path, task)
    jobs = {("select_decomp", 0): Job("13", "site", running)}  # cheap: runs again, on everything
    assert [job.job_id for job in make_plan(tmp_path, tasks, jobs=jobs).superseded] == ["13"]
    jobs = {("train_decomp", 0): Job("11", "site", running)}
    with pytest.raises(UserError, match=r"train-decomp\[0\] is running as job 11 while its inputs"):
        make_plan(tmp_path, tasks, jobs=jobs)
    finish(tmp_path, tasks[0])
    tasks[1] = replace(tasks[1], config={"lr": 2})
    with pytest.raises(UserError, match=r"train-decomp\[0\] is running as job 11 with another config"):
        make_plan(tmp_path, tasks, jobs=jobs)


def test_one_stage_alone(tmp_path):
    tasks = chain()
    plan = make_plan(tmp_path, tasks, frozenset({"train_decomp"}))
    assert actions(plan) == [RUN, RUN, RUN, OUTSIDE]
    # a seed may be missing where only the end of its training is waited for
    assert actions(make_plan(tmp_path, tasks, frozenset({"select_decomp"}))) == [OUTSIDE] * 3 + [RUN]
    tasks[3] = replace(tasks[3], after=(Edge("train_decomp", 0),))
    with pytest.raises(UserError, match=r"select-decomp\[0\] needs train-decomp\[0\], which .* \(it has not"):
        make_plan(tmp_path, tasks, frozenset({"select_decomp"}))
    for task in tasks[:2]:
        finish(tmp_path, task)
    assert actions(make_plan(tmp_path, tasks, frozenset({"select_decomp"}))) == [DONE, DONE, OUTSIDE, RUN]


def test_a_file_that_is_not_there_is_told_before_anything_is_submitted(tmp_path):
    first, *others = chain()
    tasks = [replace(first, inputs=("mine.pth",)), *others]
    with pytest.raises(UserError, match=r"^make-data\[0\] needs .*/mine\.pth, which does not exist$"):
        make_plan(tmp_path, tasks)
    (tmp_path / "mine.pth").touch()
    assert actions(make_plan(tmp_path, tasks)) == [RUN] * len(tasks)
