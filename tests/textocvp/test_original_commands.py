"""Every script of the original implementation has a command here that takes its flags."""

from __future__ import annotations

import pytest

from textocvp.cli import build_parser

EXP, DECOMP = ["-d", "exp"], ["--decomp_ckpt", "c.pth"]
RESUME = ["--checkpoint", "c.pth", "--resume_training"]
PREDICTOR = ["--name_pred_exp", "p"]
SCRIPTS = {
    "01_create_experiment": [
        "create-experiment",
        *EXP,
        "--name",
        "n",
        "--model_name",
        "SAVi",
        "--dataset_name",
        "CATER_Hard",
    ],
    "01_create_predictor_experiment": [
        "create-predictor-experiment",
        "--exp_directory",
        "exp",
        "--name",
        "n",
        "--predictor_name",
        "TextOCVP_T5",
    ],
    "02_train_savi": ["train-decomp", *EXP, *RESUME],
    "02_train_extended_dinosaur": ["train-decomp", *EXP, *RESUME],
    "03_evaluate_decomp_model": [
        "evaluate-decomp",
        *EXP,
        *DECOMP,
        "--results_name",
        "r",
        "--batch_size",
        "4",
    ],
    "04_train_predictor": ["train-predictor", *EXP, *DECOMP, *PREDICTOR, *RESUME],
    "05_evaluate_predictor": [
        "evaluate-predictor",
        *EXP,
        *DECOMP,
        *PREDICTOR,
        "--pred_ckpt",
        "p.pth",
        "-o",
        "r",
        "--batch_size",
        "4",
        "--num_seed",
        "1",
        "--num_preds",
        "19",
    ],
    "06_generate_figs_decomp_model": ["figures-decomp", *EXP, *DECOMP, "--num_seqs", "10"],
    "06_generate_figs_predictor": [
        "figures-predictor",
        *EXP,
        *DECOMP,
        *PREDICTOR,
        "--pred_ckpt",
        "p.pth",
        "--num_preds",
        "15",
        "--num_seqs",
        "30",
    ],
    "download_pretrained": ["download-pretrained"],
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_scripts_flags_are_taken(script):
    assert build_parser().parse_args(SCRIPTS[script]).command == SCRIPTS[script][0]


def test_the_scripts_defaults_are_kept():
    parse = build_parser().parse_args
    assert parse(["figures-decomp", *EXP]).num_seqs == 10
    predictor = parse(["figures-predictor", *EXP, *PREDICTOR])
    assert (predictor.num_preds, predictor.num_seqs) == (15, 30)
