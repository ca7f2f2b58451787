"""Random worlds for a gateway: providers that fail, hang, lie and break off, clients of all dialects that leave, caps;
some with a model at both providers, some with a cache of replies, with dearer long contexts, several candidates, SDKs
that send a failed request again, responses that are stored and gone on from.

Everything follows from a seed. What is said of a world is in `test_worlds.py`.
"""

from __future__ import annotations

import copy
import hashlib
import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tests.upstream_reply import Received
from tests.upstream_script import (
    CLOSE,
    END,
    HANG,
    RESET,
    Control,
    ListPrice,
    Pause,
    Piece,
    Script,
    comment,
    error_event,
    hidden,
    reasoning,
    tool,
    words,
)

DIALECTS = ("chat", "messages", "responses", "gemini")
PRICES = {"a": ListPrice("0.001", "0.002", "0"), "b": ListPrice("0.004", "0.009", "0")}
"""No rate for cached input is declared: then it is not priced."""
LONG_TOKENS = 60
LONG = {"a": ListPrice("0.002", "0.004", "0"), "b": ListPrice("0.008", "0.018", "0")}
"""What a call costs in worlds with tiers whose input is longer than LONG_TOKENS."""
SILENCE_S = 0.3
"""How long a provider is waited for."""
TEAM, OTHER_TEAM = "lab", "ops"
TEAMS = {"ann": TEAM, "bob": TEAM, "eve": None}
"""The keys of a world that has keys, each its own secret."""
USERS = ("u1", "u2")
WINDOWS = ("hour", "day", "month", "total")
OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "cache": ("cache", {"ttl_secs": 3600}),
    "stored": ("stored_responses", {"ttl_secs": 3600, "max_mb": 64}),
    "landing": ("landing", {"at": 0.5, "note": True, "min_output_tokens": 16}),
}
"""Parts of a policy that may be there or not."""
ATTEMPTS = 4
"""Scripts for one request, the last of which repeats."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request. `mark` is in its prompt, so that providers know it; `leave_bytes`: its client leaves when so much of
    the reply has come, None: it reads to the end."""

    mark: str
    dialect: str
    path: str
    body: dict[str, Any]
    headers: dict[str, str]
    stream: bool
    delay_s: float
    leave_bytes: int | None
    cap_usd: float | None

    @property
    def task(self) -> str | None:
        """Its task."""
        return self.headers.get("x-bursar-task-id")

    @property
    def as_events(self) -> bool:
        """Whether its reply is a stream of events: one that Gemini's clients ask for without `alt=sse` is an array."""
        return self.stream and (self.dialect != "gemini" or self.path.endswith("?alt=sse"))

    @property
    def wants_usage(self) -> bool:
        """Whether a chat client asked for usage in the stream."""
        return bool(self.body.get("stream_options", {}).get("include_usage"))


@dataclass(slots=True)
class World:
    """What is asked, how providers answer it, and under which policy. `answered`: what each provider has got."""

    asks: list[Ask] = field(default_factory=list)
    scripts: dict[str, list[Script]] = field(default_factory=dict)
    policy: dict[str, Any] = field(default_factory=dict)
    answered: dict[str, list[tuple[str, Received, Script]]] = field(default_factory=dict)

    def price(self, model: str, input_tokens: int) -> ListPrice:
        """What a call with so much input costs."""
        tiered = "tiers" in self.policy["models"][model]["pricing"]
        return (LONG if tiered and input_tokens > LONG_TOKENS else PRICES)[model]

    def answer(self, provider: str, request: Received) -> Script:
        """What this provider says to that."""
        said = request.raw.decode()
        mark = next(mark for mark in self.scripts if mark in said)
        before = self.answered.setdefault(mark, [])
        script = self.scripts[mark][min(len(before), ATTEMPTS - 1)]
        before.append((provider, request, script))
        return script


def make(seed: int) -> World:
    """The world of this seed."""
    rng, world = random.Random(seed), World()
    world.policy = _policy(rng)
    if keyed := seed % 2 == 1:
        _give_keys(rng, world.policy)
    for number in range(rng.randint(1, 8)):
        ask = _ask(rng, f"mark-{number}-")
        if keyed:
            ask.headers["authorization"] = f"Bearer {rng.choice([*TEAMS])}"
        world.asks.append(ask)
        world.scripts[ask.mark] = [_script(rng) for _ in range(ATTEMPTS)]
    texts = random.Random(f"texts in {seed}")
    world.asks = [
        _as_text(texts, ask) if ask.dialect == "chat" and texts.random() < 0.35 else ask for ask in world.asks
    ]
    more = random.Random(f"more of {seed}")
    if more.random() < 0.35:
        _give_copies(more, world.policy)
    if more.random() < 0.25:
        world.policy["landing"] = {"at": more.choice([0.1, 0.5]), "note": more.random() < 0.5, "min_output_tokens": 16}
    if more.random() < 0.35:
        world.policy["cache"] = {"ttl_secs": 3600}
        world.asks += [_again(more, ask) for ask in world.asks for _ in range(2) if more.random() < 0.6]
    _bound_at_a_time(random.Random(f"at a time in {seed}"), world.policy)
    _name_users(random.Random(f"users in {seed}"), world)
    _give_tiers(random.Random(f"tiers in {seed}"), world.policy)
    _ask_for_several(random.Random(f"several in {seed}"), world.asks)
    tries = random.Random(f"tries in {seed}")
    if tries.random() < 0.3:
        world.asks += [_sent_again(tries, ask) for ask in world.asks if tries.random() < 0.4]
    _store_responses(random.Random(f"stored in {seed}"), world)
    return world


def _store_responses(rng: random.Random, world: World) -> None:
    """Some keep responses, for clients that want it; two of these have no cap of their own."""
    if rng.random() < 0.5:
        return
    world.policy["stored_responses"] = {"ttl_secs": 3600, "max_mb": 64}
    for ask in world.asks:
        if ask.dialect == "responses":
            ask.body["store"] = rng.random() < 0.8
    keys = {name: value for name, value in world.asks[0].headers.items() if name == "authorization"}
    for number, stream in enumerate((True, False)):
        mark = f"kept-{number}-"
        path, body = _responses(rng, f"{mark} tell me a story", "auto", None, stream)
        headers = {**keys, "x-bursar-task-id": rng.choice(["t1", "t2"])}
        world.asks.append(Ask(mark, "responses", path, {**body, "store": True}, headers, stream, 0.0, None, None))
        said = Script.of(words("one two three"), delay_s=rng.choice([0, 0.002]))
        world.scripts[mark] = [said, *(_script(rng) for _ in range(ATTEMPTS - 1))]


def going_on(ask: Ask, response_id: str) -> Ask:
    """The next turn of a conversation whose last response is stored."""
    body = {**ask.body, "input": f"{ask.mark} and then", "previous_response_id": response_id}
    return replace(ask, body=body, delay_s=0.0, leave_bytes=None)


def _policy(rng: random.Random) -> dict[str, Any]:
    caps: dict[str, Any] = {}
    if rng.random() < 0.5:
        caps["task"] = {"max_cost_usd": rng.choice([0.0003, 0.001, 0.01])}
    if rng.random() < 0.3:
        caps["request"] = {"max_cost_usd": rng.choice([0.0002, 0.001])}
    if rng.random() < 0.3:
        caps["global"] = {"total": {"max_cost_usd": rng.choice([0.001, 0.005])}}
    if rng.random() < 0.2:
        caps.setdefault("task", {}).update(rng.choice([{"max_calls": 3}, {"max_tokens": 200}, {"max_seconds": 0.4}]))
    of_model = rng.choice([0, 0, 0.0003, 0.002])
    budgets = {"max_cost_usd": of_model, "hard_timeout_secs": 2}
    deadlines = {"ttft_secs": SILENCE_S, "idle_secs": SILENCE_S}
    return {
        "caps": caps,
        "providers": {name: {"deadlines": deadlines, "bills_after_cancel": rng.random() < 0.15} for name in PRICES},
        "models": {
            name: {
                "budgets": budgets,
                "hidden_reasoning": rng.random() < 0.15,
                "pricing": {"input_per_1k": float(price.input_per_1k), "output_per_1k": float(price.output_per_1k)},
            }
            for name, price in PRICES.items()
        },
        "on_cut": rng.choice(["error", "error", "length"]),
        "ledger": {"contention_wait_secs": 0.2},
    }


def _give_keys(rng: random.Random, rules: dict[str, Any]) -> None:
    rules["keys"] = [
        {"name": name, "sha256": hashlib.sha256(name.encode()).hexdigest(), **({"team": team} if team else {})}
        for name, team in TEAMS.items()
    ]
    rules["teams"] = {TEAM: {}}
    if rng.random() < 0.6:
        window, cap = rng.choice(["hour", "day", "month", "total"]), rng.choice([0.0003, 0.001, 0.005])
        rules["teams"][TEAM] = {"caps": {window: {"max_cost_usd": cap}}}
    if rng.random() < 0.3:
        rules["caps"]["key"] = {"minute": rng.choice([{"max_calls": rng.randint(1, 4)}, {"max_tokens": 40}])}


def _give_copies(rng: random.Random, rules: dict[str, Any]) -> None:
    """Some of the models are at the other's provider, too, at their own price."""
    for name in rng.choice(["a", "b", "ab"]):
        rules["models"][name]["also_at"] = [other for other in PRICES if other != name]


def _bound_at_a_time(rng: random.Random, rules: dict[str, Any]) -> None:
    """Some let only so many requests run at a time."""
    for owner, share in (("task", 0.25), ("key", 0.25), ("global", 0.3)):
        if rng.random() < share:
            rules["caps"].setdefault(owner, {})["max_parallel_requests"] = rng.randint(1, 3)


def _name_users(rng: random.Random, world: World) -> None:
    """Some worlds tell end users apart, whom requests name in their dialect's way, by the header, or not at all."""
    if rng.random() < 0.5:
        window, cap = rng.choice(["hour", "day", "month", "total"]), rng.choice([0.0003, 0.001, 0.005])
        world.policy["caps"]["user"] = rng.choice([{}, {window: {"max_cost_usd": cap}}])
    for ask in world.asks:
        name = rng.choice([None, *USERS])
        if name is None:
            continue
        if ask.dialect == "gemini" or rng.random() < 0.3:
            ask.headers["x-bursar-user"] = name
        elif ask.dialect == "messages":
            ask.body["metadata"] = {"user_id": name}
        else:
            ask.body[rng.choice(["user", "safety_identifier"])] = name


def _give_tiers(rng: random.Random, rules: dict[str, Any]) -> None:
    """Some models cost twice as much where the input is long."""
    for name, price in LONG.items():
        if rng.random() < 0.3:
            rates = {"input_per_1k": float(price.input_per_1k), "output_per_1k": float(price.output_per_1k)}
            rules["models"][name]["pricing"]["tiers"] = [{"above_tokens": LONG_TOKENS, **rates}]


def _ask_for_several(rng: random.Random, asks: list[Ask]) -> None:
    """Some of Gemini's clients want two candidates."""
    for ask in asks:
        if ask.dialect == "gemini" and rng.random() < 0.2:
            ask.body.setdefault("generationConfig", {})["candidateCount"] = 2


def _sent_again(rng: random.Random, ask: Ask) -> Ask:
    """The same request as an SDK sends it again by itself, whatever became of the first."""
    headers = {**ask.headers, "x-stainless-retry-count": "1"}
    return replace(ask, headers=headers, delay_s=rng.choice([0.2, 0.4]), leave_bytes=None)


def _again(rng: random.Random, ask: Ask) -> Ask:
    """The same request when the first may have its answer, perhaps of another task or under no cap of its own."""
    headers = dict(ask.headers)
    if rng.random() < 0.3:
        headers["x-bursar-task-id"] = rng.choice(["t1", "t2"])
    cap_usd = ask.cap_usd
    if rng.random() < 0.2:
        headers.pop("x-bursar-max-cost-usd", None)
        cap_usd = None
    if rng.random() < 0.1:
        headers["cache-control"] = "no-cache"
    return replace(ask, headers=headers, cap_usd=cap_usd, delay_s=rng.choice([0.0, 0.2, 0.3]), leave_bytes=None)


def _script(rng: random.Random) -> Script:
    if rng.random() < 0.12:
        return _refusal(rng)
    pieces: list[Piece] = []
    if rng.random() < 0.3:
        pieces += [reasoning(f" r{number}") for number in range(rng.randint(1, 30))]
    if rng.random() < 0.15:
        pieces.append(hidden(rng.randint(1, 60)))
    if length := rng.choice([0, 1, 3, 20, 60, 150]):
        pieces += words(" ".join(f"w{number}" for number in range(length)))
    if rng.random() < 0.3:
        pieces += [tool(id="call_1", name="bash"), *(tool(f'"{n}",') for n in range(rng.randint(0, 60)))]
    if rng.random() < 0.1:
        pieces.insert(rng.randint(0, len(pieces)), comment())
    if rng.random() < 0.2:
        breaks: list[Piece] = [HANG, RESET, CLOSE, END, error_event()]
        pieces.insert(rng.randint(0, len(pieces)), rng.choice(breaks))
    opening: list[Control] = [Pause(rng.choice([0.05, 0.4]))] if rng.random() < 0.1 else []
    return Script.of(
        pieces,
        opening=opening,
        delay_s=rng.choice([0, 0, 0.0005, 0.002]),
        usage=rng.choice(["asked", "asked", "always", "merged", "cumulative", "missing"]),
        finish=rng.choice(["auto", "auto", "auto", "auto", None]),
        done=rng.random() > 0.1,
        obeys_limit=rng.random() > 0.2,
        role_chunk=rng.random() > 0.2,
        newline=rng.choice(["\n", "\n", "\r\n", "\r"]),
        multi_line=rng.random() < 0.1,
        segment=rng.choice([None, None, None, 7, 64]),
        chunked=rng.random() > 0.15,
        keep_alive=rng.random() > 0.15,
        drop_idle=rng.random() < 0.1,
        cached_tokens=rng.choice([0, 0, 2]),
    )


def _refusal(rng: random.Random) -> Script:
    status = rng.choice([400, 401, 404, 429, 500, 502, 503])
    if status == 502:
        return Script.html()
    headers = {"retry-after": rng.choice(["0", "1", "30", "Wed, 21 Oct 2015 07:28:00 GMT"])} if status > 428 else {}
    code = rng.choice([None, "rate_limit_exceeded", "insufficient_quota"])
    return Script.failure(status, code=code, headers=headers)


def _ask(rng: random.Random, mark: str) -> Ask:
    dialect, stream = rng.choice(DIALECTS), rng.random() < 0.7
    model, limit = rng.choice(["a", "b", "auto", "auto"]), rng.choice([None, None, 1, 16, 40, 4000])
    prompt = f"{mark} " + "tell me a story " * rng.choice([1, 1, 40])
    path, body = {"chat": _chat, "messages": _messages, "responses": _responses, "gemini": _gemini}[dialect](
        rng, prompt, model, limit, stream
    )
    headers: dict[str, str] = {}
    cap = rng.choice([None, None, 0.00001, 0.0001, 0.0004, 0.01])
    if cap is not None:
        headers["x-bursar-max-cost-usd"] = f"{cap:.9f}"
    if (task := rng.choice([None, "t1", "t1", "t2"])) is not None:
        headers["x-bursar-task-id"] = task
        if rng.random() < 0.15:
            headers["x-bursar-task-max-cost-usd"] = rng.choice(["0.0005", "0.002"])
    if rng.random() < 0.1:
        headers["x-bursar-on-cut"] = "length"
    leave = rng.choice([None] * 6 + [0, 1, 200, 2000])
    return Ask(mark, dialect, path, body, headers, stream, rng.choice([0, 0, 0, 0.02, 0.1]), leave, cap)


Made = tuple[str, dict[str, Any]]
_NAMED: Mapping[str, Any] = {"name": "bash"}


def _chat(rng: random.Random, prompt: str, model: str, limit: int | None, stream: bool) -> Made:
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": prompt}], "stream": stream}
    if limit is not None:
        body[rng.choice(["max_tokens", "max_completion_tokens"])] = limit
    if stream and rng.random() < 0.5:
        body["stream_options"] = {"include_usage": rng.random() < 0.7}
    if rng.random() < 0.15:
        body["n"] = 2
    if rng.random() < 0.3:
        body["tools"] = [{"type": "function", "function": {**_NAMED, "parameters": {"type": "object"}}}]
    return "/v1/chat/completions", body


def _as_text(rng: random.Random, ask: Ask) -> Ask:
    """The same as a text completion."""
    (turn,) = ask.body["messages"]
    left_out = ("messages", "tools", "max_completion_tokens")
    body: dict[str, Any] = {name: value for name, value in ask.body.items() if name not in left_out}
    body["prompt"] = turn["content"] if rng.random() < 0.6 else [turn["content"]] * rng.randint(1, 3)
    if rng.random() < 0.3:
        body["suffix"] = "the end"
    return replace(ask, dialect="text", path="/v1/completions", body=body)


def _messages(rng: random.Random, prompt: str, model: str, limit: int | None, stream: bool) -> Made:
    body: dict[str, Any] = {"model": model, "max_tokens": limit or 2000, "stream": stream}
    body["messages"] = [{"role": "user", "content": prompt}]
    if rng.random() < 0.3:
        body["tools"] = [{**_NAMED, "input_schema": {"type": "object"}}]
    return "/v1/messages", body


def _responses(rng: random.Random, prompt: str, model: str, limit: int | None, stream: bool) -> Made:
    body: dict[str, Any] = {"model": model, "input": prompt, "stream": stream, "store": False}
    if limit is not None:
        body["max_output_tokens"] = max(limit, 16)
    if rng.random() < 0.3:
        body["tools"] = [{"type": "function", **_NAMED, "parameters": {"type": "object"}, "strict": False}]
    return "/v1/responses", body


def _gemini(rng: random.Random, prompt: str, model: str, limit: int | None, stream: bool) -> Made:
    verb = f"streamGenerateContent{rng.choice(['?alt=sse', ''])}" if stream else "generateContent"
    body: dict[str, Any] = {"contents": [{"role": "user", "parts": [{"text": prompt}]}]}
    if limit is not None:
        body["generationConfig"] = {"maxOutputTokens": limit}
    if rng.random() < 0.3:
        body["tools"] = [{"functionDeclarations": [_NAMED]}]
    return f"/v1beta/models/{model}:{verb}", body


@dataclass(frozen=True, slots=True)
class Edit:
    """From `at_s` on this is the policy; the other gateway's copy of it is edited `lag_s` later. `changes`: of the
    limits and the state of one task, by whoever has the `key`."""

    at_s: float
    lag_s: float
    policy: dict[str, Any]
    task: str
    changes: dict[str, Any]
    key: str


def edits(seed: int, world: World) -> list[Edit]:
    """What an operator changes while the calls of this world are under way, in their order: caps that are lowered,
    raised, made and lifted, and what else a policy may have or not; where there are keys, one that moves to another
    team, and one that is taken away or comes back."""
    rng, rules, found, at_s = random.Random(f"edits of {seed}"), world.policy, [], 0.0
    for _ in range(rng.randint(1, 4)):
        rules = copy.deepcopy(rules)
        at_s += rng.choice([0.0, 0.02, 0.05, 0.2])
        for _ in range(rng.randint(1, 3)):
            _change(rng, rules, world.policy.get("keys"))
        found.append(Edit(at_s, rng.choice([0.0, 0.0, 0.05, 0.3]), rules, *_amendment(rng)))
    return found


def _amendment(rng: random.Random) -> tuple[str, dict[str, Any], str]:
    limits = {"max_cost_usd": rng.choice([0.0001, 0.001, 0.01]), "max_calls": rng.randint(1, 9)}
    more = {"max_tokens": rng.choice([50, 5000]), "max_parallel_requests": rng.randint(1, 3)}
    changes: dict[str, Any] = {name: value for name, value in {**limits, **more}.items() if rng.random() < 0.3}
    if rng.random() < 0.4:
        changes["state"] = rng.choice(["frozen", "open", "open", "closed"])
    return rng.choice(["t1", "t2"]), changes, rng.choice([*TEAMS])


def _change(rng: random.Random, rules: dict[str, Any], keys: list[dict[str, Any]] | None) -> None:
    kinds = ["task", "global", "user", "model", "parallel", "copies", "cache", "stored", "on_cut", "landing"]
    kind = rng.choice([*kinds, *(["team", "team", "key", "moves", "moves", "comes or goes", "rate"] if keys else [])])
    usd = rng.choice([None, 0.0001, 0.0003, 0.001, 0.005, 0.05])
    if kind == "task":
        limits = rules["caps"].setdefault("task", {})
        limits.pop("max_cost_usd", None)
        limits |= {} if usd is None else {"max_cost_usd": usd}
    elif kind in ("global", "user", "key"):
        _put_cap(rng, rules["caps"].setdefault(kind, {}), usd)
    elif kind == "model":
        rules["models"][rng.choice(["a", "b"])]["budgets"] = {"max_cost_usd": usd or 0, "hard_timeout_secs": 2}
    elif kind == "team":
        _put_cap(rng, rules["teams"].setdefault(rng.choice([TEAM, OTHER_TEAM]), {}).setdefault("caps", {}), usd)
    elif kind == "parallel":
        owner = rules["caps"].setdefault(rng.choice(["task", "global"]), {})
        if owner.pop("max_parallel_requests", None) is None:
            owner["max_parallel_requests"] = rng.randint(1, 3)
    elif kind == "rate":
        if rules["caps"].setdefault("key", {}).pop("minute", None) is None:
            rules["caps"]["key"]["minute"] = rng.choice([{"max_calls": rng.randint(1, 4)}, {"max_tokens": 40}])
    elif kind == "copies":
        name = rng.choice([*PRICES])
        if rules["models"][name].pop("also_at", None) is None:
            rules["models"][name]["also_at"] = [other for other in PRICES if other != name]
    elif kind == "on_cut":
        rules["on_cut"] = rng.choice(["error", "length"])
    elif kind in ("cache", "stored", "landing"):
        name, value = OPTIONS[kind]
        if rules.pop(name, None) is None:
            rules[name] = value
    elif kind == "moves":
        rules["teams"].setdefault(OTHER_TEAM, {})
        moved = rng.choice(rules["keys"])
        moved.pop("team", None)
        if (team := rng.choice([TEAM, OTHER_TEAM, None])) is not None:
            moved["team"] = team
    elif len(rules["keys"]) > 2:
        rules["keys"].remove(rng.choice(rules["keys"]))
    else:
        here = {key["name"] for key in rules["keys"]}
        rules["keys"] += [copy.deepcopy(key) for key in keys or () if key["name"] not in here]


def _put_cap(rng: random.Random, windows: dict[str, Any], usd: float | None) -> None:
    """A cap of one window in place of the one that was, or none."""
    window = rng.choice([*(name for name in WINDOWS if name in windows), "total"])
    windows.pop(window, None)
    if usd is not None:
        windows[window] = {"max_cost_usd": usd}
