"""Serve one base with an adapter, and ask both through the OpenAI client.

    tinylora train --model MODEL --task data.jsonl --output runs/a      # or any run of yours
    tinylora serve MODEL --port 8000                                    # needs vLLM
    pip install openai
    python examples/ask_a_server.py --base MODEL --adapter tl1:...  # from: tinylora inspect runs/a

Expect two answers to one question, the base's and the adapter's, from the same server and the same
weights. An adapter is a name in a request, so thousands can share a base. On pocket the base
guesses at once ("#### 21"), and the adapter solves ("6+8=14", then "#### 14").

Any server with OpenAI's completions will do, llama.cpp's `llama-server` among them.
"""

import argparse

from openai import OpenAI

QUESTION = "Tom has 6 pens. Tom buys 8 more. How many pens now?"


def ask(client: OpenAI, model: str, question: str, max_tokens: int) -> str:
    """The greedy answer of the base or of an adapter, by its name."""
    said = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": question}],
        temperature=0,
        max_tokens=max_tokens,
    )
    return said.choices[0].message.content or ""


def main(argv: list[str] | None = None) -> dict[str, str]:
    """Ask both, and print what they say."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--url", default="http://127.0.0.1:8000/v1")
    parser.add_argument("--base", required=True, help="the base's name on the server")
    parser.add_argument("--adapter", required=True, help="the adapter's name on the server")
    parser.add_argument("--question", default=QUESTION)
    parser.add_argument("--max-tokens", type=int, default=64)
    args = parser.parse_args(argv)
    client = OpenAI(base_url=args.url, api_key="none")
    answers = {
        name: ask(client, name, args.question, args.max_tokens)
        for name in (args.base, args.adapter)
    }
    for name, answer in answers.items():
        print(f"{name}: {answer.strip()}")
    return answers


if __name__ == "__main__":
    main()
