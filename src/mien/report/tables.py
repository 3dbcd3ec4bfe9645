"""Every table of the report, in the order of the paper."""

from __future__ import annotations

from mien.report import inputs, merits, price, provenance, published
from mien.report.audited import audit_tables
from mien.report.balancing import balance_tables
from mien.report.comparisons import validation_tables
from mien.report.explaining import faithfulness
from mien.report.results import Results, context, evaluated_splits, main_split
from mien.report.searches import search_tables
from mien.report.table import Table
from mien.study import paper
from mien.study.published_audit import audit_of_paper


def all_tables(results: Results) -> dict[str, Table]:
    """The tables by name; those of results only where a model was evaluated."""
    made = results.get("balance")
    tables = [
        inputs.counts(results),
        *(balance_tables(made, context(results)) if made else [inputs.generated(results)]),
        inputs.audit(results),
        inputs.common_settings(results),
        inputs.differing_settings(results),
        *(inputs.grid(results, grid) for grid in paper.GRIDS.values()),
    ]
    for split in evaluated_splits(results):
        tables.append(merits.merits(results, split))
        if merits.has_copies(results, split):
            tables.append(merits.merits(results, split, "without_copies"))
    split_shown = main_split(results)
    if split_shown is not None:
        tables += [
            merits.by_class(results, split_shown, "recall"),
            merits.by_class(results, split_shown, "precision"),
            merits.cbam_by_class(results, split_shown),
            merits.neutral_and_sad(results, split_shown),
        ]
    for family in paper.FAMILIES:
        tables += [
            published.best_settings(results, family),
            published.default_and_tuned(results, family),
        ]
    tables += [
        published.others(results),
        price.cost(results),
        price.learning(results),
        price.price_of_attention(results),
        *([faithfulness(looks, context(results))] if (looks := results.get("explanation")) else []),
        *search_tables(results),
        *validation_tables(results),
        published.contradictions(results),
        *audit_tables(audit_of_paper(), context(results)),
        provenance.not_run(results),
        provenance.provenance(results),
        provenance.runs(results),
    ]
    return {table.name: table for table in tables}
