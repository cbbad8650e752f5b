import pytest

from textocvp.config.errors import UserError
from textocvp.evaluation.check import check_summary, evaluate
from textocvp.files import write_json

SUMMARY = {
    "decomposition": {"object_miou": 0.46, "ari": None},
    "predictors": {"A-b": {"psnr": 22.7}, "B": {"psnr": 19.9}},
}


@pytest.fixture
def checked(tmp_path):
    """Runs check_summary on the text of a section `checks`."""

    def run(checks):
        write_json(tmp_path / "summary.json", SUMMARY)
        (tmp_path / "recipe.yaml").write_text(f"name: demo\n{checks}\n")
        check_summary(tmp_path)

    return run


def test_bounds_that_hold_are_printed_one_a_line(checked, capsys):
    checked("""checks:
  decomposition.object_miou: {min: 0.40, max: 1}
  predictors.A-b.psnr - predictors.B.psnr: {min: 1.5}""")
    assert capsys.readouterr().out.splitlines() == [
        "ok      decomposition.object_miou = 0.460 >= 0.4",
        "ok      decomposition.object_miou = 0.460 <= 1",
        "ok      predictors.A-b.psnr - predictors.B.psnr = 2.800 >= 1.5",
    ]


def test_all_checks_are_run_before_failing(checked, capsys):
    with pytest.raises(UserError, match="2 of 3 checks failed"):
        checked("""checks:
  decomposition.object_miou: {min: 0.5}
  predictors.B.psnr: {max: 19}
  predictors.A-b.psnr: {min: 20}""")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["FAILED", "FAILED", "ok"]
    assert "decomposition.object_miou = 0.460 >= 0.5" in lines[0]


@pytest.mark.parametrize(
    "checks, message",
    [
        ("checks: {}", "checks: missing"),
        ("other: 1", "checks: missing"),
        ("checks: {decomposition.object_miou: 0.4}", "checks.decomposition.object_miou: 0.4 is not allowed"),
        ("checks: {decomposition.object_miou: {minn: 0.4}}", "unknown key 'minn', did you mean 'min'?"),
        ("checks: {decomposition.object_miou: {min: high}}", "object_miou.min: 'high' is no number"),
        ("checks: {decomposition.object_miu: {min: 0}}", "no 'object_miu' in .* did you mean 'object_miou'?"),
        ("checks: {decomposition.ari: {min: 0}}", "'decomposition.ari' is no number in summary.json: None"),
        ("checks: {decomposition: {min: 0}}", "'decomposition' is no number"),
        ("checks: {predictors.B.psnr.x: {min: 0}}", "no 'x' in 'predictors.B.psnr.x'"),
        ("checks: {a - b - c: {min: 0}}", "no 'a' in 'a'"),
        ("checks: [", "valid YAML"),
    ],
)
def test_malformed_checks_are_one_line(checked, checks, message):
    with pytest.raises(UserError, match=message) as error:
        checked(checks)
    assert "\n" not in str(error.value)


def test_no_more_than_one_difference():
    with pytest.raises(UserError, match="at most one"):
        evaluate({"a": 1.0}, "a - a - a")


def test_without_recipe_or_summary(tmp_path):
    with pytest.raises(UserError, match="recipe.yaml: no such file"):
        check_summary(tmp_path)
    (tmp_path / "recipe.yaml").write_text("checks: {a: {min: 0}}")
    with pytest.raises(UserError, match="summary.json: no such file"):
        check_summary(tmp_path)
