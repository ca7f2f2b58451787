"""What is stored of the Responses API: `GET` and `DELETE /v1/responses/{id}`, `GET /v1/responses/{id}/input_items`.

Each key sees its own alone: to others there is no such response. Sources:
https://platform.openai.com/docs/api-reference/responses/get, .../delete and .../input-items
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from app.core.errors import BadRequest, NotFound
from app.dialects.openai_responses.stored import Listed, items_in, named, said_in
from app.gateway.services import Services
from app.http.asking import as_json, asked_limit, caller
from app.http.hot import key_name
from app.http.routes import Routes
from app.stores.responses import StoredResponse, TooMuch

LISTED, MOST_LISTED = 20, 100
MOST_READ_BYTES = 32 * 1024 * 1024
ORDERS = ("asc", "desc")


def serve_stored_responses(api: Routes, services: Services) -> None:
    """Add the routes."""
    store = services.responses

    def owner_of(request: Request) -> str:
        key = caller(services, request)
        if services.view.policy.stored_responses is None:
            raise NotFound("No responses are stored here: the policy says nothing of stored_responses.")
        return key_name(key)

    @api.get("/v1/responses/{response_id}")
    async def one(request: Request, response_id: str) -> Response:
        owner = owner_of(request)
        if request.query_params.get("stream", "false") != "false":
            raise BadRequest("A stored response is not streamed again.", param="stream")
        found = await store.get(owner, response_id)
        if found is None:
            raise _not_found()
        return Response(found.body, media_type="application/json")

    @api.post("/v1/responses/compact")
    async def nothing(_: Request) -> Response:
        raise NotFound("There is nothing at this path.")  # nor a response of that name, which takes other methods

    @api.of("/v1/conversations", "GET", "POST")
    @api.of("/v1/conversations/{rest:path}", "GET", "POST", "DELETE")
    async def conversations(_: Request, rest: str = "") -> Response:
        raise NotFound(
            "Conversations are not kept here: go on from a response with previous_response_id, or send the whole"
            " conversation as input."
        )

    @api.delete("/v1/responses/{response_id}")
    async def delete(request: Request, response_id: str) -> Response:
        if not await store.delete(owner_of(request), response_id):
            raise _not_found()
        return as_json({"id": response_id, "object": "response", "deleted": True})

    @api.get("/v1/responses/{response_id}/input_items")
    async def input_items(request: Request, response_id: str) -> Response:
        owner = owner_of(request)
        limit, order = asked_limit(request, LISTED, MOST_LISTED), request.query_params.get("order", "desc")
        if order not in ORDERS:
            raise BadRequest("order must be asc or desc.", param="order")
        try:
            chain = await store.chain(owner, response_id, MOST_READ_BYTES)
        except TooMuch:
            raise BadRequest("The conversation is too long to be listed.") from None
        if not chain:
            raise _not_found()
        items = _input_of(chain)
        return as_json(_page(items if order == "asc" else items[::-1], limit, request.query_params.get("after")))


def _input_of(chain: list[StoredResponse]) -> list[Listed]:
    """All that the last of these was asked with: what led to it, and its own input."""
    found, taken = list[Listed](), set[str]()
    for each in chain:
        said = said_in(each.body) if each is not chain[-1] else []
        found += named([*items_in(each.input), *said], each.id, taken)
    return found


def _page(items: list[Listed], limit: int, after: str | None) -> dict[str, Any]:
    if after is not None:
        place = next((place for place, item in enumerate(items) if item.id == after), None)
        if place is None:
            raise BadRequest("after must be the id of an item in the list.", param="after")
        items = items[place + 1 :]
    page = items[:limit]
    return {
        "object": "list",
        "data": [item.shown() for item in page],
        "first_id": page[0].id if page else None,
        "last_id": page[-1].id if page else None,
        "has_more": len(items) > limit,
    }


def _not_found() -> NotFound:
    return NotFound("The response was not found: no such response of this key is stored, or not any more.")
