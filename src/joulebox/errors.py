"""Every failure Joulebox names: a code, an HTTP status, an exit code, what it means and what to do.

A `JouleboxError` carries one clear sentence for the person (what is wrong, what to do). The table below is the only
place where codes are made; `docs/reference/errors.md` is generated from it.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One row of the table: `definite` says that the failure certainly left nothing behind (after maelstrom)."""

    status: int
    exit_code: int
    title: str
    definite: bool = True


REGISTRY: Final[dict[str, Failure]] = {
    # what people send
    "bad_request": Failure(status=422, exit_code=2, title="The request is not well formed"),
    "empty_prompt": Failure(status=422, exit_code=2, title="The prompt is empty"),
    "prompt_too_long": Failure(status=422, exit_code=2, title="The prompt does not fit the model's context"),
    "unknown_model": Failure(status=404, exit_code=2, title="No node has this model"),
    "no_recommendation": Failure(status=409, exit_code=1, title="No model can be recommended yet"),
    "no_node": Failure(status=503, exit_code=1, title="No node has joined yet"),
    "not_found": Failure(status=404, exit_code=2, title="There is no such thing"),
    "not_ready": Failure(status=409, exit_code=1, title="The receipt is not there yet"),
    "not_supported": Failure(status=422, exit_code=2, title="This is not supported"),
    "missing_extra": Failure(status=501, exit_code=1, title="An optional part is not installed"),
    "unauthorized": Failure(status=401, exit_code=1, title="A token is needed"),
    "forbidden": Failure(status=403, exit_code=1, title="That is not for you"),
    "too_many_requests": Failure(status=429, exit_code=1, title="Too many requests"),
    "quota_used": Failure(status=429, exit_code=1, title="The quota is used up"),
    "body_too_large": Failure(status=413, exit_code=2, title="The request is too large"),
    "method_not_allowed": Failure(status=405, exit_code=2, title="This address does not take that method"),
    "internal": Failure(status=500, exit_code=1, title="Something broke inside Joulebox", definite=False),
    # server and client
    "no_server": Failure(status=503, exit_code=1, title="No server answers"),
    "untrusted_server": Failure(status=502, exit_code=1, title="The server's certificate is not trusted"),
    "port_in_use": Failure(status=500, exit_code=1, title="The port is taken"),
    "unknown_zone": Failure(status=422, exit_code=2, title="The grid zone is not in the table"),
    "bad_setting": Failure(status=422, exit_code=2, title="A setting cannot be used"),
    "database": Failure(status=503, exit_code=1, title="The database cannot be used", definite=False),
    # nodes
    "node_name_taken": Failure(status=409, exit_code=1, title="Another node already uses this name"),
    "stale_attempt": Failure(status=409, exit_code=1, title="This attempt is over"),
    "bad_evidence": Failure(status=422, exit_code=1, title="The evidence cannot be read"),
    "protocol_version": Failure(status=426, exit_code=1, title="Node and server speak different versions"),
    "too_many_attempts": Failure(status=500, exit_code=1, title="The prompt failed on every attempt"),
    "attempt_too_long": Failure(status=500, exit_code=1, title="The attempt took longer than any may"),
    "cancelled": Failure(status=409, exit_code=1, title="The prompt was cancelled"),
    "energy_interrupted": Failure(status=500, exit_code=1, title="The measurement was cut off"),
    # engines and models
    "pictures_missing": Failure(status=501, exit_code=1, title="PNG pictures are not installed"),
    "engine_missing": Failure(status=500, exit_code=1, title="The inference engine is not installed"),
    "engine_died": Failure(status=500, exit_code=1, title="The inference engine stopped", definite=False),
    "broken_model": Failure(status=422, exit_code=1, title="The model file cannot be loaded"),
    "model_too_big": Failure(status=422, exit_code=1, title="The model does not fit this node's memory"),
    "model_fetch": Failure(status=502, exit_code=1, title="The model could not be fetched"),
    # the benchmark
    "bad_task": Failure(status=422, exit_code=2, title="A task or an answer cannot be read"),
    "bad_campaign": Failure(status=422, exit_code=2, title="A campaign's file cannot be used"),
    # meters
    "unknown_meter": Failure(status=422, exit_code=2, title="There is no such kind of meter"),
    "meters_in_use": Failure(status=409, exit_code=1, title="A node reads these meters"),
    "meter_unreadable": Failure(status=500, exit_code=1, title="A meter cannot be read"),
}


class JouleboxError(Exception):
    """A failure with a name. `str(error)` is the sentence for the person.

    `code` must stand in `REGISTRY`; `extra` goes into the problem document beside it (figures, lists of choices).
    """

    def __init__(self, code: str, detail: str, /, **extra: object) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.extra = extra
        self.failure = REGISTRY[code]
