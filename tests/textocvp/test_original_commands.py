"""Every script of the original implementation has a command here that takes its flags."""

import pytest

from textocvp.cli import build_parser

RESUME = "--checkpoint c.pth --resume_training"
PREDICTOR = "--decomp_ckpt c.pth --name_pred_exp p"
SCRIPTS = {
    "01_create_experiment": "create-experiment -d exp --name n --model_name SAVi --dataset_name CATER_Hard",
    "01_create_predictor_experiment": "create-predictor-experiment --exp_directory exp --name n "
    "--predictor_name TextOCVP_T5",
    "02_train_savi": f"train-decomp -d exp {RESUME}",
    "02_train_extended_dinosaur": f"train-decomp -d exp {RESUME}",
    "03_evaluate_decomp_model": "evaluate-decomp -d exp --decomp_ckpt c.pth --results_name r --batch_size 4",
    "04_train_predictor": f"train-predictor -d exp {PREDICTOR} {RESUME}",
    "05_evaluate_predictor": f"evaluate-predictor -d exp {PREDICTOR} --pred_ckpt p.pth -o r --batch_size 4 "
    "--num_seed 1 --num_preds 19",
    "06_generate_figs_decomp_model": "figures-decomp -d exp --decomp_ckpt c.pth --num_seqs 10",
    "06_generate_figs_predictor": f"figures-predictor -d exp {PREDICTOR} --pred_ckpt p.pth --num_preds 15 "
    "--num_seqs 30",
    "download_pretrained": "download-pretrained",
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_scripts_flags_are_taken(script):
    command, *options = SCRIPTS[script].split()
    assert build_parser().parse_args([command, *options]).command == command


def test_the_scripts_defaults_are_kept():
    parse = build_parser().parse_args
    assert parse("figures-decomp -d exp".split()).num_seqs == 10
    predictor = parse("figures-predictor -d exp --name_pred_exp p".split())
    assert (predictor.num_preds, predictor.num_seqs) == (15, 30)
