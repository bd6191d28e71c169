"""What a server does beside answering: one task a piece, from start to stop."""

import asyncio


class Background:
    """A task of its own. Who inherits says in `_run` what it does, without end."""

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """End at once, whatever it waits for; one that never began has nothing to end."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        raise NotImplementedError
