"""The hot route: `POST /v1/chat/completions`."""

from __future__ import annotations

from app.core.errors import BadRequest
from app.core.policy import Key
from app.dialects.openai_chat.parse import parse_chat
from app.gateway.call import ChatCall
from app.gateway.limits import ClientCaps
from app.gateway.owned import OwnedCall
from app.http.hot import AsgiDownstream, HotRoute, asked_task, dollars_header, tightest


class ChatRoute(HotRoute):
    """Serves chat completions; one per process."""

    def begin(
        self, headers: dict[str, str], body: bytes, key: Key | None, downstream: AsgiDownstream, path_task: str | None
    ) -> OwnedCall:
        """The call for a request that passed the gate."""
        request = parse_chat(body)
        # An explicit header beats the body's metadata, which beats the base URL's path.
        task_id = asked_task(headers) or request.task_id or path_task
        caps = ClientCaps(
            tightest(dollars_header(headers, "X-Bursar-Max-Cost-Usd"), request.max_cost_nano),
            dollars_header(headers, "X-Bursar-Task-Max-Cost-Usd"),
        )
        record = self.new_record(headers, key, task_id, model=request.model, stream=request.stream)
        return ChatCall(
            self.services, request, downstream, key=key, caps=caps, soft_cut=softness_of(headers), record=record
        )


def softness_of(headers: dict[str, str]) -> bool | None:
    """`X-Bursar-On-Cut`: True for length, False for error, None where the client leaves it to the policy."""
    value = headers.get("x-bursar-on-cut")
    if value is None:
        return None
    if value not in ("length", "error"):
        raise BadRequest("The header X-Bursar-On-Cut must be error or length.", param="X-Bursar-On-Cut")
    return value == "length"
