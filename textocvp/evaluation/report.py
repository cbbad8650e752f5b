"""Stage report: the figures of all stages in one file and one table. Needs no torch, so it prints at once.

python -m textocvp report -d EXP
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from textocvp.artifacts import FINAL, Manifest, read_json, write_json
from textocvp.config.errors import UserError
from textocvp.config.experiment import FILE_NAME
from textocvp.evaluation.seeds import find_seeds
from textocvp.evaluation.tables import (
    DECOMPOSITION_COLUMNS,
    PREDICTION_COLUMNS,
    REFERENCES,
    decomposition_table,
    join_tables,
    prediction_table,
    seconds_table,
)

SUMMARY = "summary.json"
PLOTS = "plots"
BASELINES = ("tiling", "colour_kmeans")


def report(exp_directory: Path) -> None:
    """Write EXP/summary.json from what is there, print it, and name what is missing.

    Raises:
        UserError: something is missing, after everything else was written and printed.
    """
    if not (exp_directory / FILE_NAME).is_file():
        raise UserError(f"{exp_directory}: no experiment there (no {FILE_NAME})")
    summary, missing = summarise(exp_directory)
    write_json(exp_directory / SUMMARY, summary)
    print(summary_tables(summary))
    print(f"\n{exp_directory / SUMMARY}")
    if missing:
        raise UserError(f"{exp_directory}: incomplete: {'; '.join(missing)}")


def summarise(folder: Path) -> Tuple[Dict[str, Any], List[str]]:
    """The summary of an experiment, and what it lacks."""
    decomposition, missing = _decomposition(folder)
    predictors, references, lacking = _predictors(folder)
    summary = {
        "decomposition": decomposition,
        "predictors": predictors,
        **references,
        "seconds": stage_seconds(folder),
    }
    if not (folder / PLOTS / "decomposition_00.png").is_file():
        lacking.append(f"{folder / PLOTS} (figures writes them)")
    return summary, missing + lacking


def _decomposition(folder: Path) -> Tuple[Optional[Dict[str, Any]], List[str]]:
    seeds = find_seeds(folder)
    missing = [f"decomposition seed {seed} (no {FINAL})" for seed in seeds.missing]
    results, lacking = _read_results(folder / "results" / "decomposition.json", "evaluate-decomp")
    if results is None:
        return None, missing + lacking
    missing += [f"figures of decomposition seed {s}" for s in seeds.finished if s not in results["seeds"]]
    figures = {name: results[name] for name in (*DECOMPOSITION_COLUMNS, *BASELINES)}
    return {**figures, "seeds": results["seeds"]}, missing


def _predictors(folder: Path) -> Tuple[Dict[str, Any], Dict[str, Any], List[str]]:
    """Figures by predictor, those of the references, and what is missing."""
    predictors: Dict[str, Any] = {}
    references: Dict[str, Any] = dict.fromkeys(REFERENCES)
    missing: List[str] = []
    conditions = {}
    for path in sorted((folder / "predictors").glob(f"*/{FILE_NAME}")):
        name = path.parent.name
        missing += [f"predictor {name} seed {seed} (no {FINAL})" for seed in find_seeds(path.parent).missing]
        results, lacking = _read_results(path.parent / "results" / "prediction.json", "evaluate-predictor")
        missing += lacking
        if results is not None:
            seeds = {seed: _prediction_figures(values) for seed, values in results["seeds"].items()}
            predictors[name] = {**_prediction_figures(results), **({"seeds": seeds} if seeds else {})}
            references = {key: _prediction_figures(results[key]) for key in REFERENCES}
            conditions[name] = [results[key] for key in ("decomposition_sha256", "num_context", "num_preds")]
    if len({str(values) for values in conditions.values()}) > 1:
        missing.append(
            f"comparable figures: {', '.join(conditions)} were evaluated with different decomposition "
            f"checkpoints or numbers of frames"
        )
    return predictors, references, missing


def _prediction_figures(results: Dict[str, Any]) -> Dict[str, Any]:
    return {name: results[name] for name in PREDICTION_COLUMNS}


def _read_results(path: Path, command: str) -> Tuple[Optional[Dict[str, Any]], List[str]]:
    if not path.is_file():
        return None, [f"{path} ({command} writes it)"]
    return read_json(path), []


def stage_seconds(folder: Path) -> Dict[str, float]:
    """Seconds of work of each finished stage, summed over its tasks, in the order in which stages ended."""
    paths = sorted((folder / "jobs").glob("*/*/manifest.json"), key=lambda path: path.stat().st_mtime)
    seconds: Dict[str, float] = {}
    for manifest in map(Manifest.read, paths):
        total = (
            seconds.pop(manifest.stage, 0.0) + manifest.seconds
        )  # a stage stands where its last task ended
        seconds[manifest.stage] = round(total, 1)
    return seconds


def summary_tables(summary: Dict[str, Any]) -> str:
    """The summary for the terminal."""
    references = {name: summary[name] for name in REFERENCES if summary[name] is not None}
    return join_tables(
        [
            decomposition_table(summary["decomposition"]) if summary["decomposition"] else "",
            prediction_table(summary["predictors"], references) if summary["predictors"] else "",
            seconds_table(summary["seconds"]) if summary["seconds"] else "",
        ]
    )
