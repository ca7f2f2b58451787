"""`POST /v1/embeddings` as a raw ASGI handler: the same checks as chat, another call."""

from __future__ import annotations

from collections.abc import Mapping

from app.core.policy import Key
from app.dialects.openai_chat.embeddings import parse_embeddings
from app.gateway.embed import EmbeddingsCall
from app.gateway.owned import OwnedCall
from app.http.asgi import AsgiDownstream
from app.http.caps import client_caps
from app.http.hot import HotRoute
from app.http.whose import task_of


class EmbeddingsRoute(HotRoute):
    """Serves embeddings; one per process."""

    async def serve(
        self,
        headers: dict[str, str],
        body: bytes,
        key: Key | None,
        downstream: AsgiDownstream,
        path_task: str | None,
        path: Mapping[str, str],
    ) -> OwnedCall:
        """The call for a request that passed the gate."""
        request = parse_embeddings(body)
        caps = client_caps(headers, request.max_cost_nano)
        record = self.new_record(headers, key, task_of(headers, None, path_task), model=request.model, stream=False)
        return EmbeddingsCall(self.services, request, downstream, key=key, caps=caps, record=record)
