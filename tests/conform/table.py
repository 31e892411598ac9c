"""Prints reports of `spop conform --json` as Markdown: python3 table.py NAME VERSION FILE [NAME VERSION FILE …]"""

import json
import sys

LEVELS = ["must", "should", "survives"]


def read(path):
    with open(path, encoding="utf-8") as lines:
        events = [json.loads(line) for line in lines]
    cases = [event for event in events if event["event"] == "case"]
    return events[0], cases, events[-1]


def cell(counts):
    played = counts["passed"] + counts["failed"] + counts["not_run"]
    rest = f", {counts['not_applicable']} n/a" if counts["not_applicable"] else ""
    return f"{counts['passed']} of {played}{rest}"


arguments = sys.argv[1:]
reports = [(name, version, *read(path)) for name, version, path in zip(*[iter(arguments)] * 3)]

print("| agent | version | announces | must | should | survives | |")
print("|---|---|---|---|---|---|---|")
for name, version, agent, cases, summary in reports:
    announces = f"{agent['max_frame_size']}, {agent['capabilities'] or 'no capability'}"
    cells = " | ".join(cell(summary[level]) for level in LEVELS)
    verdict = "conforms" if summary["conforms"] else "does not conform"
    print(f"| `{name}` | {version} | {announces} | {cells} | {verdict} |")

for name, version, agent, cases, summary in reports:
    failed = [case for case in cases if case["result"] in ("failed", "not-run")]
    if not failed:
        continue
    failed.sort(key=lambda case: LEVELS.index(case["level"]))
    print(f"\n### `{name}` {version}\n")
    print("| level | reference | case | what came |\n|---|---|---|---|")
    for case in failed:
        came = case["came"] or case["reason"] if case["serves"] else case["reason"]
        came = came.replace("another frame: ", "").replace("|", "\\|")
        title = case["title"].replace("|", "\\|")
        print(f"| {case['level']} | {case['reference']} | {title} | {came} |")
