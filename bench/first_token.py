"""Time to the first token and tokens per second through ``/v1/chat/completions``: ``python -m bench first_token``, or with a real model ``python -m bench.first_token --bundle FOLDER --keys FOLDER``.

Without a bundle the model writes a token at once: what is left is the way there and back; ``--small`` is the family's small decoder, untrained. Each answer has a
prompt of its own length. Gate of the small model: first token at most 150 ms.
"""

import argparse
import asyncio
import json
import sys
import time

from bench._gateway import KEY, World

PROMPTS = ["今天天气很好，我们去公园散步吧。", "请问订单什么时候发货？", "写一个标题：公司发布第三季度财报，营收同比增长一成。", "你好"]


async def one(port, prompt, max_tokens):
    """(seconds to the first piece, seconds in all, pieces) of one streamed answer on a connection of its own."""
    body = json.dumps({"model": "bench", "messages": [{"role": "user", "content": prompt}], "stream": True, "max_tokens": max_tokens}).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    start = time.perf_counter()
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-API-Key: %s\r\nContent-Length: %d\r\n\r\n%s" % (KEY.encode(), len(body), body))
    first, pieces = None, 0
    while True:
        line = await reader.readline()
        if not line:
            raise SystemExit("the gateway hung up")
        if b'"content":"' in line and b'"content":""' not in line:
            first = first or time.perf_counter() - start
            pieces += 1
        if line.startswith(b"data: [DONE]"):
            break
    writer.close()
    return first or 0.0, time.perf_counter() - start, pieces


async def load(port, concurrency, n, max_tokens):
    """``n`` answers, ``concurrency`` at a time."""
    gate = asyncio.Semaphore(concurrency)

    async def turn(i):
        async with gate:
            return await one(port, PROMPTS[i % len(PROMPTS)], max_tokens)

    start = time.perf_counter()
    found = await asyncio.gather(*(turn(i) for i in range(n)))
    return found, time.perf_counter() - start


def main(argv=()):
    parser = argparse.ArgumentParser(prog="python -m bench.first_token")
    parser.add_argument("--bundle", help="folder of an unpacked, signed bundle of the task chat or generation")
    parser.add_argument("--keys", help="folder of the trusted public keys")
    parser.add_argument("--small", action="store_true", help="the generator family's small decoder, untrained")
    parser.add_argument("-n", type=int, default=200)
    parser.add_argument("--max-tokens", type=int, default=32)
    asked = parser.parse_args(argv)
    more = {"entry": "wenfang.serve.replica:main", "bundle": asked.bundle, "keys": asked.keys} if asked.bundle else {}
    with World("small" if asked.small else "writer", 1, task="chat", **more) as world:
        print(f"{'c':>3} {'first p50 ms':>12} {'first p99 ms':>12} {'pieces/s each':>13} {'pieces/s':>9} {'gateway CPU ms/piece':>20}")
        for concurrency in (1, 4, 16):
            before = world.cpu_s(world.gateway)
            found, seconds = asyncio.run(load(world.port, concurrency, asked.n, asked.max_tokens))
            firsts = sorted(1000 * first for first, _, _ in found)
            pieces = sum(n for _, _, n in found)
            each = sum(n / whole for _, whole, n in found) / len(found)
            cost = 1000 * (world.cpu_s(world.gateway) - before) / max(1, pieces)
            print(f"{concurrency:3} {firsts[len(firsts) // 2]:12.2f} {firsts[int(0.99 * len(firsts))]:12.2f} {each:13.0f} {pieces / seconds:9.0f} {cost:20.4f}")


if __name__ == "__main__":
    main(sys.argv[1:])
