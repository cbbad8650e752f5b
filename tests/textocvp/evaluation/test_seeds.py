from textocvp.config.experiment import FINAL
from textocvp.evaluation.report import find_seeds, seed_checkpoint


def test_seeds_are_in_the_order_of_their_numbers(tmp_path):
    for seed in ("10", "9", "1"):
        path = seed_checkpoint(tmp_path, seed)
        path.parent.mkdir(parents=True)
        if seed != "9":
            path.write_text("")
    assert find_seeds(tmp_path) == (["1", "10"], ["9"])
    assert find_seeds(tmp_path, "checkpoint_epoch_3.pth") == ([], ["1", "9", "10"])
    assert find_seeds(tmp_path / "none") == ([], [])
    assert seed_checkpoint(tmp_path, "1") == tmp_path / "seeds" / "1" / "models" / FINAL
