"""What options are to one another: the conflicts that can be seen without a machine."""

from __future__ import annotations

from ompbind.errors import PlanError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ompbind.options.table import Option, Rule
    from ompbind.options.values import Values

    Names = Mapping[str, str]


def check_together(values: Values, options: Sequence[Option], names: Names | None = None) -> None:
    """Refuse options that contradict each other, and any that would have no effect.

    `names`: what asks for a value that no option asks for, by the key of the option that it stands
    for. Raises UsageError, PlanError.
    """
    names = names or {}
    given = [option for option in options if option.key in values]
    if any("plan.saved" in option.fields for option in given):
        check_saved(given)
    for option in given:
        for rule in option.excludes:
            others = [term for term in rule.terms if holds(term, values)]
            if others and applies(rule, option, values):
                raise broken(rule, option, others[0], values, names)
        for rule in option.needs:
            if applies(rule, option, values) and not any(holds(t, values) for t in rule.terms):
                raise broken(rule, option, rule.terms[0], values, names)
    check_counts(values, names)


def check_saved(given: Sequence[Option]) -> None:
    """Refuse what a saved plan has settled already. Raises UsageError."""
    for option in given:
        if not option.on_saved_plan:
            name = option.names[0]
            raise UsageError(
                f"{name} has no effect on a saved plan",
                hint=f"leave --plan or {name} out",
                option=option.names[0],
            )


def check_counts(values: Values, names: Names) -> None:
    """Refuse different numbers of ranks. Raises PlanError."""
    counts = {
        names.get(key, typed(key)): len(values[key])
        for key in ("numa_bind_nodes", "numa_bind_cpus")
        if key in values
    }
    for key in ("cores_per_rank", "mem_nodes"):  # one value is for all
        if len(several := values.get(key, ())) > 1:
            counts[names.get(key, typed(key))] = len(several)
    if "ranks" in values:
        counts[names.get("ranks", "--ranks")] = values["ranks"]
    if len(set(counts.values())) > 1:
        texts = ", ".join(f"{name} is for {count}" for name, count in counts.items())
        hint = "give each list one value for every rank"
        if values.get("ranks") == 1 and len(counts) == 2 and "numa_bind_nodes" in values:
            nodes = "+".join(str(nodes) for nodes in values["numa_bind_nodes"])
            hint = f"one rank on several nodes: --numa-bind-nodes {nodes}"
        raise PlanError(
            f"the number of ranks is unclear: {texts}",
            hint=hint,
            counts=counts,
        )


def holds(term: str, values: Values) -> bool:
    """Whether an option is given, with the value of key=value; a pool of no cores asks for
    nothing, and so does a flag that is switched off."""
    key, equals, wanted = term.partition("=")
    if key not in values:
        return False
    value = values[key]
    return str(value) == wanted if equals else value is None or bool(value)


def applies(rule: Rule, option: Option, values: Values) -> bool:
    return (not rule.when or str(values[option.key]) in rule.when) and (
        not rule.beside or holds(rule.beside, values)
    )


def broken(rule: Rule, option: Option, term: str, values: Values, names: Names) -> PlanError:
    """Return the error of a rule that is broken by an option and, if the rule excludes, a term."""
    key, equals, wanted = term.partition("=")
    other = f"{typed(key)} {wanted}" if equals else typed(key)
    words = {
        "name": names.get(option.key, typed(option.key)),
        "option": names.get(option.key, typed(option.key, values[option.key])),
        "other": names.get(key, other),
    }
    return PlanError(
        rule.message.format(**words), hint=rule.hint.format(**words), option=option.names[0]
    )


def typed(key: str, value: object = None) -> str:
    """Return an option as it is typed, with its value where that is a word."""
    name = "--" + key.replace("_", "-")
    if value is False:
        return f"--no-{name[2:]}"
    return f"{name} {value}" if isinstance(value, str) else name
