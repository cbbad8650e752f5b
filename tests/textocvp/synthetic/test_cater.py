import pytest

from textocvp.config.synthetic import ACTIONS, VideoSettings
from textocvp.data.tokenizers import CustomTokenizer
from textocvp.synthetic.cater import caption, plan_video
from textocvp.synthetic.motion import Action
from textocvp.synthetic.scene import SceneObject

CONE = SceneObject("medium", "green", "rubber", "cone", 0.8, (1, 1), 0.0)
SNITCH = SceneObject("small", "gold", "metal", "snitch", 0.6, (-2, 3), 0.0)
CONTAIN = Action("contain", 0, (-2, 3), 1)


@pytest.mark.parametrize(
    ("action", "hard"),
    [
        (Action("slide", 0, (2, 3)), "the medium green rubber cone is sliding to (2, 3)."),
        (Action("pick_place", 1, (-1, 3)), "the small gold metal snitch is picked up and placed to (-1, 3)."),
        (Action("rotate", 1), "the small gold metal snitch is rotating."),
        (CONTAIN, "the medium green rubber cone is containing the small gold metal snitch."),
    ],
)
def test_sentences(action, hard):
    assert caption([action], [CONE, SNITCH], easy=False) == hard
    easy = hard.replace("medium green rubber ", "").replace("small gold metal ", "")
    assert caption([action], [CONE, SNITCH], easy=True) == easy
    rotation = Action("rotate", 1)
    assert caption([action, rotation], [CONE, SNITCH], easy=True) == f"{easy} the snitch is rotating."


@pytest.mark.parametrize("dataset", ["CATER_Hard", "CATER_Easy"])
def test_the_original_vocabulary_accepts_every_caption(dataset):
    tokenizer = CustomTokenizer(dataset)
    counts = {"num_train": 1, "num_valid": 0, "num_test": 1, "num_frames": 6, "max_objects": 8}
    settings = VideoSettings(dataset=dataset, **counts, size=128, distinct_colors=False, antialias=1)
    seen = set()
    for index in range(150):
        plan = plan_video(settings, "test", index)
        text = caption(plan.actions, plan.objects, settings.easy)
        seen |= {action.name for action in plan.actions}
        assert len(tokenizer(text)) <= 50  # no unknown word; and the context of the original's text encoder
    assert seen == set(ACTIONS)
