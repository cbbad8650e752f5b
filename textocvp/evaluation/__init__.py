"""What follows training: evaluation, selection of seeds, figures, report. Here: seeds, tables."""

from pathlib import Path
from typing import Any, List, Mapping, NamedTuple, Sequence

from textocvp.config.experiment import FINAL
from textocvp.terminal import format_table

TITLES = {
    **{"object_miou": "object mIoU", "background_iou": "background IoU", "ari": "ARI", "fg_ari": "FG-ARI"},
    **{"psnr": "PSNR", "psnr_last": "PSNR last", "psnr_moving": "PSNR moving", "ssim": "SSIM"},
}
SELECTED_MARK = " *"


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
    """Path of a seed's checkpoint."""
    return Path(folder) / "seeds" / seed / "models" / checkpoint


def figures_table(
    title: str, columns: Sequence[str], rows: Mapping[str, Mapping[str, Any]], digits: int = 3
) -> str:
    """Rows of figures under a title: decibels with two digits after the point, the rest with `digits`.

    A dash stands for what could not be measured.
    """
    formats = {column: ".2f" if column.startswith("psnr") else f".{digits}f" for column in columns}
    cells = [
        (name, *("-" if values.get(c) is None else format(values[c], formats[c]) for c in columns))
        for name, values in rows.items()
    ]
    headings = (title, *(TITLES.get(name, name) for name in columns))
    return "\n".join(format_table(headings, cells, figures=True))
