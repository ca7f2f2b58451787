"""Builds and wires everything; the only module that knows all the others."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import structlog

from app.aside import Aside
from app.compaction import keep_compacting
from app.core.policy import HEURISTIC, LEARNED, Policy
from app.dialects.anthropic.count import count_reply as messages_reply
from app.dialects.anthropic.parse import parse_count as messages_count
from app.dialects.anthropic.patch import patch_count as messages_ask
from app.dialects.counted import counted
from app.dialects.gemini.parse import count_reply as gemini_reply
from app.dialects.gemini.parse import counted as gemini_counted
from app.dialects.gemini.parse import parse_count as gemini_count
from app.dialects.gemini.patch import patch_count as gemini_ask
from app.dialects.registry import CHAT, COMPLETIONS, GEMINI, MESSAGES
from app.figures import Figures, Rehearsals
from app.gateway.circuits import ToldCircuits
from app.gateway.ledger import Ledger
from app.gateway.litellm_bridge import BridgedUpstreams
from app.gateway.metrics import Metrics
from app.gateway.notices import Notices
from app.gateway.pool import make_upstreams
from app.gateway.services import Services
from app.gateway.view import View, arm_of
from app.gateway.windows_used import WindowsUsed
from app.http.api import build_api
from app.http.asgi import PATIENT, Patience, Receive, Scope, Send
from app.http.auth import is_loopback
from app.http.count import Counting, CountRoute
from app.http.dashboard.now import this_gateway
from app.http.dashboard.routes import Dashboard
from app.http.embeddings import EmbeddingsRoute
from app.http.front import ASGIApp, Front
from app.http.generate import GenerateRoute
from app.http.hot import HotRoute
from app.http.replays import Replays, tend
from app.http.reply_cache import ReplyCache
from app.http.responses import ResponsesCount, ResponsesRoute, forget
from app.learning import Follower, keep_learning
from app.logs import configure_logging
from app.measuring import Measuring
from app.replaying import ReplayCheck
from app.salt import FIRST_LOOK_S, keep_asking, salt_of
from app.settings import Settings, installed_version
from app.stores.budgets import HEARTBEAT_S, Budgets, LedgerUnavailable
from app.stores.budgets_sqlite import SqliteBudgets
from app.stores.opening import (
    make_memory,
    make_outcomes,
    make_replays,
    make_responses,
    make_snapshots,
    make_words,
    workers_folder,
)
from app.stores.outcomes import OutcomesUnavailable
from app.stores.policies import Policies
from app.stores.policy_history import PolicyHistory
from app.stores.policy_kept import KeptText
from app.stores.policy_yaml import Problem
from app.stores.prices import PriceBook
from app.stores.snapshots import Snapshots, SnapshotsUnavailable
from app.stores.traces import Traces
from app.stores.traces_files import FileTraces
from routers.base import Arm, Router
from routers.heuristic import HeuristicRouter

if TYPE_CHECKING:  # numpy costs 100 ms to import
    from routers.learned import LearnedRouter

log = structlog.get_logger()

NO_KEYS = "the policy sets no keys, so the gateway would let anyone spend: serve on loopback only, or add keys"


class Closes(Protocol):
    """What is let go of at the end."""

    async def close(self) -> None: ...


async def _close(*these: Closes) -> None:
    """One after another."""
    for each in these:
        await each.close()


def make_budgets(settings: Settings) -> Budgets:
    """The ledger the settings ask for: Redis when shared, SQLite otherwise."""
    if settings.redis_url is None:
        return SqliteBudgets(settings.data_dir / "ledger.sqlite")
    from app.stores.budgets_redis import RedisBudgets  # noqa: PLC0415  (redis-py costs 60 ms to import)

    return RedisBudgets(settings.redis_url.get_secret_value(), namespace=settings.redis_namespace)


def make_traces(settings: Settings, metrics: Metrics) -> Traces:
    """Where records go: beside the ledger."""
    lost = metrics.traces_lost.inc
    if settings.redis_url is None:
        return FileTraces(settings.data_dir / "traces", keep_days=settings.traces_keep_days, lost=lost)
    from app.stores.traces_redis import RedisTraces  # noqa: PLC0415  (see make_budgets)

    return RedisTraces(settings.redis_url.get_secret_value(), namespace=settings.redis_namespace, lost=lost)


def with_spans(settings: Settings, traces: Traces, policy: Callable[[], Policy]) -> Traces:
    """The same traces, sent as spans too where the settings ask for it."""
    if not settings.otel:
        return traces
    from app.spans import SpannedTraces, otlp  # noqa: PLC0415  (an extra, and 200 ms to import)

    return SpannedTraces(traces, otlp(), policy, installed_version())


def load_routers(weights: Path) -> dict[str, Router]:
    """The routers that policies may name: the heuristic, and the learned one where its weights can be used."""
    found: dict[str, Router] = {HEURISTIC: HeuristicRouter()}
    if not weights.exists():
        log.info("no weights for the learned router: the heuristic decides", weights=str(weights))
        return found
    from routers.learned import load  # noqa: PLC0415  (numpy costs 100 ms to import)

    try:
        found[LEARNED] = load(weights)
    except FileNotFoundError:
        log.info("no weights for the learned router: the heuristic decides", weights=str(weights))
    except Exception as error:  # whatever is wrong with a file, the gateway serves without it
        log.error(
            "the learned router's weights cannot be used: the heuristic decides",
            weights=str(weights),
            reason=f"{type(error).__name__}: {error}",
        )
    return found


def hot_routes(
    services: Services, max_body_bytes: int, replays: Replays, cache: ReplyCache, patience: Patience = PATIENT
) -> dict[str, HotRoute]:
    """The paths that generate or embed, each with its route; Gemini's by their verb."""
    routes = _hot_routes(services, max_body_bytes)
    for route in routes.values():
        route.replays, route.patience = replays, patience
        route.cache = None if isinstance(route, CountRoute) else cache  # a count costs nothing
    return routes


def _hot_routes(services: Services, max_body_bytes: int) -> dict[str, HotRoute]:
    def route(dialect: str) -> HotRoute:
        return GenerateRoute(services, dialect, max_body_bytes=max_body_bytes)

    def count(counting: Counting) -> HotRoute:
        return CountRoute(services, counting, max_body_bytes=max_body_bytes)

    messages = Counting(
        MESSAGES,
        lambda body, head, _: messages_count(body, head),
        messages_ask,
        counted,
        messages_reply,
    )
    contents = Counting(
        GEMINI,
        lambda body, _, path: gemini_count(body, path),
        gemini_ask,
        gemini_counted,
        gemini_reply,
    )
    gemini = route(GEMINI)
    return {
        "/v1/chat/completions": route(CHAT),
        "/v1/completions": route(COMPLETIONS),
        "/v1/responses": ResponsesRoute(services, max_body_bytes=max_body_bytes),
        "/v1/responses/input_tokens": ResponsesCount(services, max_body_bytes=max_body_bytes),
        "/v1/messages": route(MESSAGES),
        "/v1/messages/count_tokens": count(messages),
        ":countTokens": count(contents),
        ":generateContent": gemini,
        ":streamGenerateContent": gemini,
        "/v1/embeddings": EmbeddingsRoute(services, max_body_bytes=max_body_bytes),
    }


class Gateway:
    """One process's gateway: an ASGI app whose lifespan opens and closes everything."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.book = PriceBook(settings.prices_url, interval_s=settings.prices_every_s, on_change=self._reprice)
        self.history = PolicyHistory(settings.data_dir / "policies.jsonl")
        folder = workers_folder()
        self.policies = Policies(
            settings.policy,
            self.book,
            env=os.environ,
            kept=None if folder is None else KeptText(folder),
            accept=self._accept,
            check=ReplayCheck(settings, self.metrics),
            on_swap=self._swapped,
            on_error=self._not_swapped,
        )
        self.routers = load_routers(settings.router_weights)
        self.services: Services | None = None
        self.front: Front | None = None
        self.dashboard: Dashboard | None = None
        self._loaded(self.policies.current)

    def _accept(self, policy: Policy) -> str | None:
        return NO_KEYS if policy.open_access and not is_loopback(self.settings.host) else None

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """ASGI: the lifespan builds the front, which serves the rest; its own coroutine, and none around it."""
        if scope["type"] == "lifespan":
            return self._lifespan(receive, send)
        assert self.front is not None
        return self.front(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        started = False
        try:
            async with self.running():
                started = True
                await send({"type": "lifespan.startup.complete"})
                await receive()
        except (LedgerUnavailable, OutcomesUnavailable, SnapshotsUnavailable, OSError) as error:
            log.error("the gateway cannot run", error=str(error))
            await send({"type": f"lifespan.{'shutdown' if started else 'startup'}.failed", "message": "see the log"})
            return
        await send({"type": "lifespan.shutdown.complete"})

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Services]:
        """Open the stores, run the background loops, serve; then drain, settle and close."""
        settings, stop = self.settings, asyncio.Event()
        budgets, outcomes = make_budgets(settings), make_outcomes(settings)
        traces = with_spans(settings, make_traces(settings, self.metrics), lambda: self.policies.current)
        await budgets.start()
        await traces.start()
        await outcomes.start()
        follower, salt = await self._follower(snapshots := make_snapshots(settings)), await salt_of(snapshots)
        view, ledger = View(self.policies.current, self.routers, self.book.current), Ledger(budgets, self.metrics)
        upstreams, memory = BridgedUpstreams(make_upstreams(os.environ)), make_memory(settings)
        responses = make_responses(settings)
        services = self.services = Services(view, ledger, upstreams, traces, self.metrics, memory, responses, salt)
        self.history.note(self.policies.current.version, (), time.time())
        aside, figures = Aside(settings), Figures(settings)
        dashboard = self.dashboard = self._dashboard(services, figures)
        circuits = ToldCircuits(make_words(settings, "circuits"), services)
        api = build_api(services, outcomes, aside, dashboard)
        replays = Replays(shared := make_replays(settings, "replays"))
        cache = ReplyCache(services, cached := make_replays(settings, "cache"))
        self.front = self._front(services, replays, cache, api)
        # What is loaded now lives as long as the process: the collector need not walk it, nor run every few requests.
        gc.collect()
        gc.freeze()
        gc.set_threshold(5_000, 20, 500)
        try:
            async with asyncio.TaskGroup() as background:
                loops: list[Callable[[], Awaitable[None]]] = [
                    services.calls.watch,
                    services.keep_metrics,
                    lambda: self.policies.watch(stop),
                    lambda: self.book.run(stop),
                    lambda: _tend_ledger(services),
                    services.explore_budget.keep,
                    *(partial(tend, store) for store in (shared, cached)),
                    lambda: forget(responses),
                    lambda: Measuring(services, aside).keep(settings.data_dir),
                    WindowsUsed(services).keep,
                    lambda: Notices(services, make_replays(settings, "notices")).keep(),
                    *dashboard.loops,
                    circuits.keep,
                    lambda: keep_asking(services, snapshots),
                ]
                if follower is not None:
                    loops.append(follower.follow)
                    if settings.learn and settings.redis_url is None:
                        loops.append(lambda: keep_learning(settings))
                if settings.traces_compact:
                    loops.append(lambda: keep_compacting(settings, traces))
                tasks = [background.create_task(_forever(loop)) for loop in loops]
                self.metrics.workers.set(1)
                yield services
                await services.calls.drain(settings.drain_s)
                stop.set()
                for task in tasks:
                    task.cancel()
        finally:
            await _close(figures, dashboard.others, circuits)
            await services.give_back()
            await _close(upstreams, traces, outcomes, shared, cached, responses, memory, snapshots, budgets)

    def _dashboard(self, services: Services, figures: Figures) -> Dashboard:
        settings = self.settings
        words, whose = make_words(settings), this_gateway(settings.port, workers_folder())
        return Dashboard(
            services, self.policies, figures, Rehearsals(settings), self.history, settings.policy_edit, words, whose
        )

    def _front(self, services: Services, replays: Replays, cache: ReplyCache, api: ASGIApp) -> Front:
        settings = self.settings
        patience = Patience(settings.body_idle_s, settings.body_s)
        routes = hot_routes(services, settings.max_body_bytes, replays, cache, patience)
        return Front(routes, api, self.metrics, patience)

    async def _follower(self, snapshots: Snapshots) -> Follower | None:
        """What keeps the learned router up to date; None where there is none that learns. The gateway begins with what
        is in force, if that can be told at once."""
        base = self.routers.get(LEARNED)
        if not hasattr(base, "demand_of"):
            return None
        await snapshots.start()
        follower = Follower(snapshots, cast("LearnedRouter", base), self.metrics, self._learned, self._arms)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_LOOK_S):
                await follower.look()
        return follower

    def _arms(self) -> list[Arm]:
        return [arm_of(candidate) for candidate in self.policies.current.models.values()]

    def _learned(self, router: Router) -> None:
        self.routers = {**self.routers, LEARNED: router}
        if self.services is not None:
            self.services.swap(View(self.policies.current, self.routers, self.book.current))

    async def _reprice(self) -> None:
        await self.policies.recompile()

    def _loaded(self, policy: Policy) -> None:
        self.metrics.policy_loaded.set(time.time())
        self.metrics.policy_failed.set(0)
        for warning in policy.warnings:
            log.debug("the policy has a weak point", warning=warning)
        for route in policy.routes.values():
            if missing := {route.router, *route.split} - {None, *self.routers}:
                log.warning(
                    "a route names a router that is not there: the heuristic decides",
                    route=route.name,
                    routers=sorted(str(name) for name in missing),
                )

    def _swapped(self, _: Policy, new: Policy, changes: list[str]) -> None:
        self.metrics.policy_swaps.inc()
        self.history.note(new.version, changes, time.time())
        self._loaded(new)
        if self.services is not None:
            self.services.swap(View(new, self.routers, self.book.current))

    def _not_swapped(self, _: tuple[Problem, ...]) -> None:
        self.metrics.policy_failed.set(1)


async def _forever(loop: Callable[[], Awaitable[None]]) -> None:
    """A background loop must not end the gateway: its failure is logged and it starts again."""
    while True:
        try:
            await loop()
            return
        except Exception:
            log.exception("a background loop failed and starts again")
            await asyncio.sleep(1.0)


async def _tend_ledger(services: Services) -> None:
    """Keep this process's lease, end the holds of dead ones and of no call, write what is owed; and show circuits."""
    ledger = services.ledger
    while True:
        services.show_circuits()
        try:
            for expired in await ledger.budgets.beat():
                services.metrics.reservations_expired.inc()
                log.warning("a dead process's reservation was charged and ended", call_id=expired.call_id)
            await ledger.catch_up()
        except LedgerUnavailable as error:
            ledger.is_down(error)
        await asyncio.sleep(HEARTBEAT_S)


def app_from_env() -> Gateway:
    """The ASGI app of one worker, from the environment."""
    settings = Settings()
    configure_logging(settings)
    return Gateway(settings)
