"""The front of the house: a raw ASGI app that keeps hot routes away from everything that costs time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import unquote

from app.core.errors import BursarError
from app.dialects.openai_chat.parse import checked_task_id
from app.http.hot import AsgiDownstream, HotRoute, Receive, Scope, Send, refuse

CHAT = "/v1/chat/completions"
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]


class Front:
    """Sends each request to its hot route or to the API; `/t/TASK/...` names the task in the base URL's path."""

    def __init__(self, chat: HotRoute, embeddings: HotRoute, api: ASGIApp) -> None:
        self._hot: dict[str, HotRoute] = {CHAT: chat, "/v1/embeddings": embeddings}
        self._api = api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "http":
            path: str = scope["path"]
            task = None
            if path.startswith("/t/"):
                try:
                    task, path = split_task(path)
                except BursarError as error:
                    await refuse(AsgiDownstream(send), error)
                    return
                scope = {**scope, "path": path, "raw_path": path.encode()}
            hot = self._hot.get(path)
            if hot is not None and scope["method"] == "POST":
                await hot(scope, receive, send, task)
            else:
                await self._api(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1003})


def split_task(path: str) -> tuple[str, str]:
    """`/t/TASK/v1/...` as (TASK, "/v1/...")."""
    task, slash, rest = path[len("/t/") :].partition("/")
    return checked_task_id(unquote(task), "task in the path"), slash + rest
