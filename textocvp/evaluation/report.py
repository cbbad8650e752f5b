"""Stage report: the figures of all stages in one file and one table. Needs no torch, so it prints at once.

python -m textocvp report -d EXP
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from textocvp.config.errors import UserError
from textocvp.config.experiment import FILE_NAME, FINAL
from textocvp.files import read_json, write_json

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
    for manifest in map(read_json, paths):
        stage = manifest["stage"]
        # a stage comes where its last task ended
        seconds[stage] = round(seconds.pop(stage, 0.0) + manifest["seconds"], 1)
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


DECOMPOSITION_COLUMNS = ("object_miou", "background_iou", "ari", "fg_ari", "psnr")
PREDICTION_COLUMNS = ("psnr", "psnr_last", "psnr_moving", "ssim")
REFERENCES = {
    "copy_frame": "copy the context frame",
    "copy_slots": "copy its slots, decoded",
    "ceiling": "decode the true slots (ceiling)",
}
"""Key in the results -> what the row is called."""
SELECTED_MARK = " *"


def format_table(
    title: str, columns: Sequence[str], rows: Mapping[str, Mapping[str, Any]], digits: int = 3
) -> str:
    """Rows of figures under a title: decibels with two digits behind the point, the rest with `digits`."""
    table = [
        [name, *(format_figure(column, values.get(column), digits) for column in columns)]
        for name, values in rows.items()
    ]
    table.insert(0, [title, *(column_title(column) for column in columns)])
    widths = [max(len(row[i]) for row in table) for i in range(len(columns) + 1)]
    lines = [_format_row(row, widths) for row in table]
    lines.insert(1, "-" * len(lines[0]))
    return "\n".join(lines)


def _format_row(cells: Sequence[str], widths: Sequence[int]) -> str:
    figures = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:]))
    return "  ".join([cells[0].ljust(widths[0]), *figures])


def format_figure(column: str, value: Optional[float], digits: int = 3) -> str:
    """One figure; a dash for what could not be measured."""
    if value is None:
        return "-"
    return f"{value:.2f}" if column.startswith("psnr") else f"{value:.{digits}f}"


def column_title(column: str) -> str:
    """A column's key as its heading: "psnr_last" -> "PSNR last"."""
    words = {"psnr": "PSNR", "ssim": "SSIM", "ari": "ARI", "fg": "FG-", "iou": "IoU", "miou": "mIoU"}
    return " ".join(words.get(word, word) for word in column.split("_")).replace("FG- ", "FG-")


def decomposition_table(results: Mapping[str, Any]) -> str:
    """Model, its seeds (the selected one marked) and the blind baselines of one decomposition.json."""
    seeds = results.get("seeds") or {}
    rows = {}
    if not any(figures["selected"] for figures in seeds.values()):
        rows["model"] = results
    for seed, figures in seeds.items():
        rows[f"seed {seed}{SELECTED_MARK if figures['selected'] else ''}"] = figures
    rows["tiling of the image"] = results["tiling"]
    rows["k-means on colour, number given"] = results["colour_kmeans"]
    note = f"\n{SELECTED_MARK.strip()} selected without labels" if seeds else ""
    return format_table("decomposition, test clips", DECOMPOSITION_COLUMNS, rows) + note


def prediction_table(predictors: Mapping[str, Mapping[str, Any]], references: Mapping[str, Any]) -> str:
    """Predictors (with several seeds their mean and each one), and what they are compared to."""
    rows = {}
    for name, results in predictors.items():
        seeds = results.get("seeds") or {}
        rows[f"{name}, mean of {len(seeds)} seeds" if len(seeds) > 1 else name] = results
        if len(seeds) > 1:
            rows.update({f"  {name}, seed {seed}": figures for seed, figures in seeds.items()})
    rows.update({REFERENCES[name]: references[name] for name in REFERENCES if name in references})
    return format_table("prediction, test clips", PREDICTION_COLUMNS, rows)


def seconds_table(seconds: Mapping[str, float]) -> str:
    """Seconds of each stage and of all."""
    width = max(map(len, [*seconds, "all stages"]))
    lines = [f"{stage.ljust(width)}  {value:8.0f}" for stage, value in seconds.items()]
    lines.append(f"{'all stages'.ljust(width)}  {sum(seconds.values()):8.0f}")
    heading = f"{'stage'.ljust(width)}   seconds"
    return "\n".join([heading, "-" * len(heading), *lines])


def join_tables(tables: Sequence[str]) -> str:
    """Tables below each other, an empty line between them."""
    parts: List[str] = [table for table in tables if table]
    return "\n\n".join(parts)


class Seeds(NamedTuple):
    """The seeds of an experiment, in the order of their numbers; both empty for one trained without seeds."""

    finished: List[str]
    missing: List[str]


def find_seeds(folder: Path, checkpoint: str = FINAL) -> Seeds:
    """Look for the checkpoint of every folder `folder`/seeds/K."""
    names = [path.name for path in (Path(folder) / "seeds").glob("*") if path.is_dir()]
    names.sort(key=lambda name: (not name.isdigit(), int(name) if name.isdigit() else 0, name))
    finished = [name for name in names if seed_checkpoint(folder, name, checkpoint).is_file()]
    return Seeds(finished, [name for name in names if name not in finished])


def seed_checkpoint(folder: Path, seed: str, checkpoint: str = FINAL) -> Path:
    """Where a seed's checkpoint lies."""
    return Path(folder) / "seeds" / seed / "models" / checkpoint
