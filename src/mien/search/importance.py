"""Which parameters decided: importance by functional ANOVA."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mien.search.fidelity import Fidelity
from mien.search.samplers import study_of
from mien.search.space import Space
from mien.search.trials import Trial

LEAST = 4
"""Measured settings per parameter that an importance is read from."""


def importance(space: Space, fidelity: Fidelity, trials: Sequence[Trial]) -> dict[str, Any]:
    """The share of the variance of accuracy that each parameter explains by itself.

    F. Hutter, H. Hoos and K. Leyton-Brown, An efficient approach for assessing hyperparameter
    importance, ICML 2014, through Optuna. What parameters explain only together is in no share, so
    they sum to less than 1. It is read on the highest rung that enough settings have entered at:
    those that were promoted to a rung share what decided. A default that lies outside the space is
    left out.

    Returns
    -------
    dict
        ``values`` by parameter, the greatest first, or None; ``rung``; ``settings``, how many it
        rests on; and a ``note``.
    """
    need = LEAST * len(space.parameters)
    inside = [
        t
        for t in trials
        if t.value is not None
        and space.contains(t.values)
        and t.number < fidelity.settings
        and t.rung == fidelity.brackets[fidelity.bracket_of(t.number)].first
    ]
    for rung in range(fidelity.top, -1, -1):
        known = [trial for trial in inside if trial.rung == rung]
        if len(known) >= need:
            break
    else:
        note = f"too few settings were measured ({need} on one rung are needed)"
        return {"values": None, "rung": None, "settings": 0, "note": note}
    found = {"values": None, "rung": rung, "settings": len(known), "note": ""}
    if len({trial.value for trial in known}) == 1:
        return {**found, "note": "every setting came to the same accuracy"}
    if rung < fidelity.top:
        found["note"] = (
            f"measured at {fidelity.rungs[rung]}, where settings enter; "
            "what decides early need not decide in the end"
        )
    from optuna.importance import FanovaImportanceEvaluator

    shares = FanovaImportanceEvaluator(seed=0).evaluate(study_of(space, known))
    ordered = sorted(shares.items(), key=lambda share: -share[1])
    return {**found, "values": {name: float(share) for name, share in ordered}}
