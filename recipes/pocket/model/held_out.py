"""A text for `tinylora eval --side-effects --text` on the pocket model.

    python recipes/pocket/model/held_out.py > pages.txt

Pages as in pre-training, by authors of all habits, on skeletons of the test split, which the model
has not read. The pocket model knows no other text.
"""

import argparse
import random

from pages import draw_page
from tokenizer import ASSISTANT, END, USER

NUM_PROBLEMS = 4  # of a page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pages", type=int, default=200, help="how many")
    pages = parser.parse_args().pages
    for index in range(pages):
        page = draw_page(random.Random(f"held out {index}"), NUM_PROBLEMS, "test")
        print("".join(f"{USER}{problem}{ASSISTANT}{answer}{END}" for problem, answer in page))
        print()


if __name__ == "__main__":
    main()
