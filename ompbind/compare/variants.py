"""Variants: the plans that are compared, made from what the user varies; nothing is started.

A variant is the options that all have, changed by its own. Variants that come out as the same plan
are measured once.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

from ompbind.errors import OmpbindError, PlanError, UsageError
from ompbind.messages import did_you_mean, quote
from ompbind.options import check_text, make_plan_options, make_values, parse_arguments
from ompbind.options.commands import options_of
from ompbind.options.values import split_words
from ompbind.plans import RANK_VARIABLE, Binding, Plan
from ompbind.record import Record
from ompbind.resolve import resolve_plan
from ompbind.saved import check_plan, foreign_variables

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ompbind.host import Lease
    from ompbind.options import Texts
    from ompbind.options.table import Option

    Changes = tuple[tuple[str, "str | bool | list[str] | None"], ...]  # by key; None: left out

UNBOUND, BOUND = "unbound", "bound"
ABSENT = "default"  # the value of --vary that stands for none
SWITCH = {"yes": True, "on": True, "no": False, "off": False}
# What an unbound rank still gets of a plan: who it is, and its GPUs.
KEPT = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class Variant(Record):
    """One of the plans that are compared. `options`: the words that make it, after `ompbind run`;
    `same`: the names of other variants that come out as this plan."""

    name: str
    options: tuple[str, ...]
    plan: Plan
    is_bound: bool = True
    on_denied: str = "error"  # as --on-denied has it
    same: tuple[str, ...] = ()


class Omitted(Record):
    """A variant that is not measured, and why."""

    name: str
    why: str


class Wish(Record):
    """A variant before it is planned: its name, its changes to the common options, and whether it
    was named by hand, so that it must be possible."""

    name: str
    changes: Changes = ()
    by_hand: bool = False


def plan_rows() -> dict[str, Option]:
    """Return the options that make a plan, by key: those that give a field of something."""
    return {o.key: o for o in options_of("compare") if o.fields}


# --- what is wished for --------------------------------------------------------------------------


def make_grid(vary: Sequence[str]) -> list[Wish]:
    """Return every combination of the values of --vary; without any, the common options alone.
    Raises UsageError."""
    axes = [parse_vary(text) for text in vary]
    keys = [axis[0][0] for axis in axes]
    for key in keys:
        if keys.count(key) > 1:
            name = key.replace("_", "-")
            hint = f"--vary {name}=VALUE,VALUE"
            raise UsageError(f"--vary: {name} is given twice", hint=hint)
    wishes = []
    for point in product(*axes):
        name = " ".join(label for _, _, label in point) or BOUND
        wishes.append(Wish(name, tuple((key, value) for key, value, _ in point)))
    return wishes


def parse_vary(text: str) -> list[tuple[str, str | bool | list[str] | None, str]]:
    """Return the option's key, its value and a name for each value of `smt=1,all`. Raises
    UsageError, ParseError."""
    name, equals, given = text.partition("=")
    option = find_option(name)
    if not equals:
        if option.kind != "flag":
            hint = f"--vary {name}=VALUE,VALUE"
            raise UsageError(f"--vary {quote(text)} names no values", hint=hint)
        given = "yes,no"
    texts = [part.strip() for part in given.split(";" if ";" in given else ",")]
    if len(set(texts)) < len(texts) or not all(texts):
        raise UsageError(f"--vary {quote(text)}: a value is empty or given twice")
    short = name.lstrip("-") if len(name.lstrip("-")) > 1 else option.names[0][2:]
    return [(option.key, parse_value(option, value), f"{short}={value}") for value in texts]


def parse_value(option: Option, text: str) -> str | bool | list[str] | None:
    """Return a value of --vary as it would have been typed. Raises UsageError, ParseError."""
    name = f"--vary {option.names[0][2:]}"
    if text == ABSENT:
        return None
    if option.kind == "flag":
        if text not in SWITCH:
            raise UsageError(f"{name}: {quote(text)} is neither yes nor no")
        return SWITCH[text] if SWITCH[text] or option.no else None
    check_text(option, text, name)
    value: str | list[str] = text.split() if option.kind == "list" or option.many else text
    if option.parse:
        option.parse(value, name)
    return value


def find_option(name: str) -> Option:
    """Return the plan option with this name, with or without its dashes. Raises UsageError."""
    rows = plan_rows()
    word = name.lstrip("-")
    for option in rows.values():
        if word in {n.lstrip("-") for n in option.names} | {option.key}:
            return option
    known = [o.names[0][2:] for o in rows.values()]
    hint = did_you_mean(word, known) or "--vary takes plan options: --vary smt=1,all"
    raise UsageError(f"--vary: {quote(word)} is not a plan option", hint=hint)


def parse_variant(text: str) -> Wish:
    """Return the variant of `near: --per l3 -n 2`. Raises UsageError."""
    name, colon, words = text.partition(":")
    name = name.strip()
    if not colon or not name or not name.isprintable():
        hint = "--variant 'near: --per l3 -n 2'"
        raise UsageError(f"--variant {quote(text)} is not a name, : and options", hint=hint)
    split = split_words(words, "--variant", text)
    texts, rest = parse_arguments(split, list(plan_rows().values()))
    if rest:
        hint = "the command comes once, after --, for all variants"
        raise UsageError(f"--variant {quote(name)}: {quote(rest[0])} is not an option", hint=hint)
    return Wish(name, tuple(texts.items()), by_hand=True)


# --- what comes of it ----------------------------------------------------------------------------


def make_variants(
    wishes: Sequence[Wish],
    common: Texts,
    command: Sequence[str],
    environ: Mapping[str, str],
    *,
    unbound: bool = True,
    lease: Lease | None = None,
) -> tuple[list[Variant], list[Omitted]]:
    """Plan each wish; return the variants, the unbound command first, and those left out: what
    contradicts itself, or cannot be had here. `lease`: it holds cpus that nobody else is to have.
    Raises OmpbindError for a wish by hand, and where none is left."""
    names = [wish.name for wish in wishes]
    for name in [UNBOUND] * unbound + names:
        if ([UNBOUND] * unbound + names).count(name) > 1:
            raise UsageError(f"two variants are called {quote(name)}", hint="give one another name")
    variants: list[Variant] = []
    omitted: list[Omitted] = []
    first: OmpbindError | None = None
    for wish in wishes:
        try:
            variants.append(make_variant(wish, common, command, environ, lease))
        except OmpbindError as e:
            if wish.by_hand or not wish.changes or not isinstance(e, PlanError | UsageError):
                raise prefixed(e, wish) from None
            first = first or e
            omitted.append(Omitted(wish.name, e.message))
    if not variants and first:
        raise first
    if unbound and variants:
        variants.insert(0, make_unbound(common, command, environ, variants[0], lease))
    return merge_same(variants), omitted


def prefixed(error: OmpbindError, wish: Wish) -> OmpbindError:
    """Return an error that names the variant, where that has options of its own."""
    if wish.changes:
        error.reword(f"variant {quote(wish.name)}: {error.message}")
    return error


def make_variant(
    wish: Wish,
    common: Texts,
    command: Sequence[str],
    environ: Mapping[str, str],
    lease: Lease | None = None,
) -> Variant:
    """Plan a wish. Raises OmpbindError."""
    texts = merge_texts(common, wish.changes)
    plan = make_plan(texts, command, environ, lease)
    if not {"binder", "plan"} & texts.keys():
        plan = plan.bind_natively()  # numactl's start would be in the figures
    on_denied = str(texts.get("on_denied", "error"))
    return Variant(wish.name, tuple(write_words(texts)), plan, on_denied=on_denied)


def merge_texts(common: Texts, changes: Changes) -> Texts:
    """Return the common options with a variant's changes."""
    texts = common | {key: value for key, value in changes if value is not None}
    absent = {key for key, value in changes if value is None}
    return {key: value for key, value in texts.items() if key not in absent}


def make_plan(
    texts: Texts, command: Sequence[str], environ: Mapping[str, str], lease: Lease | None
) -> Plan:
    """Return the plan of these options on this machine. Raises OmpbindError."""
    values = make_values(texts, list(plan_rows().values()))
    plan = resolve_plan(make_plan_options(values, command, environ), environ, lease=lease)
    if "plan" in values:
        check_plan(plan)
    return plan


def make_unbound(
    common: Texts,
    command: Sequence[str],
    environ: Mapping[str, str],
    example: Variant,
    lease: Lease | None,
) -> Variant:
    """Return the command as it is started without ompbind: as many ranks as the common options ask
    for, or as the `example` has where these options do not go alone."""
    try:
        plan = make_plan(common, command, environ, lease)
    except OmpbindError:
        plan = example.plan
    ranks = []
    for r in plan.ranks:
        kept = {
            name: value
            for name, value in r.env
            if name in (*KEPT, RANK_VARIABLE) or name.endswith("VISIBLE_DEVICES")
        }
        env = tuple((kept | foreign_variables(r)).items())
        words = tuple(command) if plan.server else r.command
        ranks.append(r.replace(binding=Binding(), places=(), env=env, unset=(), command=words,
                               why="not bound"))  # fmt: skip
    plan = Plan(
        host=plan.host,
        ranks=tuple(ranks),
        command=plan.command,
        template=plan.template,
        omp="off",
        omp_why="nothing is bound",
    )
    return Variant(UNBOUND, (), plan, is_bound=False)


def merge_same(variants: Iterable[Variant]) -> list[Variant]:
    """Return the variants without those that start the same ranks as an earlier one."""
    kept: dict[object, Variant] = {}
    for variant in variants:
        key = key_of(variant)
        if key in kept:
            kept[key] = kept[key].replace(same=(*kept[key].same, variant.name))
        else:
            kept[key] = variant
    return list(kept.values())


def key_of(variant: Variant) -> object:
    """Return what a variant's ranks are started with."""
    plan = variant.plan
    ranks = tuple(
        (r.binding, r.places, tuple(sorted(r.env)), tuple(sorted(r.unset)), r.command, r.gpus)
        for r in plan.ranks
    )
    return ranks, plan.server, plan.reset_inherited


def make_ablation(best: Variant) -> tuple[list[Wish], Texts]:
    """Return the best variant and, for each of its options, the same without that one, as changes
    to all its options, which come second."""
    common, _ = parse_arguments(best.options, list(plan_rows().values()))
    wishes = [Wish(best.name)]
    for key in common:
        words = " ".join(write_words({key: common[key]}))
        wishes.append(Wish(f"without {words}", ((key, None),)))
    return wishes, common


def write_words(texts: Texts) -> list[str]:
    """Return options as they are typed."""
    rows = plan_rows()
    words: list[str] = []
    for key, value in texts.items():
        option = rows[key]
        name = option.names[0]
        if isinstance(value, bool):
            words.append(name if value else f"--no-{name[2:]}")
        elif isinstance(value, str):
            words += [f"{name}={value}"] if option.kind == "optional" else [name, value]
        elif option.kind == "list":
            words += [name, *value]
        else:
            words += [word for part in value for word in (name, part)]
    return words
