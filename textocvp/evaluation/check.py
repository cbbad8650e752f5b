"""`check-summary`: compare an experiment's summary with the figures that its recipe asks for. No torch.

    checks:
      decomposition.object_miou: {min: 0.40}
      predictors.TextOCVP_CustomTF.psnr - predictors.VanillaTransformer.psnr: {min: 1.5}

What is checked is a figure of summary.json by its dotted path, or the difference of two (" - " between them).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Mapping, Tuple

import yaml

from textocvp.config.errors import UserError, nearest
from textocvp.evaluation.report import SUMMARY
from textocvp.files import read_json

MINUS = " - "
BOUNDS = {"min": ">=", "max": "<="}
RECIPE = "recipe.yaml"


def check_summary(exp_directory: Path) -> None:
    """Print one line for each check of EXP/recipe.yaml.

    Raises:
        UserError: summary or checks are missing or malformed, or a check failed.
    """
    checks = read_checks(exp_directory / RECIPE)
    results = run_checks(read_json(exp_directory / SUMMARY), checks)
    for passed, line in results:
        print(f"{'ok    ' if passed else 'FAILED'}  {line}")
    failed = sum(not passed for passed, _ in results)
    if failed:
        raise UserError(f"{exp_directory}: {failed} of {len(results)} checks failed")


def read_checks(path: Path) -> Dict[str, Mapping[str, float]]:
    """The section `checks` of a recipe; UserError where it is missing or malformed."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; only experiments submitted from a recipe can be checked")
    try:
        recipe = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise UserError(f"{path}: no valid YAML ({' '.join(str(error).split())})") from None
    checks = recipe.get("checks") if isinstance(recipe, dict) else None
    if not isinstance(checks, dict) or not checks:
        raise UserError(f"{path}: checks: missing; a mapping such as {{decomposition.ari: {{min: 0.5}}}}")
    for expression, bounds in checks.items():
        _check_bounds(f"{path}: checks.{expression}", bounds)
    return checks


def _check_bounds(where: str, bounds: Any) -> None:  # noqa: ANN401
    if not isinstance(bounds, dict) or not bounds:
        raise UserError(f"{where}: {bounds!r} is not allowed, {{min: number, max: number}} is needed")
    for name, value in bounds.items():
        if name not in BOUNDS:
            raise UserError(f"{where}: unknown key {name!r}{nearest(str(name), BOUNDS)}")
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise UserError(f"{where}.{name}: {value!r} is no number")


def run_checks(
    summary: Mapping[str, Any], checks: Mapping[str, Mapping[str, float]]
) -> List[Tuple[bool, str]]:
    """Whether each bound holds, and a line that says so."""
    results = []
    for expression, bounds in checks.items():
        value = evaluate(summary, expression)
        for name, bound in bounds.items():
            passed = value >= bound if name == "min" else value <= bound
            results.append((passed, f"{expression} = {value:.3f} {BOUNDS[name]} {bound}"))
    return results


def evaluate(summary: Mapping[str, Any], expression: str) -> float:
    """The figure, or the difference of two, that an expression names; UserError where there is none."""
    first, *rest = (_figure(summary, path.strip(), expression) for path in expression.split(MINUS))
    if len(rest) > 1:
        raise UserError(f"check {expression!r}: at most one{MINUS}is allowed")
    return first - sum(rest)


def _figure(summary: Mapping[str, Any], path: str, expression: str) -> float:
    value: Any = summary
    for name in path.split("."):
        if not isinstance(value, dict) or name not in value:
            known = value if isinstance(value, dict) else ()
            raise UserError(
                f"check {expression!r}: summary.json has no {name!r} in {path!r}{nearest(name, known)}"
            )
        value = value[name]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UserError(f"check {expression!r}: {path!r} is no number in summary.json: {value!r}")
    return float(value)
