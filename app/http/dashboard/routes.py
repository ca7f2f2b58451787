"""The dashboard over HTTP: its page for anyone who can connect, its data for operators."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse

from app.core.errors import BadRequest, BursarError, NotFound, TooManyWatch
from app.gateway.services import Services
from app.http.asking import asked_limit
from app.http.dashboard.ask import LONGEST_S, MAX_CALLS, Ask, Burn, Find, Learning, Overview, Replay, Speed
from app.http.dashboard.assets import FOR_EVER, GUARDED, MOUNT, Asset, assets, index, version
from app.http.dashboard.budgets import budgets_json
from app.http.dashboard.explained import explained
from app.http.dashboard.gate import Gate, as_json, raw_json
from app.http.dashboard.kept import Kept
from app.http.dashboard.live import Broadcast, TooManyViewers
from app.http.dashboard.now import Whose, moment, own_word
from app.http.dashboard.others import Others
from app.http.dashboard.policy import serve_policy
from app.http.hot import key_name
from app.http.routes import Routes
from app.stores.policies import Policies
from app.stores.policy_history import PolicyHistory
from app.stores.words import Words

SINCE_STEP_S = 10.0
MAX_TEXT_CHARS = 300


@dataclass(slots=True)
class Dashboard:
    """What the dashboard needs of its gateway."""

    services: Services
    policies: Policies
    ask: Ask
    replay: Replay
    history: PolicyHistory
    editable: bool
    words: Words | None
    whose: Whose
    gate: Gate = field(init=False)
    live: Broadcast = field(init=False)
    others: Others = field(init=False)
    answer: Kept = field(init=False)

    def __post_init__(self) -> None:
        self.answer = Kept(self.ask)
        self.gate = Gate(self.services)
        self.others = Others(self.words, lambda: own_word(self.services, self.whose))
        self.live = Broadcast(lambda: moment(self.services, self.policies, self.others, self.whose))

    @property
    def loops(self) -> tuple[Callable[[], Awaitable[None]], ...]:
        """What runs for it while the gateway does."""
        return self.live.run, self.others.run


def serve_dashboard(api: Routes, dashboard: Dashboard) -> None:
    """Add the routes."""
    _serve_page(api)
    guarded = dashboard.gate.routes()
    _serve_live(guarded, dashboard)
    _serve_figures(guarded, dashboard)
    of = dashboard
    serve_policy(guarded, of.gate, of.policies, of.history, of.replay, editable=of.editable)
    api.added += guarded.added


def _serve_page(api: Routes) -> None:
    @api.get("/")
    async def front_door(request: Request) -> Response:
        """People with a browser are shown the way; programs are told what they always are."""
        if "text/html" not in request.headers.get("accept", ""):
            raise NotFound("There is nothing at this path.")
        return RedirectResponse(MOUNT, headers={**GUARDED, "vary": "accept"})

    @api.get(MOUNT)
    @api.get(f"{MOUNT}/")
    async def page(request: Request) -> Response:
        tag = f'"{version()}"'
        headers = {"cache-control": "no-cache", "etag": tag}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers={**GUARDED, **headers})
        return _file(request, index(), headers)

    @api.get(f"{MOUNT}/assets/{{of}}/{{path:path}}")
    async def asset(request: Request, of: str, path: str) -> Response:
        found = assets().get(path) if of == version() else None
        if found is None:
            raise NotFound("There is no such file of the dashboard.")
        return _file(request, found, {"cache-control": FOR_EVER})


def _file(request: Request, found: Asset, headers: dict[str, str]) -> Response:
    headers = {**GUARDED, **headers, "vary": "accept-encoding"}
    if found.squeezed is not None and "gzip" in request.headers.get("accept-encoding", ""):
        return Response(found.squeezed, headers={**headers, "content-encoding": "gzip"}, media_type=found.kind)
    return Response(found.data, headers=headers, media_type=found.kind)


def _serve_live(guarded: Routes, dashboard: Dashboard) -> None:
    @guarded.get("/session")
    async def session(request: Request) -> Response:
        key = dashboard.gate.operator(request)
        policy = dashboard.services.view.policy
        return as_json({"key": key_name(key), "open": policy.open_access, "policy": policy.version})

    async def while_allowed(frames: AsyncGenerator[bytes], request: Request) -> AsyncIterator[bytes]:
        """A stream outlives the policy it began under: the next one may have no such key. And a key may expire."""
        async with contextlib.aclosing(frames):
            async for frame in frames:
                try:
                    dashboard.gate.operator(request)
                except BursarError:
                    return
                yield frame

    @guarded.get("/live")
    async def live(request: Request) -> Response:
        try:
            frames = dashboard.live.join()
        except TooManyViewers:
            raise TooManyWatch(
                "Too many dashboards are open; close one and try again.", headers={"retry-after": "30"}
            ) from None
        headers = {**GUARDED, "cache-control": "no-store", "x-accel-buffering": "no"}
        return StreamingResponse(while_allowed(frames, request), headers=headers, media_type="text/event-stream")

    @guarded.get("/budgets")
    async def budgets(_: Request) -> Response:
        return as_json(await budgets_json(dashboard.services, dashboard.answer))


def _serve_figures(guarded: Routes, dashboard: Dashboard) -> None:
    @guarded.get("/overview")
    async def overview(request: Request) -> Response:
        return raw_json(await dashboard.answer(Overview(_since(request))))

    @guarded.get("/speed")
    async def speed(request: Request) -> Response:
        return raw_json(await dashboard.answer(Speed(_since(request))))

    @guarded.get("/learning")
    async def learning(request: Request) -> Response:
        return raw_json(await dashboard.answer(Learning(_since(request))))

    @guarded.get("/calls")
    async def calls(request: Request) -> Response:
        asked = request.query_params
        limit = asked_limit(request, 50, MAX_CALLS)
        words = {name: _text(asked.get(name), name) for name in ("text", "key", "task", "model", "outcome")}
        return raw_json(await dashboard.answer(Find(_since(request), limit, **words)))

    @guarded.get("/record/{request_id}")
    async def record(_: Request, request_id: str) -> Response:
        found = await explained(dashboard.services, dashboard.answer, _text(request_id, "request_id") or "")
        if found is None:
            raise NotFound("No such request is on record.")
        return as_json(found)

    @guarded.get("/burn")
    async def burn(request: Request) -> Response:
        asked = request.query_params
        whose = {name: _text(asked.get(name), name) for name in ("key", "team", "task")}
        question = Burn(_since(request), **whose)
        return raw_json(await dashboard.answer(question))


def _since(request: Request) -> float:
    """`since` as seconds before now, or `from` as Unix time; in steps, so that answers can be shared."""
    now_s = time.time()
    asked = request.query_params
    try:
        since_s = float(asked["from"]) if "from" in asked else now_s - float(asked.get("since", "86400"))
    except ValueError:
        raise BadRequest("since and from must be numbers of seconds.", param="since") from None
    if not now_s - LONGEST_S <= since_s <= now_s:
        raise BadRequest("since must lie within the last year.", param="since")
    return since_s // SINCE_STEP_S * SINCE_STEP_S


def _text(value: str | None, name: str) -> str | None:
    if value is not None and len(value) > MAX_TEXT_CHARS:
        raise BadRequest(f"{name} is too long.", param=name)
    return value
