"""Tables of figures for the terminal. Standard library only."""

from __future__ import annotations

from typing import Any, List, Mapping, Optional, Sequence

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
