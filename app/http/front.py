"""The front of the house: a raw ASGI app that keeps hot routes away from everything that costs time."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import parse_qsl, unquote

from app.core.errors import BursarError, MethodNotAllowed, NotFound
from app.dialects.base import Dialect
from app.dialects.openai_chat.parse import checked_task_id
from app.dialects.registry import GEMINI, dialect_named
from app.gateway.metrics import Metrics
from app.http.asgi import PATIENT, AsgiDownstream, Message, Patience, Receive, Scope, Send, in_time
from app.http.hot import DEPLOYMENT, NO_PATH, HotRoute, new_id_headers, refuse
from app.http.speaking import spoken_at

ALLOW = b"POST, OPTIONS"
TASK_PREFIX = b"/t/"
_GEMINI = re.compile(r"/v1(?:beta|alpha)?/(?:models|tunedModels)/(?P<model>.+):(?P<verb>[A-Za-z]+)")
"""https://ai.google.dev/api/generate-content: the method is part of the last segment."""
_AZURE = re.compile(
    r"/(?:openai|v1)(?:/deployments/(?P<deployment>.+?))?"
    r"(?P<rest>/(?:chat/completions|completions|embeddings|responses(?:/input_tokens)?))"
)
"""How Azure's own clients ask, below whatever URL they are given; a deployment is asked for like a model:
https://learn.microsoft.com/azure/ai-foundry/openai/reference"""
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]


class Front:
    """Sends each request to its hot route or to the API; `/t/TASK/...` names the task in the base URL's path.

    `hot` maps paths to routes; a Gemini verb `V` stands in it as `:V`.
    """

    def __init__(
        self, hot: Mapping[str, HotRoute], api: ASGIApp, metrics: Metrics, patience: Patience = PATIENT
    ) -> None:
        self._hot = hot
        self._patience = patience
        self._api = api
        self._metrics = metrics

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """ASGI: what serves this request, to be awaited; of a hot route its own coroutine, and none around it."""
        if scope["type"] != "http":
            return send({"type": "websocket.close", "code": 1003})
        path: str = scope["path"]
        task = None
        if path.startswith("/t/"):
            try:
                task, raw_path = split_task(scope["raw_path"])
            except BursarError as error:
                return self._refuse(send, error, spoken_at(path, ()))
            path = unquote(raw_path.decode("ascii"))
            scope = {**scope, "path": path, "raw_path": raw_path}
        hot, said = self._hot.get(path), NO_PATH
        if hot is None:
            hot, said = self._by_pattern(path, scope)
        if hot is None:
            if scope["method"] == "POST" and (lost := self._lost(path)) is not None:
                return self._refuse(send, *lost)
            return self._serve_api(scope, receive, send)
        if scope["method"] == "POST":
            return hot(scope, receive, send, task, said)
        if scope["method"] == "OPTIONS":
            return self._allow(send, hot.dialect)
        wrong = MethodNotAllowed("This path does not take that method.", headers={"allow": ALLOW.decode()})
        return self._refuse(send, wrong, hot.dialect)

    def _by_pattern(self, path: str, scope: Scope) -> tuple[HotRoute | None, Mapping[str, str]]:
        """The hot route of a path that names a model, and what the URL says."""
        if ":" in path and (named := _GEMINI.fullmatch(path)) is not None:
            hot = self._hot.get(":" + named["verb"])
            return hot, {**dict(parse_qsl(scope["query_string"].decode("latin-1"))), **named.groupdict()}
        if path.startswith(("/openai/", "/v1/deployments/")) and (named := _AZURE.fullmatch(path)) is not None:
            deployment = named["deployment"]
            return self._hot.get("/v1" + named["rest"]), NO_PATH if deployment is None else {DEPLOYMENT: deployment}
        return None, NO_PATH

    def _lost(self, path: str) -> tuple[BursarError, Dialect] | None:
        """What to tell a client whose base URL is wrong, or who asks for a method of Gemini's that is not here."""
        if (meant := self._meant(path)) is not None:
            known, route = meant
            why = f"There is nothing at this path, but at {known}: the client's base URL is another."
            return NotFound(why), route.dialect
        if _GEMINI.fullmatch(path) is not None:
            return NotFound("There is no such method of models here."), dialect_named(GEMINI)
        return None

    def _meant(self, path: str) -> tuple[str, HotRoute] | None:
        """What a client with a wrong base URL looks for: its path has a `/v1` too many or too few, a slash too many."""
        asked = "/" + "/".join(filter(None, path.split("/")))
        model, _, verb = asked.rpartition(":")
        route = self._hot.get(":" + verb)
        if route is not None and model:
            named = _GEMINI.search(asked)
            return named[0] if named is not None else f"/v1beta/models/{model.rpartition('/')[2]}:{verb}", route
        found = self._hot.items()
        return next(((known, route) for known, route in found if asked.endswith(known) or "/v1" + asked == known), None)

    async def _allow(self, send: Send, dialect: Dialect) -> None:
        headers = [*new_id_headers(dialect), (b"allow", ALLOW)]
        await send({"type": "http.response.start", "status": 204, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    async def _serve_api(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The API's answer, with an id like every other."""

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                names = [name.decode("latin-1") for name, _ in scope["headers"]]
                message["headers"] = [*message["headers"], *new_id_headers(spoken_at(scope["path"], names))]
            await send(message)

        if scope["method"] == "HEAD":
            return await self._serve_head(scope, send_with_id)
        if scope["method"] != "GET":
            receive = in_time(receive, self._patience)
        await self._api(scope, receive, send_with_id)

    async def _serve_head(self, scope: Scope, send: Send) -> None:
        """What GET would say, as far as its head; that ends what would stream for ever."""
        ended = asyncio.Event()

        async def receive() -> Message:
            await ended.wait()
            return {"type": "http.disconnect"}

        async def send_head(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                await send({"type": "http.response.body", "body": b""})
                ended.set()

        await self._api({**scope, "method": "GET"}, receive, send_head)

    async def _refuse(self, send: Send, error: BursarError, dialect: Dialect) -> None:
        self._metrics.errors.labels(error.label).inc()
        await refuse(AsgiDownstream(send), error, dialect)


def split_task(raw_path: bytes) -> tuple[str, bytes]:
    """`/t/TASK/v1/...` as (TASK, b"/v1/..."); decoded after it is split, so that a task id may hold a slash."""
    task, slash, rest = raw_path[len(TASK_PREFIX) :].partition(b"/")
    return checked_task_id(unquote(task.decode("ascii")), "task in the path"), slash + rest
