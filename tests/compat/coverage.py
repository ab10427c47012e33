"""Runs onnx's node tests and writes docs/coverage.md: python -m tests.compat.coverage.

Per operator: whether it is native, how many tests passed natively or with a fallback, and what
failed or was left out, with the reason.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import datetime
import importlib.metadata
import re
import warnings
from collections.abc import Iterable
from pathlib import Path

from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.loader import load_model_tests
from onnx.backend.test.runner import Runner, _normalize_tensor

from sparsert.compat import onnx_backend
from tests.compat.exclusions import FAILING, OUT_OF_SCOPE

PAGE = Path(__file__).resolve().parents[2] / "docs" / "coverage.md"
# Options of every run: one thread, nothing measured.
OPTIONS = {"tune": False, "threads": 1}


@dataclasses.dataclass(frozen=True)
class Result:
    """How one test went.

    Attributes:
        name: of the test.
        op: what it tests; the function's name for tests of expanded functions.
        state: "native", "fallback", "failed" or "left out".
        reason: why it is not native.
    """

    name: str
    op: str
    state: str
    reason: str = ""


def reason_in(patterns: Iterable[tuple[str, str]], name: str) -> str | None:
    """Returns the reason of the first pattern that fits a test's name."""
    return next((reason for pattern, reason in patterns if re.search(pattern, name)), None)


def node_cases() -> list[TestCase]:
    """Returns onnx's node tests, each once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some are made with deprecated calls
        return list({case.name: case for case in load_model_tests(kind="node")}.values())


def run_case(case: TestCase) -> tuple[str, str]:
    """Runs one test; it must pass.

    Returns:
        ("native", "") or ("fallback", why).
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        prepared = onnx_backend.prepare(case.model, **OPTIONS)
        for inputs, expected in case.data_sets:
            outputs = prepared.run([_normalize_tensor(x) for x in inputs])
            wanted = [_normalize_tensor(y) for y in expected]
            Runner.assert_similar_outputs(wanted, list(outputs), case.rtol, case.atol)
    texts = [str(w.message) for w in caught if "runs partly by fallback" in str(w.message)]
    if not texts:
        return "native", ""
    reasons = re.findall(r"\(([\w.:]+)\): ([^\n]*)", texts[0].split("\n", 1)[-1])
    return "fallback", "; ".join(dict.fromkeys(f"{op}: {why}" for op, why in reasons))


def op_of(case: TestCase) -> str:
    """Names the operator that a test is for."""
    nodes = case.model.graph.node
    ops = {node.op_type for node in nodes}
    if "_expanded" in case.name and len(nodes) != 1:
        return "functions, expanded"
    if len(ops) == 1:
        domain = nodes[0].domain
        return f"{domain}.{nodes[0].op_type}" if domain else nodes[0].op_type
    last = [node.op_type for node in nodes if node.op_type not in ("Constant", "Identity")]
    return last[-1] if last else nodes[-1].op_type


def measure(cases: Iterable[TestCase]) -> list[Result]:
    """Runs the tests in scope."""
    results = []
    for case in cases:
        op = op_of(case)
        outside = reason_in(OUT_OF_SCOPE, case.name)
        if outside is not None:
            results.append(Result(case.name, op, "left out", outside))
            continue
        try:
            state, reason = run_case(case)
        except Exception as error:
            state, reason = "failed", str(error).strip().split("\n", 1)[0]
            reason = reason_in(FAILING, case.name) or reason
        results.append(Result(case.name, op, state, reason))
    return results


def to_markdown(results: list[Result], when: str) -> str:
    """Returns the page."""
    count = collections.Counter(result.state for result in results)
    scope = len(results) - count["left out"]
    passed = count["native"] + count["fallback"]
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in ("onnx", "onnxruntime", "numpy")
    )
    lines = [
        "# Coverage of ONNX",
        "",
        f"Written by `make coverage` on {when} with {versions}: the node tests of the onnx package",
        "through `sparsert.compat.onnx_backend`, on one thread, without tuning.",
        "",
        "| | tests | share of those in scope |",
        "|---|--:|--:|",
        f"| in scope | {scope} | |",
        f"| pass | {passed} | {passed / scope:.1%} |",
        f"| pass, all nodes native | {count['native']} | {count['native'] / scope:.1%} |",
        f"| pass with a fallback | {count['fallback']} | {count['fallback'] / scope:.1%} |",
        f"| fail | {count['failed']} | {count['failed'] / scope:.1%} |",
        f"| out of scope, not run | {count['left out']} | |",
        "",
        "A fallback runs a node with ONNX Runtime if it is installed, else with onnx's reference",
        "evaluator, and says so in a warning; `strict=True` makes it an error.",
        "",
        "## By operator",
        "",
        "native: all its tests run natively; in part: some do.",
        "",
        "| operator | runs | native | fallback | fail | why not native |",
        "|---|---|--:|--:|--:|---|",
    ]
    by_op: dict[str, list[Result]] = {}
    for result in results:
        if result.state != "left out":
            by_op.setdefault(result.op, []).append(result)
    for op in sorted(by_op, key=str.lower):
        lines.append(_op_row(op, by_op[op]))
    lines += ["", "## Failing", "", "| test | why |", "|---|---|"]
    lines += [f"| {r.name} | {_cell(r.reason)} |" for r in results if r.state == "failed"]
    lines += ["", "## Out of scope", "", "| why | tests |", "|---|--:|"]
    left_out = collections.Counter(r.reason for r in results if r.state == "left out")
    lines += [f"| {reason} | {tests} |" for reason, tests in sorted(left_out.items())]
    return "\n".join(lines) + "\n"


def _op_row(op: str, results: list[Result]) -> str:
    count = collections.Counter(result.state for result in results)
    if count["native"] == len(results):
        state = "native"
    elif count["native"]:
        state = "in part native"
    elif count["fallback"]:
        state = "by fallback"
    else:
        state = "not"
    whys: collections.Counter[str] = collections.Counter()
    for result in results:
        if result.state == "fallback":
            whys.update(_general(why) for why in result.reason.split("; "))
    shown = [f"{why} ({n})" if n > 1 else why for why, n in whys.most_common(3)]
    numbers = f"{count['native']} | {count['fallback']} | {count['failed']}"
    return f"| {op} | {state} | {numbers} | {_cell('; '.join(shown))} |"


def _general(reason: str) -> str:
    """Leaves the names of tensors out of a reason."""
    return re.sub(r"(input|with|of)? ?'[^']*'", lambda m: f"{m[1] or 'a tensor'}", reason)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> None:
    """Writes the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--print", action="store_true", help="print the totals; write nothing")
    options = parser.parse_args()
    results = measure(node_cases())
    today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    page = to_markdown(results, today)
    if options.print:
        print(page.split("## By operator", 1)[0])
        return
    PAGE.write_text(page, encoding="utf-8")
    print(f"{PAGE}: {collections.Counter(result.state for result in results)}")


if __name__ == "__main__":
    main()
