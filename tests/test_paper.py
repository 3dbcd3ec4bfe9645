"""The published figures: complete, consistent where the paper is, misprinted where it is not."""

import pytest
from scipy import stats

from mien.runs.recipe import Recipe
from mien.study import paper


def test_table_iv_spans_three_to_the_fifth_settings():
    settings = paper.TABLE_IV.settings()
    assert len(settings) == 3**5
    assert len({tuple(setting.items()) for setting in settings}) == 243


def test_the_grid_of_tables_v_to_ix_spans_48_settings():
    # epochs 50, 200; batch 512, 128; rate 0.01, 0.001, 0.05; coefficient 0.01, 0.001; Adam, SGD
    assert len(paper.TABLES_V_IX.settings()) == 2 * 2 * 3 * 2 * 2


@pytest.mark.parametrize("grid", paper.GRIDS.values(), ids=str)
def test_every_setting_of_a_grid_is_a_recipe_and_its_default_is_one_of_them(grid):
    settings = grid.settings()
    assert dict(grid.default) in settings
    for setting in settings:
        assert Recipe(model="vgg19").but(**setting).to_dict().items() >= setting.items()


def test_the_best_settings_stand_in_the_second_grid_and_not_in_the_first():
    for best in paper.BEST.values():
        assert dict(best.settings) in paper.TABLES_V_IX.settings()
        assert dict(best.settings) not in paper.TABLE_IV.settings()


def test_the_second_grid_has_no_level_that_is_neither_default_nor_best():
    used = [paper.TABLES_V_IX.default, *(best.settings for best in paper.BEST.values())]
    for name, levels in paper.TABLES_V_IX.levels.items():
        assert set(levels) == {setting[name] for setting in used}


def test_table_ii_is_misprinted_in_its_test_total_its_sum_and_its_surprise_row():
    rows, total = paper.TABLE_II, paper.TABLE_II_TOTAL
    assert sum(row.train for row in rows) == total.train == 28_709
    assert sum(row.test for row in rows) == 7_178 != total.test
    assert total.test + total.train == total.total == 32_298
    wrong = [row.name for row in rows if row.test + row.train != row.total]
    assert wrong == ["surprise"]
    assert sum(row.test + row.train for row in rows) == 35_887


def test_table_ii_equals_the_official_counts_of_the_two_test_splits_together():
    public = (467, 56, 496, 895, 653, 415, 607)
    private = (491, 55, 528, 879, 594, 416, 626)
    assert [row.test for row in paper.TABLE_II] == [
        a + b for a, b in zip(public, private, strict=True)
    ]


def test_table_iii_lifts_every_class_to_5670_and_leaves_happy_alone():
    train = {row.name: row.train for row in paper.TABLE_II}
    after = {name: train[name] + added for name, added in paper.TABLE_III.items()}
    assert sum(paper.TABLE_III.values()) == 12_526
    assert after.pop("happy") == 7_215
    assert set(after.values()) == {5_670}
    assert sum(train.values()) + 12_526 == paper.TABLE_III_TOTAL


def test_the_accuracies_are_complete_and_tuning_and_cbam_raise_every_one():
    assert len(paper.ACCURACY) == 12
    for family in paper.FAMILIES:
        for setting in ("default", "best"):
            plain = paper.published_accuracy(family, "none", setting)
            assert plain < paper.published_accuracy(family, "cbam", setting)
    assert paper.published_accuracy("ResNet50", "cbam", "best") == max(paper.ACCURACY.values())
    assert paper.published_accuracy("plain", "none") is None


def test_table_xi_repeats_the_tuned_accuracies():
    own = {row.model: row.accuracy for row in paper.TABLE_XI if row.authors == "the paper"}
    assert own == {
        family + ("-CBAM" if attention == "cbam" else ""): accuracy
        for (family, attention, setting), accuracy in paper.ACCURACY.items()
        if setting == "best"
    }
    assert len(paper.TABLE_XI) == 15


def test_table_i_has_its_34_figures_of_17_groups_of_authors():
    assert len(paper.TABLE_I) == 34
    assert len({row.authors for row in paper.TABLE_I}) == 17
    assert all(0.5 < row.accuracy < 0.8 for row in paper.TABLE_I)
    assert max(paper.TABLE_I, key=lambda row: row.accuracy).accuracy == 0.752


def test_the_printed_p_values_fit_four_degrees_of_freedom_save_two_misprints():
    tests = paper.TABLE_XII + paper.TABLE_XIII
    misfits = [
        test.first for test in tests if abs(2 * stats.t.sf(abs(test.t), df=4) - test.p) > 0.0011
    ]
    assert len(tests) == 12
    assert misfits == ["VGG19 default", "InceptionV3-CBAM tuned"]


def test_the_corrected_p_values_are_those_of_five_degrees_of_freedom():
    (row,) = (row for row in paper.CONTRADICTIONS if row.where.startswith("p-values"))
    for test in paper.TABLE_XII + paper.TABLE_XIII:
        p = 2 * stats.t.sf(abs(test.t), df=5)
        places = 4 if p < 0.0005 else 3
        assert f"{p:.{places}f}" in row.so


def test_records_that_do_not_hold_up_say_so():
    doubtful = {row.accuracy for row in paper.RECORDS if "not hold up" in row.note}
    assert doubtful == {0.7328, 0.7311}
    assert all(row.note and row.split for row in paper.RECORDS)
