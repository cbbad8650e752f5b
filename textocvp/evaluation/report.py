"""The figures of all stages in one file and one table, and the checks of a recipe. Needs no torch.

    python -m textocvp report -d EXP
    python -m textocvp check-summary -d EXP

check-summary compares figures of EXP/summary.json, by their dotted paths, with the bounds in EXP/recipe.yaml:

    checks:
      decomposition.object_miou: {min: 0.40}
      margins.TextOCVP_CustomTF.over.VanillaTransformer.psnr: {min: 1.5}
"""

from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

from textocvp.config.experiment import FILE_NAME, FINAL, load_experiment
from textocvp.config.schema import build, read_yaml
from textocvp.config.training import Bounds
from textocvp.evaluation import SELECTED_MARK, figures_table, find_seeds
from textocvp.files import UserError, atomic_path, nearest, read_json, write_json
from textocvp.terminal import format_table

SUMMARY, TABLES, RECIPE = "summary.json", "summary.txt", "recipe.yaml"
PLOTS = "plots"
BASELINES = ("tiling", "colour_kmeans")
DECOMPOSITION_COLUMNS = ("object_miou", "background_iou", "ari", "fg_ari", "psnr")
PREDICTION_COLUMNS = ("psnr", "psnr_last", "psnr_moving", "ssim")
REFERENCES = {
    "copy_frame": "copy the context frame",
    "copy_slots": "copy its slots, decoded",
    "ceiling": "decode the true slots (ceiling)",
}
"""Key in the results -> what the row is called."""


def report(exp_directory: Path) -> None:
    """Write EXP/summary.json and its tables, EXP/summary.txt, print them, and name what is missing.

    Raises:
        UserError: something is missing, after everything else was written and printed.
    """
    load_experiment(exp_directory)  # or a UserError
    missing: List[str] = []
    decomposition = _decomposition(exp_directory, missing)
    predictors, references = _predictors(exp_directory, missing)
    if not (exp_directory / PLOTS / "decomposition_00.png").is_file():
        missing.append(f"{exp_directory / PLOTS} (figures writes them)")
    summary = {
        "decomposition": decomposition,
        "predictors": predictors,
        **references,
        "margins": margins(predictors, references),
        "seconds": stage_seconds(exp_directory),
    }
    write_json(exp_directory / SUMMARY, summary)
    tables = summary_tables(summary)
    with atomic_path(exp_directory / TABLES) as temporary:
        temporary.write_text(tables + "\n")
    if tables:
        print(f"{tables}\n\n{exp_directory / SUMMARY}")
    if missing:
        raise UserError(f"{exp_directory}: incomplete: {'; '.join(missing)}")


def _decomposition(folder: Path, missing: List[str]) -> Optional[Dict[str, Any]]:
    """Figures of model, seeds and baselines; adds to what is missing."""
    seeds = find_seeds(folder)
    missing += [f"decomposition seed {seed} (no {FINAL})" for seed in seeds.missing]
    results = _read_results(folder / "results" / "decomposition.json", "evaluate-decomp", missing)
    if results is None:
        return None
    missing += [f"figures of decomposition seed {s}" for s in seeds.finished if s not in results["seeds"]]
    return {name: results[name] for name in (*DECOMPOSITION_COLUMNS, *BASELINES, "seeds")}


def _predictors(folder: Path, missing: List[str]) -> Tuple[Dict[str, Any], Dict[str, Any]]:
    """Figures by predictor, and those of the references; adds to what is missing."""
    predictors: Dict[str, Any] = {}
    references: Dict[str, Any] = dict.fromkeys(REFERENCES)
    conditions = {}
    for path in sorted((folder / "predictors").glob(f"*/{FILE_NAME}")):
        name = path.parent.name
        missing += [f"predictor {name} seed {seed} (no {FINAL})" for seed in find_seeds(path.parent).missing]
        results = _read_results(path.parent / "results" / "prediction.json", "evaluate-predictor", missing)
        if results is not None:
            seeds = {seed: _prediction_figures(values) for seed, values in results["seeds"].items()}
            predictors[name] = {**_prediction_figures(results), **({"seeds": seeds} if seeds else {})}
            references = {key: _prediction_figures(results[key]) for key in REFERENCES}
            conditions[name] = [results[key] for key in ("decomposition_sha256", "num_context", "num_preds")]
    if len(set(map(str, conditions.values()))) > 1:
        reason = "were evaluated with different decomposition checkpoints or numbers of frames"
        missing.append(f"comparable figures: {', '.join(conditions)} {reason}")
    return predictors, references


def _prediction_figures(results: Mapping[str, Any]) -> Dict[str, Any]:
    return {name: results[name] for name in PREDICTION_COLUMNS}


def _read_results(path: Path, command: str, missing: List[str]) -> Optional[Dict[str, Any]]:
    results: Optional[Dict[str, Any]] = read_json(path) if path.is_file() else None
    if results is None:
        missing.append(f"{path} ({command} writes it)")
    return results


def margins(predictors: Mapping[str, Any], references: Mapping[str, Any]) -> Dict[str, Any]:
    """How much better each predictor is than every other one, and than copying: figure less figure."""
    copies = {name: references[name] for name in ("copy_frame", "copy_slots") if references[name]}

    def margin(own: Mapping[str, Any], other: Mapping[str, Any]) -> Dict[str, Any]:
        pairs = {figure: (own[figure], other[figure]) for figure in PREDICTION_COLUMNS}
        return {figure: None if None in pair else pair[0] - pair[1] for figure, pair in pairs.items()}

    return {
        name: {"over": {o: margin(own, other) for o, other in {**predictors, **copies}.items() if o != name}}
        for name, own in predictors.items()
    }


def stage_seconds(folder: Path) -> Dict[str, float]:
    """Seconds of work of each finished stage, summed over its tasks, in the order in which stages ended."""
    paths = sorted((folder / "jobs").glob("*/*/manifest.json"), key=lambda path: path.stat().st_mtime)
    seconds: Dict[str, float] = {}
    for manifest in map(read_json, paths):
        stage = manifest["stage"]
        # a stage comes where its last task ended
        seconds[stage] = round(seconds.pop(stage, 0.0) + manifest["seconds"], 1)
    return seconds


def summary_tables(summary: Mapping[str, Any]) -> str:
    """The summary for people."""
    references = {name: summary[name] for name in REFERENCES if summary[name] is not None}
    tables = []
    if summary["decomposition"]:
        tables.append(decomposition_table(summary["decomposition"]))
    if summary["predictors"]:
        tables.append(prediction_table(summary["predictors"], references))
    if summary["seconds"]:
        seconds = {**summary["seconds"], "all stages": sum(summary["seconds"].values())}
        lines = [(stage.replace("_", "-"), f"{value:8.0f}") for stage, value in seconds.items()]
        tables.append("\n".join(format_table(("stage", "seconds"), lines, figures=True)))
    return "\n\n".join(tables)


def decomposition_table(results: Mapping[str, Any]) -> str:
    """Model, its seeds (the selected one marked) and the blind baselines of one decomposition.json."""
    seeds = results.get("seeds") or {}
    rows = {} if any(figures["selected"] for figures in seeds.values()) else {"model": results}
    for seed, figures in seeds.items():
        rows[f"seed {seed}{SELECTED_MARK if figures['selected'] else ''}"] = figures
    rows["tiling of the image"] = results["tiling"]
    rows["k-means on colour, number given"] = results["colour_kmeans"]
    note = f"\n{SELECTED_MARK.strip()} selected without labels" if seeds else ""
    return figures_table("decomposition, test clips", DECOMPOSITION_COLUMNS, rows) + note


def prediction_table(predictors: Mapping[str, Mapping[str, Any]], references: Mapping[str, Any]) -> str:
    """Predictors (with several seeds their mean and each one), and what they are compared to."""
    rows = {}
    for name, results in predictors.items():
        seeds = results.get("seeds") or {}
        rows[f"{name}, mean of {len(seeds)} seeds" if len(seeds) > 1 else name] = results
        if len(seeds) > 1:
            rows.update({f"  {name}, seed {seed}": figures for seed, figures in seeds.items()})
    rows.update({REFERENCES[name]: references[name] for name in REFERENCES if name in references})
    return figures_table("prediction, test clips", PREDICTION_COLUMNS, rows)


def check_summary(exp_directory: Path) -> None:
    """Print one line for each check of EXP/recipe.yaml.

    Raises:
        UserError: summary or checks are missing or malformed, or a check failed.
    """
    path = exp_directory / RECIPE
    recipe = read_yaml(path)
    checks = recipe.get("checks") if isinstance(recipe, dict) else None
    if not isinstance(checks, dict) or not checks:
        raise UserError(f"{path}: checks: missing; expected for example {{decomposition.ari: {{min: 0.5}}}}")
    bounds = {name: build(Bounds, values, str(path), f"checks.{name}") for name, values in checks.items()}
    summary, failed = read_json(exp_directory / SUMMARY), 0
    for name, bound in bounds.items():
        value = _figure(summary, name, exp_directory / SUMMARY)
        for sign, limit in ((">=", bound.min), ("<=", bound.max)):
            if limit is not None:
                passed = value >= limit if sign == ">=" else value <= limit
                failed += not passed
                print(f"{'ok    ' if passed else 'FAILED'}  {name} = {value:.3f} {sign} {limit:g}")
    if failed:
        raise UserError(f"{exp_directory}: {failed} checks failed")


def _figure(summary: Any, name: str, source: Path) -> float:
    """The number at a dotted path of the summary; UserError if there is none."""
    value = summary
    for key in name.split("."):
        if not isinstance(value, dict) or key not in value:
            known = value if isinstance(value, dict) else ()
            raise UserError(f"{source}: {name}: no {key!r}{nearest(key, known)}")
        value = value[key]
    if not isinstance(value, (int, float)):
        raise UserError(f"{source}: {name}: expected a number, got {value!r}")
    return value
