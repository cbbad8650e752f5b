"""CATER's captions: one sentence for each action, in words that the original vocabularies know."""

from __future__ import annotations

from collections.abc import Sequence

from textocvp.synthetic.motion import Action
from textocvp.synthetic.scene import SceneObject


def describe(thing: SceneObject, easy: bool) -> str:
    """How a sentence names an object: "the small gold metal snitch", or "the snitch" in CATER_Easy."""
    return f"the {thing.shape}" if easy else "the " + " ".join(thing.looks)


def sentence(action: Action, objects: Sequence[SceneObject], easy: bool) -> str:
    """One action in words, e.g. "the medium green rubber cone is sliding to (2, 3)."."""
    subject = describe(objects[action.subject], easy)
    if action.name == "slide":
        return f"{subject} is sliding to ({action.goal[0]}, {action.goal[1]})."
    if action.name == "pick_place":
        return f"{subject} is picked up and placed to ({action.goal[0]}, {action.goal[1]})."
    if action.name == "contain":
        return f"{subject} is containing {describe(objects[action.target], easy)}."
    return f"{subject} is rotating."


def caption(actions: Sequence[Action], objects: Sequence[SceneObject], easy: bool) -> str:
    """The whole caption: the sentences of all actions, which happen at the same time."""
    return " ".join(sentence(action, objects, easy) for action in actions)
