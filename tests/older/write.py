"""Writes the database that the server of an earlier commit leaves, as SQL, run by that commit's own code:

git archive COMMIT src tests | tar -x -C FOLDER
PYTHONPATH=FOLDER/src:FOLDER/tests python tests/older/write.py > tests/older/SCHEMA.sql
"""

import asyncio
import sqlite3
from pathlib import Path
from tempfile import TemporaryDirectory

from server_stage import Stage, done, stage, story

WORDS = ("Hel", "lo")


async def answered(scene: Stage, prompt: str) -> None:
    """A prompt, and what a node delivers for it."""
    asked = await scene.ask(prompt)
    lease = await scene.lease()
    async with scene.hold(lease):
        await scene.send(lease, story(*WORDS))
        await scene.finish(lease, done(lease, *WORDS))
    await scene.until(asked["id"], "completed")


async def live(folder: Path) -> None:
    """A server that answers two prompts and is stopped while a third one waits."""
    async with stage(folder) as scene:
        await scene.join()
        for prompt in ("Why is the sky blue?", "What is water?"):
            await answered(scene, prompt)
        await scene.ask("Count to three.")


def main() -> None:
    """Print its database."""
    with TemporaryDirectory() as folder:
        asyncio.run(live(Path(folder)))
        connection = sqlite3.connect(Path(folder) / "joulebox.db")
        print("\n".join(connection.iterdump()))
        connection.close()


if __name__ == "__main__":
    main()
