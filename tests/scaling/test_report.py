"""The report of an analysis, and that nothing is drawn from a fit that did not converge."""

import dataclasses
import json

import numpy as np
import pytest
from matplotlib.figure import Figure

from jaxdl.errors import InputError
from jaxdl.scaling import fits, report
from jaxdl.scaling.isoflop import Curve
from jaxdl.scaling.laws import LAWS, PUBLISHED, chinchilla
from tests.scaling.coverage import isoflop_grid

TRUTH = {"A": 400.0, "B": 1500.0, "E": 1.7, "alpha": 0.34, "beta": 0.36}
OPTIONS = report.Options(
    resamples=60,
    predict_flops=(1e23,),
    predict_parameters=(7e9,),
    predict_tokens=(1e12,),
    target_losses=(2.0, 1.0),
    published=("hoffmann2022", "besiroglu2024"),
)


@pytest.fixture(scope="module")
def few_starts():
    """The law is begun at nine of its 4,500 starts, for speed."""
    law = dataclasses.replace(LAWS["chinchilla"], starts=lambda axes, values: THE_STARTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fits, "LAWS", {**LAWS, "chinchilla": law})
        yield


THE_STARTS = np.array([(a, b, 0.5, 0.5, 0.5) for a in (5.0, 10.0, 15.0) for b in (5.0, 10.0, 15.0)])


@pytest.fixture(scope="module")
def analysis(few_starts):
    N, D = isoflop_grid(6, 9)
    loss = chinchilla(N, D, **TRUTH) * np.exp(0.003 * np.random.default_rng(0).standard_normal(len(N)))
    sizes = np.geomspace(1e8, 1e10, 7)
    tokens = [np.geomspace(size / 10, size * 1000, 40) for size in sizes]
    curves = [Curve(size, seen, chinchilla(size, seen, **TRUTH)) for size, seen in zip(sizes, tokens)]
    return report.analyse(N, D, loss, OPTIONS, curves, ["a note"])


def test_it_has_everything_by_name(analysis):
    assert analysis.converged
    assert set(analysis.figures) == {"frontier", "isoflop", "envelope", "contours", "residuals", "bootstrap"}
    assert all(isinstance(figure, Figure) for figure in analysis.figures.values())
    data = analysis.data
    assert data["law"]["constants"] == pytest.approx(TRUTH, rel=0.5)
    names = [row["name"] for row in data["other_fits"]]
    assert names[:3] == [
        "least Huber loss, from the starts",
        "least Huber loss, by variable projection",
        "least absolute error",
    ]
    least = [min(row[kind] for row in data["other_fits"]) for kind in ("huber", "absolute")]
    # to rounding: two methods that find the same minimum end a few bits apart, one or the other below
    assert [data["other_fits"][0]["huber"], data["other_fits"][2]["absolute"]] == pytest.approx(least, rel=1e-12)
    assert len(data["isoflop"]) == len(data["held_out_budgets"]) == 6
    assert data["isoflop_frontier"]["a"] == pytest.approx(0.36 / 0.70, abs=0.05)
    assert data["predictions"]["budgets"][0]["flops"] == 1e23
    (run,) = data["predictions"]["runs"]
    assert run["flops"] == 6 * 7e9 * 1e12
    assert run["loss"][1] < chinchilla(7e9, 1e12, **TRUTH) < run["loss"][2]
    assert run["loss"][0] == pytest.approx(chinchilla(7e9, 1e12, **data["law"]["constants"]))
    assert data["comparison"]["chinchilla"] < data["comparison"]["kaplan"]


def test_it_is_written_whole(analysis, tmp_path):
    report.write(analysis, tmp_path / "law")
    text = (tmp_path / "law" / "report.md").read_text()
    assert "- a note" in text and "published: Hoffmann et al. 2022" in text and "far from each" in text
    for name in analysis.figures:
        assert f"({name}.png)" in text
        assert (tmp_path / "law" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    data = json.loads((tmp_path / "law" / "report.json").read_text(), parse_constant=pytest.fail)
    assert data["predictions"]["target_losses"][1]["flops"] == [None] * 3  # a loss of 1 is never reached
    tables = [line for line in text.splitlines() if line.startswith("| ")]
    assert all(line.endswith(" |") for line in tables)


def test_where_it_cannot_be_written_is_one_line(analysis, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file/law cannot be written: Not a directory"):
        report.write(analysis, tmp_path / "file" / "law")


def test_a_fit_that_did_not_converge_is_said_and_not_drawn(few_starts, monkeypatch):
    N, D = isoflop_grid(3, 5)
    fit = fits.fit_parametric(N, D, chinchilla(N, D, **TRUTH))
    monkeypatch.setattr(fits, "fit_parametric", lambda *_, **__: dataclasses.replace(fit, converged=False))
    found = report.analyse(N, D, fit.values, OPTIONS)
    assert not found.converged and not found.figures
    assert "did not converge" in found.text and "predictions" not in found.data


def test_a_published_law_that_does_not_exist_is_one_line():
    N, D = isoflop_grid(3, 5)
    with pytest.raises(InputError, match="no published law 'hofmann'. There are: hoffmann2022, besiroglu2024"):
        report.analyse(N, D, N, report.Options(published=("hofmann",)))
    assert set(report.TOLD) == set(PUBLISHED)


@pytest.mark.parametrize("sign", (1, -1), ids=("falling", "rising"))
def test_one_axis(sign, tmp_path):
    width = np.tile(np.geomspace(16, 4096, 9), 2)
    metric = 0.5 + sign * 2 / width**0.6 + 0.002 * np.random.default_rng(0).standard_normal(18)
    found = report.analyse_one_axis(width, metric, report.Options(resamples=60), "width", "metric", ["a note"])
    assert set(found.figures) == {"law", "residuals", "bootstrap"}
    assert ("power" in found.data["comparison"]) == (sign > 0)
    low, high = found.data["law"]["intervals"]["E"]
    assert low < 0.5 < high
    report.write(found, tmp_path)
    assert "y = E" in (tmp_path / "report.md").read_text()


def test_what_saturates_at_nothing_is_a_plain_power_law():
    x = np.geomspace(16, 4096, 12)
    y = x**-0.5 * np.exp(0.01 * np.random.default_rng(3).standard_normal(12))
    found = report.analyse_one_axis(x, y, report.Options(resamples=30))
    if found.data["law"]["form"] != "y = (x_c / x)^alpha":
        assert found.data["law"]["intervals"]["E"][0] < 0.01
    else:
        assert "has no minimum with E above zero" in found.text
    assert found.converged
