"""What a selection lacks, in sentences, and what languages it is made of."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from compass_ray.languages import language_name
from compass_ray.sample.config import SampleConfig
from compass_ray.sample.draw import sizes
from compass_ray.sample.reasons import amount, likeness, times
from compass_ray.sample.target_draw import TargetDraw


def languages_of(rows: pa.Table) -> dict[str, int]:
    """Count documents by language, most first, ties in alphabetical order."""
    counts = pc.value_counts(rows["lang"]).to_pylist()
    return {one["values"]: one["counts"] for one in sorted(counts, key=lambda one: (-one["counts"], one["values"]))}


def shortfall_notes(draw: TargetDraw, rows: pa.Table, config: SampleConfig) -> list[str]:
    """Say what usage asks for and the pool lacks, which bounds on languages were not met or say nothing, and what is
    left of the budget.

    Parameters
    ----------
    draw : TargetDraw
        A settled one.
    rows : Table
        What it drew.
    """
    return [*_unmet(draw, config), *_language_notes(draw, rows, config), *_budget_notes(draw, rows, config)]


def near_usage_notes(count: int, left: int, target_lang: str, config: SampleConfig) -> list[str]:
    """Say how many pool documents are refused because they nearly repeat usage, and doubt it where few are left."""
    if not count:
        return []
    repeat = "repeats" if count == 1 else "repeat"
    usage = f"{language_name(target_lang)} usage ({likeness(config)})"
    note = f"{amount(count, 'documents')} of the pool nearly {repeat} {usage} and may not be drawn"
    if count > left and config.near_duplicates != "off":
        note += (
            f", which leaves {left:,}: an encoder whose cosines are all high tells no near copies "
            "(sample.near_duplicates: off compares words alone)"
        )
    return [note]


def _unmet(draw: TargetDraw, config: SampleConfig) -> list[str]:
    balance = draw.balance()
    if balance is None or not balance.unmet.any():
        return []
    lacking, unit = balance.unmet > 0, config.unit
    own, held, drawn = draw.problem.own, draw.problem.capacity[lacking], draw.quotas[lacking]
    passed_by = int((held - drawn)[:, ~own].sum()) if config.own_before_others else 0
    name, share = language_name(draw.problem.target_lang), float(draw.shares.usage[lacking].sum())
    near = f", {int(balance.moved_out[lacking].sum()):,} more come from near clusters" if config.transports else ""
    what = f"{int(held[:, own].sum()):,} distinct {name}" if passed_by else f"{int(held.sum()):,} distinct"
    note = (
        f"the pool holds {what} {unit} for {100 * share:.0f} % of {name} usage{near}; "
        f"{int(balance.unmet.sum()):,} of that share unfilled"
    )
    if passed_by:
        again = f", up to {times(config.own_language_epochs)} over" if draw.repeats else ""
        rule = "own_language_epochs" if draw.repeats else "shortfall: own_language"
        note += (
            f", though other languages hold {passed_by:,} more there: {name} of other clusters comes before "
            f"them{again} (sample.{rule})"
        )
    return [note]


def _language_notes(draw: TargetDraw, rows: pa.Table, config: SampleConfig) -> list[str]:
    target_lang, pool = draw.problem.target_lang, draw.problem.languages
    notes = []
    if config.has_cluster_quotas and config.language_prior != "none" and target_lang not in pool:
        notes.append(f"the pool holds no {language_name(target_lang)} documents: all rows are of other languages")
    for lang in dict.fromkeys([target_lang, *config.named_languages]):
        wanted = int(config.floor_of(lang, target_lang) * (config.amount or 0) + 1e-9)
        drawn = int(sizes(rows.filter(pc.equal(rows["lang"], lang)), config.unit).sum())
        if drawn < wanted:
            notes.append(
                f"min_language_fraction asks for {wanted:,} {config.unit} of {language_name(lang)}, and {drawn:,} were "
                "drawn: the clusters that usage asks for hold no more"
            )
    absent = [lang for lang in config.named_languages if lang not in pool]
    if absent:
        notes.append(f"bounds on languages that the pool holds nothing of: {', '.join(absent)}")
    return notes


def _budget_notes(draw: TargetDraw, rows: pa.Table, config: SampleConfig) -> list[str]:
    budget, unit, repeats, notes = config.amount, config.unit, draw.repeats, []
    if budget is None:
        return []
    unused = unused_budget(rows, config)
    if repeats:
        name, epochs = language_name(draw.problem.target_lang), times(config.own_language_epochs)
        notes.append(
            f"{repeats:,} of the {budget:,} {unit} of the budget are left to {name} trained on again, up to {epochs}, "
            "and not given to other languages (sample.own_language_epochs; see adapt.training.epochs)"
        )
    if unused > repeats:
        more = " more" if repeats else ""
        notes.append(f"{unused - repeats:,}{more} of the {budget:,} {unit} of the budget are not used")
    return notes


def unused_budget(rows: pa.Table, config: SampleConfig) -> int:
    """Compute how much of the budget the drawn rows leave, in its unit. It is 0 where there is no budget."""
    return 0 if config.amount is None else config.amount - int(sizes(rows, config.unit).sum())
