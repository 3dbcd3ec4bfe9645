"""The audit of the paper's tables, against the figures worked out by hand."""

from __future__ import annotations

import pytest
from statsmodels.stats.multitest import multipletests

from mien.study.published_audit import audit_of_paper

FOUND = audit_of_paper()

# p for Table XII and XIII with five degrees of freedom, from a table of Student's distribution
FIVE = {
    -2.828: 0.037, -3.238: 0.023, -4.268: 0.008, -5.266: 0.003, -4.603: 0.006, -5.411: 0.003,
    -4.1: 0.009, -4.297: 0.008, -4.347: 0.007, -3.033: 0.029, 8.421: 0.0004, -12.858: 0.0001,
}  # fmt: skip


def test_every_t_gives_the_p_of_five_degrees_of_freedom():
    assert {row.t: round(row.p, 4 if abs(row.t) > 8 else 3) for row in FOUND.tests} == FIVE


def test_only_two_printed_p_values_fit_neither_five_nor_four_degrees_of_freedom():
    wrong = {row.first: row.p_four for row in FOUND.tests if row.misprinted}
    # 0.002 stands for 0.047, and 0.002 for 0.0002
    assert wrong == pytest.approx({"VGG19 default": 0.047, "InceptionV3-CBAM tuned": 0.0002}, 0.07)


def test_five_of_the_twelve_tests_remain_after_holm():
    p = [row.p for row in FOUND.tests]
    assert [row.p_holm for row in FOUND.tests] == pytest.approx(multipletests(p, method="holm")[1])
    assert all(row.p < 0.05 for row in FOUND.tests)
    left = {row.t for row in FOUND.tests if row.p_holm < 0.05}
    assert left == {-12.858, 8.421, -5.411, -5.266, -4.603}


def test_the_sums_that_do_not_add_up_are_those_of_table_ii():
    wrong = {row.where: (row.printed, row.computed) for row in FOUND.sums if not row.holds}
    assert wrong == {
        "Table II, surprise": (5002, 4002),
        "Table II, all test images": (3589, 7178),
        "Table II, all images": (32298, 35887),
    }


def test_table_iii_follows_its_rule_and_its_total_holds():
    rows = {row.where: row for row in FOUND.sums if row.where.startswith("Table III")}
    assert len(rows) == 8
    assert all(row.holds for row in rows.values())
    assert rows["Table III, all images after"].computed == 41235
    assert rows["Table III, disgust generated"].computed == 5670 - 436


def test_the_settings_outside_the_grid_are_two_batch_sizes_and_a_rate():
    found = {(row.where, row.hyperparameter, row.value) for row in FOUND.settings}
    assert found == {
        ("Tables V-IX, default", "batch size", 512),
        ("Table V, best of VGG19", "batch size", 128),
        ("Table VII, best of ResNet50", "batch size", 128),
        ("Table IX, best of InceptionV3", "batch size", 128),
        ("Table IX, best of InceptionV3", "learning rate", 0.05),
    }
    assert {row.levels for row in FOUND.settings} == {(30, 60, 120), (0.01, 0.001, 0.005)}


def test_the_audit_sums_itself_up():
    assert FOUND.summary.startswith("3 of 18 sums do not add up (Table II, surprise; ")
    assert "12 have p < 0.05 with 5 degrees of freedom, 5 after Holm" in FOUND.summary
