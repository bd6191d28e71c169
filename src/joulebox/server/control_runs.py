"""The control prompts of the nodes on their way through the queue: asked when due, entered in the node's book."""

import json
from dataclasses import replace
from datetime import datetime

from joulebox.clock import Clock
from joulebox.model import NodeControl
from joulebox.protocol import LeaseRequest
from joulebox.server import control
from joulebox.server.jobs import NODE_PREFIX, RANKS, Attempt, Delivery, Queue
from joulebox.settings import Settings


class ControlRuns:
    """What is due is decided in `control`; here it is asked for and written down."""

    def __init__(self, queue: Queue, settings: Settings, clock: Clock) -> None:
        self._queue = queue
        self._settings = settings
        self._clock = clock
        self._stands: dict[str, NodeControl | None] = {}

    async def asked(self, request: LeaseRequest, joined: datetime, idle_since: datetime) -> bool:
        """Put the control prompt of a node that nobody has asked for a while into the line, where it is due."""
        now = self._clock.utc()
        idle_s = (now - idle_since).total_seconds()
        every_s, prompts = self._settings.control_every_s, self._settings.control_prompts
        if not every_s or idle_s < control.IDLE_S or not control.metered(request):
            return False
        book = await self._queue.control(request.node)
        model = control.model_for(request, book)
        if model is None or not control.is_due(book, joined, now, every_s, prompts):
            return False
        placement, rank = NODE_PREFIX + request.node, RANKS["control"]
        await self._queue.enqueue(control.prompt_for(model), placement, None, now, "control", rank=rank)
        return True

    async def stands(self, request: LeaseRequest) -> NodeControl | None:
        """Where a node stands; `None` where it has no meter, or its control prompt never ran."""
        if not control.metered(request):
            return None
        if request.node not in self._stands:
            self._stands[request.node] = control.control_of(await self._queue.control(request.node))
        return self._stands[request.node]

    def forget(self, node: str | None = None) -> None:
        """Look it up again, for this node or for all."""
        if node is None:
            self._stands.clear()
        self._stands.pop(node or "", None)

    async def entered(self, attempt: Attempt, delivery: Delivery) -> Delivery:
        """A control run with its place in the node's book."""
        book = await self._queue.control(attempt.node)
        receipt = json.loads(delivery.receipt.body) if delivery.receipt else None
        found = control.entry(book, attempt.job_id, attempt.node, receipt, self._clock.utc())
        return replace(delivery, control=found)
