"""An engine that takes no time, as a process: `POST /v1/chat/completions` in OpenAI's form, streamed or not.

    python tests/bench_upstream.py TOKENS GAP_MS

Prints its port. As little work as can be, since every gateway is measured in front of it on the same cores: an answer
is bytes made once; a stream has a token every `GAP_MS`, no more than `max_tokens` of them.
"""

import asyncio
import contextlib
import json
import sys

MODEL = "m"
WORD = " word"
"""With a number behind it where it is streamed: LiteLLM ends a stream that says the same again and again."""


def chunk(data: bytes) -> bytes:
    """A piece of a body that comes in pieces."""
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def event(delta: dict[str, str], finish: str | None = None, usage: dict[str, int] | None = None) -> bytes:
    """A streamed event in OpenAI's form."""
    choices = [] if usage else [{"index": 0, "delta": delta, "finish_reason": finish}]
    told = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": MODEL, "choices": choices}
    return b"data: " + json.dumps(told | ({"usage": usage} if usage else {})).encode() + b"\n\n"


def whole(tokens: int) -> bytes:
    """The answer that is not streamed."""
    message = {"role": "assistant", "content": WORD * tokens}
    usage = {"prompt_tokens": 8, "completion_tokens": tokens, "total_tokens": 8 + tokens}
    told = {"id": "c", "object": "chat.completion", "created": 1, "model": MODEL, "usage": usage}
    return json.dumps(told | {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}).encode()


def reply(body: bytes, status: str = "200 OK") -> bytes:
    """A whole answer in JSON."""
    return f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


class Upstream:
    """What it answers, made once."""

    def __init__(self, tokens: int, gap_s: float) -> None:
        self.gap_s = gap_s
        self.answer = reply(whole(tokens))
        self.models = reply(json.dumps({"object": "list", "data": [{"id": MODEL, "object": "model"}]}).encode())
        self.absent = reply(b"{}", "404 Not Found")
        self.tokens = [chunk(event({"content": f"{WORD}{number}"})) for number in range(tokens)]
        self.begin = chunk(event({"role": "assistant", "content": ""}))
        usage = {"prompt_tokens": 8, "completion_tokens": tokens, "total_tokens": 8 + tokens}
        self.end = chunk(event({}, "stop")) + chunk(event({}, usage=usage)) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
        self.head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A connection, until the other end hangs up."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = head.partition(b"content-length:")[2].split(b"\r\n", 1)[0]
                body = await reader.readexactly(int(length)) if length else b""
                if head.startswith(b"post") and b'"stream":true' in body.replace(b" ", b""):
                    await self._stream(writer, int(json.loads(body).get("max_tokens") or len(self.tokens)))
                else:
                    path = head.split(b" ", 2)[1]
                    known = self.answer if head.startswith(b"post") else self.models
                    writer.write(known if path.startswith(b"/v1") else self.absent)
                    await writer.drain()
        writer.close()

    async def _stream(self, writer: asyncio.StreamWriter, tokens: int) -> None:
        writer.write(self.head + self.begin)
        due_s = asyncio.get_running_loop().time()
        for piece in self.tokens[:tokens]:
            writer.write(piece)
            await writer.drain()
            if self.gap_s:
                due_s += self.gap_s
                await asyncio.sleep(max(0.0, due_s - asyncio.get_running_loop().time()))
        writer.write(self.end)
        await writer.drain()


async def main(tokens: int, gap_ms: float) -> None:
    """Serve until ended."""
    upstream = Upstream(tokens, gap_ms / 1e3)
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2])))
