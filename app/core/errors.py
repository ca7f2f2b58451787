"""The flat tree of errors. Each knows its HTTP status, its OpenAI `type` and `code`, whose fault it
is and a low-cardinality label for metrics. Messages carry no amounts and no ids: agents match the
text of a message to decide whether to retry (shared WIRE.md, trap 2)."""

from __future__ import annotations

from typing import ClassVar


class BursarError(Exception):
    """Base of all errors that reach a client."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str | None] = "internal_error"
    blame: ClassVar[str] = "gateway"
    label: ClassVar[str] = "internal"

    def __init__(self, message: str, *, param: str | None = None, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.headers = headers or {}


class BadRequest(BursarError):
    """The request itself is wrong."""

    status, type, code, blame, label = 400, "invalid_request_error", "invalid_request", "client", "bad_request"


class Unauthorized(BursarError):
    """No key, or a key that the policy does not know."""

    status, type, code, blame, label = 401, "invalid_request_error", "invalid_api_key", "client", "unauthorized"


class Forbidden(BursarError):
    """The key is known but may not do this."""

    status, type, code, blame, label = 403, "invalid_request_error", "forbidden", "client", "forbidden"


class NotFound(BursarError):
    """No such path, request or task."""

    status, type, code, blame, label = 404, "invalid_request_error", "not_found", "client", "not_found"


class ModelNotFound(NotFound):
    """No route, tier or model of that name."""

    code, label = "model_not_found", "model_not_found"


class Conflict(BursarError):
    """What was to be changed has changed meanwhile, or cannot be changed here."""

    status, type, code, blame, label = 409, "invalid_request_error", "conflict", "client", "conflict"


class MethodNotAllowed(BursarError):
    """The path exists, the method does not."""

    status, type, code, blame, label = 405, "invalid_request_error", "method_not_allowed", "client", "method"


class TooLarge(BursarError):
    """The body is larger than the gateway accepts."""

    status, type, code, blame, label = 413, "invalid_request_error", "request_too_large", "client", "too_large"


class UnsupportedEncoding(BursarError):
    """The body is compressed in a way that the gateway does not read."""

    status, type, code, blame, label = 415, "invalid_request_error", "unsupported_encoding", "client", "bad_request"


class BodyTimeout(BursarError):
    """The request stopped arriving, or took too long to arrive; in a stream: its reply was not read."""

    status, type, code, blame, label = 408, "invalid_request_error", "request_timeout", "client", "body_timeout"


class ContextTooLong(BadRequest):
    """No candidate has a context window that the request fits into."""

    code, label = "context_length_exceeded", "context_length"


class PreviousNotFound(BadRequest):
    """The response that the request continues is not stored for this key, or no longer."""

    code, label = "previous_response_not_found", "previous_not_found"


class ThreadsNotHeld(BadRequest):
    """The request goes on from turns that its provider would hold (Messages' `thread`): caps and routing need all of
    them. Clients of threads send the whole conversation then."""

    code, label = "thread_unsupported_request", "thread_unsupported"


class NoCandidate(BadRequest):
    """Every candidate lacks a capability that the request needs."""

    code, label = "no_capable_model", "no_candidate"


class Unpriced(BadRequest):
    """A cap applies and the model's price is unknown: spending could not be bounded."""

    code, label = "unpriced_model", "unpriced"


class UnpricedTool(Unpriced):
    """A cap applies, and neither policy nor catalogue says what a tool costs that the provider runs and bills by the
    use."""

    code, label = "unpriced_tool", "unpriced_tool"


class BudgetExceeded(BursarError):
    """A hard cap is reached: 402, never retried. `final`: the task was cut before, so nothing cheaper helps.
    `lacking_nano`: how much more than is left the call would have needed."""

    final: bool = False
    lacking_nano: int = 0

    status, type, code, blame, label = 402, "insufficient_quota", "budget_exceeded", "client", "budget"


class TaskStopped(BudgetExceeded):
    """A task's other limits: calls, tokens, time, repeats, or its owner's word. To a client the same as a cap in
    dollars; `reason` is one of core/terms.py's, or repeats."""

    label = "task_stopped"

    def __init__(self, message: str, reason: str, *, headers: dict[str, str] | None = None) -> None:
        super().__init__(message, headers=headers)
        self.reason = reason
        self.final = True


class BudgetContended(BursarError):
    """Room exists but other calls hold it, or the window refills shortly: waiting helps. `final`: and nothing else
    does, no cheaper model and no smaller hold."""

    final: bool = False

    status, type, code, blame, label = 429, "rate_limit_exceeded", "budget_contended", "client", "contended"


class RateLimited(BudgetContended):
    """The key, its team or everybody has had its calls or tokens of this minute; `Retry-After` says when the next
    begins."""

    final = True

    code, label = "rate_limit_exceeded", "rate"


class TooManyAtOnce(RateLimited):
    """Too many requests of the task, the key, its team or everybody run at a time, and none ended while this one
    waited."""

    code, label = "too_many_parallel_requests", "parallel"


class LedgerDown(BursarError):
    """The ledger does not answer, and the policy says `on_failure: closed`."""

    status, type, code, blame, label = 503, "server_error", "ledger_unavailable", "gateway", "ledger_down"


class Draining(BursarError):
    """The gateway is shutting down."""

    status, type, code, blame, label = 503, "server_error", "shutting_down", "gateway", "draining"


class UpstreamError(BursarError):
    """Every candidate failed, or the chosen one failed in a way that no other could help with."""

    status, type, code, blame, label = 502, "server_error", "upstream_error", "provider", "upstream"


class UpstreamTimeout(UpstreamError):
    """A deadline passed before the upstream answered, or in a stream before it had ended its answer."""

    status, code, label = 504, "upstream_timeout", "timeout"


class UpstreamBusy(UpstreamError):
    """Every candidate is rate-limited or overloaded; `Retry-After` says how long."""

    status, type, code, label = 429, "rate_limit_exceeded", "rate_limit_exceeded", "rate_limit"


class UpstreamQuota(UpstreamError):
    """The operator's account at the provider is out of credit or its key is refused."""

    code, label = "upstream_account", "quota"


class UpstreamRejected(BursarError):
    """The provider judged the request itself wrong; its status and error object go to the client as they came."""

    status, type, blame, label = 400, "invalid_request_error", "client", "rejected"
    code: ClassVar[str | None] = None

    def __init__(
        self, message: str, *, upstream_status: int, body: bytes, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message, headers=headers)
        self.upstream_status = upstream_status
        self.body = body


class UpstreamTooLong(UpstreamRejected):
    """The provider said that the request does not fit into the model's context window."""


class SaidTooOften(BursarError):
    """This key sends feedback too fast; `Retry-After` says when to send more."""

    status, type, code, blame, label = 429, "rate_limit_exceeded", "rate_limit_exceeded", "client", "feedback_rate"


class FeedbackDown(BursarError):
    """The store of feedback does not answer; the feedback may not have been stored."""

    status, type, code, blame, label = 503, "server_error", "outcomes_unavailable", "gateway", "outcomes_down"


class ResponsesDown(BursarError):
    """The store of responses does not answer."""

    status, type, code, blame, label = 503, "server_error", "responses_unavailable", "gateway", "responses_down"


class TracesDown(BursarError):
    """Traces, or the feedback on them, cannot be read now."""

    status, type, code, blame, label = 503, "server_error", "traces_unavailable", "gateway", "traces_down"


class TooManyWatch(BursarError):
    """Too many dashboards are open."""

    status, type, code, blame, label = 503, "server_error", "too_many_viewers", "gateway", "viewers"
