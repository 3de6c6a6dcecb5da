#!/usr/bin/env python3
"""Say what a CTest run skipped and why, and count.

usage: ctest_summary.py REPORT.xml   (from ctest --output-junit)

The reason of a skip is the last line that the test wrote. The last line printed here is
"N passed, N failed, N skipped". A report that is missing or unreadable counts as one failure.
"""
import sys
import xml.etree.ElementTree as xml


def reason(case):
    lines = [line.strip() for line in (case.findtext("system-out") or "").splitlines()]
    lines = [line for line in lines if line]
    return lines[-1] if lines else "it did not say why"


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        cases = list(xml.parse(sys.argv[1]).getroot().iter("testcase"))
    except (OSError, xml.ParseError) as e:
        print(f"no report of the tests: {e}\n0 passed, 1 failed, 0 skipped")
        return
    passed = failed = skipped = 0
    for case in cases:
        skip = case.find("skipped")
        # A program that is not there is "skipped" for CTest too; here it is a failure.
        if case.get("status") == "disabled" or (skip is not None and "SKIP_" in skip.get("message", "")):
            skipped += 1
            print(f"skipped  {case.get('name')}: {reason(case)}")
        elif case.get("status") == "run":
            passed += 1
        else:
            failed += 1
            print(f"FAILED   {case.get('name')}")
    print(f"{passed} passed, {failed} failed, {skipped} skipped")


main()
