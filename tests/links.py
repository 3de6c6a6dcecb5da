#!/usr/bin/env python3
"""Every relative link of a Markdown file leads somewhere.

usage: links.py
"""
import os
import re
import sys

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def pages():
    for root, folders, names in os.walk(TOP):
        folders[:] = [x for x in folders if x not in (".git", "build")]
        yield from (os.path.join(root, name) for name in names if name.endswith(".md"))


def main():
    if len(sys.argv) != 1:
        sys.exit(__doc__)
    links, wrong = 0, []
    for page in sorted(pages()):
        with open(page, encoding="utf-8") as f:
            text = re.sub(r"^```.*?^```$", "", f.read(), flags=re.M | re.S)
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
            if "://" in target:
                continue
            links += 1
            if not os.path.exists(os.path.join(os.path.dirname(page), target)):
                wrong.append(f"{os.path.relpath(page, TOP)}: no {target}")
    print("\n".join(wrong) if wrong else f"{links} links lead somewhere")
    sys.exit(1 if wrong or not links else 0)


main()
