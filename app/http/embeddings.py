"""`POST /v1/embeddings` as a raw ASGI handler: the same checks as chat, another call."""

from __future__ import annotations

from app.dialects.openai_chat.embeddings import parse_embeddings
from app.gateway.embed import EmbeddingsCall
from app.gateway.owned import OwnedCall
from app.http.caps import client_caps
from app.http.hot import HotRoute, Incoming
from app.http.whose import task_of


class EmbeddingsRoute(HotRoute):
    """Serves embeddings; one per process."""

    async def serve(self, incoming: Incoming) -> OwnedCall:
        request = parse_embeddings(incoming.body)
        whose = task_of(incoming.headers, None, incoming.path_task)
        record = self.new_record(incoming, whose, model=request.model, stream=False)
        if record.view.counts_users:
            self.note_user(record, incoming, request.members)
        return EmbeddingsCall(
            self.services,
            request,
            incoming.downstream,
            key=incoming.key,
            caps=client_caps(incoming.headers, request.max_cost_nano),
            record=record,
        )
