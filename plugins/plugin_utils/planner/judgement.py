# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One option map on one host, judged: what the engine makes of it, what it needs of every card, and what is wrong with it.

plan.py, solve.py and ladder.py all ask here, so that a plan, its alternatives and its steps down are held to the same rules.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass

from . import calibration, hardware, instance, memory, model, options, rules, settings, values
from .facts import SIZES, resized
from .problem import PlanRefused, Problem
from .settings import resettled

# Nothing real is larger: a card's memory in bytes is below it, and so is every count of tokens.
LARGEST = 2**48
MOST_RANKS = 1024
NOT_SIZES = ("seed",)
NUMBERS = (int, float)
# With one of these the shape of a rank is not defined, so that no memory can be predicted.
SHAPELESS = frozenset(
    {
        "utilization_out_of_range", "ranks_over_cards", "layers_below_stages", "heads_not_divisible", "kv_heads_not_divisible",
        "intermediate_not_divisible", "vocabulary_not_divisible",
    }
)  # fmt: skip
LATE_QUANTIZATION = ("bitsandbytes", "fp8", "ptpc_fp8")


class lazy:
    """A value that is worked out once, when it is first asked for: functools.cached_property, which takes a lock each time before Python 3.12."""

    def __init__(self, function):
        self.function, self.name = function, function.__name__

    def __get__(self, instance, owner):
        value = instance.__dict__[self.name] = self.function(instance)
        return value


@dataclass(frozen=True)
class Case:
    """An instance on its host, read and checked, as far as that does not depend on its options.

    instance: with every default. cards: the instance's own, in its order. config: the checkpoint's config.json. ledger: measured starts.
    accounting: the version whose memory accounting is predicted, where that is not the instance's engine.
    """

    instance: dict
    host: hardware.Host
    cards: tuple[hardware.Card, ...]
    model: model.Model
    config: dict
    ledger: tuple = ()
    accounting: str | None = None

    @lazy
    def version(self) -> str:
        return self.instance["engine_version"]

    @lazy
    def capability(self) -> tuple[int, int]:
        """The lowest of the cards, (7, 5) for 7.5."""
        return min(card.capability for card in self.cards)

    @property
    def sm(self) -> int:
        """The same as one number, 75 for 7.5."""
        return self.capability[0] * 10 + self.capability[1]

    @lazy
    def smallest(self) -> int:
        """Bytes of the smallest card."""
        return min(card.total_bytes for card in self.cards)


@dataclass(eq=False)
class Judgement:
    """What the planner says of an option map on a case, by the schema, the rules and the memory of the cards. It never raises for what the map says.

    Each part is worked out when it is first asked for: most maps are candidates, of which only a size or the verdict matters. unmet: refusals
    of a plan that would run, because of what it was asked for beside its options. facts is None where the map cannot be read, settings and
    prediction where the shape of a rank is not defined.

    like: a judgement that is sound and whose options differ in SIZES alone, so that only what depends on them is worked out, see `but`. changed:
    those that differ from another such judgement's.
    """

    case: Case
    options: dict
    unmet: tuple[Problem, ...] = ()
    like: Judgement | None = None
    changed: dict | None = None

    @lazy
    def unreadable(self) -> tuple[Problem, ...]:
        """What the engine's parser refuses, and numbers that no machine has."""
        new = self.changed if self.like else self.options
        return (*options.check(self.case.version, new), *_absurd(new))

    @lazy
    def facts(self) -> rules.Facts | None:
        """What the engine makes of the options."""
        if self.unreadable:
            return None
        if self.like:
            return resized(self.like.facts, self.options)
        case = self.case
        return rules.facts(
            case.version,
            self.options,
            _loaded(case.model, self.options),
            config=case.config,
            env=case.instance["env"],
            capability=case.capability,
            cards=len(case.cards),
            memory_bytes=case.host.memory_bytes,
            driver=case.host.driver_version,
            nvlink=case.host.nvlink,
            card_bytes=case.smallest,
            strategy=case.instance["attention_strategy"],
        )

    @lazy
    def impossible(self) -> tuple[Problem, ...]:
        """Numbers with which nothing else can be judged."""
        facts = self.facts
        lengths = {"max_model_len": facts.max_model_len, "max_num_batched_tokens": facts.max_num_batched_tokens}
        return tuple(_absurd(lengths)) or tuple(rules.impossible(facts))

    @lazy
    def settings(self) -> memory.Settings | None:
        """The options as far as memory depends on them."""
        if self.unreadable or self.impossible or any(problem.code in SHAPELESS for problem in self._rules):
            return None
        return resettled(self.like.settings, self.options, self.facts) if self.like else _settings(self.case, self.facts)

    @lazy
    def prediction(self) -> memory.Prediction | None:
        """The memory of every rank."""
        # What no size changes is the same for all that are alike.
        return memory.sized((self.like or self).outline, self.settings) if self.settings else None

    @lazy
    def outline(self) -> memory.Outline:
        """The ranks as far as no size changes them, where the shape of a rank is defined."""
        case, facts, used = self.case, self.facts, self.used
        learnt = calibration.correction(case.ledger, case.instance["model"], used[0].name, facts.tp, case.version)
        return memory.outline(facts.model, used, self.settings, learnt)

    @property
    def used(self) -> tuple[hardware.Card, ...]:
        """The cards that hold a rank."""
        return self.case.cards[: self.facts.tp * self.facts.pp]

    @lazy
    def _shortfalls(self) -> tuple[list[Problem], list[Problem]]:
        """The refusals and the warnings that the memory gives cause for."""
        if self.prediction is None:
            return [], []
        lacking, tight = memory.shortfalls(self.facts.model, self.settings, self.prediction)
        return [*lacking, *_ram(self.case, self.prediction)], tight

    @lazy
    def _unequal(self) -> tuple[list[Problem], list[Problem]]:
        """The refusal or the warning that the cards give cause for, where the shape of a rank is defined."""
        if self.case.host.hosts > 1:  # cluster.py says what differs between hosts
            return [], []
        warned = hardware.unequal(self.used, hardware.UNEQUAL_WARNING)
        refused = warned and hardware.unequal(self.used, hardware.UNEQUAL_REFUSAL)
        return [refused] if refused else [], [warned] if warned and not refused else []

    @lazy
    def _rules(self) -> list[Problem]:
        """The refusals of the rules."""
        return rules.size_refusals(self.facts) if self.like else rules.refusals(self.facts)

    @property
    def sound(self) -> bool:
        """Whether no rule refuses it but for its sizes."""
        return self.settings is not None and all(problem.code in rules.CODES_OF_SIZES for problem in self._rules)

    @lazy
    def refusals(self) -> tuple[Problem, ...]:
        """Why the engine cannot start or serve, or why that is not what was asked for."""
        if self.unreadable or self.impossible:
            return self.unreadable or self.impossible
        unequal = (self.like or self)._unequal[0] if self.settings else ()
        return (*self._rules, *unequal, *self._shortfalls[0], *self.unmet)

    @lazy
    def warnings(self) -> tuple[Problem, ...]:
        """What will be slower, hidden or otherwise than asked."""
        if self.unreadable or self.impossible:
            return ()
        unequal = (self.like or self)._unequal[1] if self.settings else ()
        return (*rules.warnings(self.facts), *unequal, *self._shortfalls[1])

    def but(self, changes: dict) -> Judgement:
        """The same options with some of them otherwise. Where these are SIZES, and no rule is broken but for sizes, little is worked out anew."""
        changed = {**self.options, **changes}
        if changes.keys() <= SIZES and self.sound:
            # The first of a row stands for all of them, which need not be kept.
            return Judgement(self.case, changed, like=self.like or self, changed=changes)
        return Judgement(self.case, changed)

    def breaks(self, names: Set[str]) -> bool:
        """Whether one of these rules has something to say: they alone are asked, and no memory is predicted."""
        return not (self.unreadable or self.impossible) and any(rules.BY_NAME[name](self.facts) for name in names)

    @property
    def fits(self) -> bool:
        return not self.refusals

    @property
    def sure(self) -> bool:
        """Whether it fits without the margin that the prediction's own error is given."""
        lacking, tight = self._shortfalls
        return self.prediction is not None and not lacking and not MEMORY_CODES & {problem.code for problem in tight} and self.fits

    @property
    def codes(self) -> set[str]:
        """The codes of the refusals."""
        return {problem.code for problem in self.refusals}

    @property
    def memory_refusal(self) -> bool:
        """Whether memory alone is missing: other options on the same cards may help."""
        return bool(self.refusals) and self.codes <= MEMORY_CODES


ROOM_CODES = frozenset({"weights_over_card", "no_room_for_kv_cache"})
MEMORY_CODES = ROOM_CODES | {"kv_cache_too_small"}


SEVERAL_HOSTS = Problem(
    "several_hosts",
    "The instance is of several hosts, and a plan was asked for with the cards of one.",
    "Plan it with all of them, as playbooks/plan.yml does, or leave hosts out.",
)


def read(given, host, config, ledger=(), tensor_bytes=None, accounting=None) -> Case:
    """The case that an instance, a host and a config.json make. PlanRefused with every problem that each of them has."""
    given, config, ledger = (instance.plain(part) for part in (given, config, ledger))
    problems = instance.problems([given])
    parts = []
    for part, arguments in ((hardware.read, (host,)), (model.read, (config, tensor_bytes))):
        try:
            parts.append(part(*arguments))
        except PlanRefused as refused:
            problems += refused.problems
    if problems:
        raise PlanRefused(problems)
    full = instance.normalize(given)
    if full["hosts"]:
        raise PlanRefused([SEVERAL_HOSTS])
    found, shape = parts
    return Case(full, found, found.chosen(full["gpus"]), shape, config, tuple(ledger) if isinstance(ledger, list) else (), accounting)


def _loaded(shape: model.Model, given: dict) -> model.Model:
    """The model as it lies on the cards: some methods quantise a 16-bit checkpoint while it is loaded."""
    method = given.get("quantization")
    return model.quantized_at_load(shape, method) if method in LATE_QUANTIZATION else shape


def _settings(case: Case, facts: rules.Facts) -> memory.Settings:
    """The engine's options as settings.py reads them, with what facts.py has resolved: one reading of the options for both."""
    env = {**case.instance["env"], **({"VLLM_USE_V1": "0"} if facts.core == "V0" else {})}
    return settings.settings(
        dict(facts.given),
        facts.model,
        case.cards,
        case.accounting or case.version,
        env,
        case.host.nvlink,
        core=facts.core,
        attention=facts.attention,
        dtype=facts.dtype,
        max_model_len=facts.max_model_len,
        max_num_batched_tokens=facts.max_num_batched_tokens,
        max_num_seqs=facts.max_num_seqs,
        block_size=facts.block,
        enable_chunked_prefill=facts.chunked,
    )


def _absurd(given: dict) -> list[Problem]:
    """Numbers that the parser takes and that no machine has: rules and formulas need not be proof against them."""
    return [
        Problem("value_out_of_range", f"{name} is {values.shown(value)}, beyond any machine.", f"Use a number up to {_most(name)}.")
        for name, value in given.items()
        if type(value) in NUMBERS and (value > MOST_RANKS or value < -MOST_RANKS) and name not in NOT_SIZES and abs(value) > _most(name)
    ]


def _most(name: str) -> int:
    return MOST_RANKS if name.endswith("_parallel_size") else LARGEST


def _ram(case: Case, prediction: memory.Prediction) -> Iterator[Problem]:
    """Swap and offloaded weights lie in RAM together; rules.py judges each of them alone."""
    ram = case.host.memory_bytes
    if ram and prediction.host_bytes >= ram:
        message = f"Swap and offloaded weights take {memory.gib(prediction.host_bytes)} over all cards, and the host has {memory.gib(ram)} RAM."
        yield Problem("host_memory_too_small", message, "Use a smaller swap_space or cpu_offload_gb; both are for each card.")
