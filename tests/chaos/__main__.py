"""Faults by the dozen against three workers under load; then every bar is compared with an oracle.

    python -m tests.chaos --faults 100 --seed 7
    python -m tests.chaos --faults 20 --seed 1 --delivery exactly_once --json

Apache Kafka and PostgreSQL run in containers of their own. Exit status 1 where anything is wrong.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # where pytest finds `support`

from chaos import report
from chaos.faults import ALL
from chaos.start import Options, run_chaos


def main() -> int:
    """Run, and report."""
    options = _options()
    stop = _Stop()
    say = _Progress()
    kinds = [fault.kind for fault in ALL if options.only is None or fault.kind.name in options.only]
    try:
        outcome = run_chaos(
            Options(
                seed=options.seed,
                faults=options.faults,
                kinds=tuple(kinds),
                delivery=options.delivery,
                ticks_per_s=options.ticks_per_s,
                instruments=options.instruments,
            ),
            say,
            stop.check,
            options.logs,
        )
    except KeyboardInterrupt:
        print("stopped; containers and workers are gone", file=sys.stderr)
        return 130
    if options.json:
        print(json.dumps(report.figures(outcome), indent=2))
    else:
        print(report.markdown(outcome) if options.markdown else report.text(outcome))
    if not outcome.verdict.good:
        print("\n".join(outcome.verdict.lines(outcome.timeline)), file=sys.stderr)
    return 0 if outcome.verdict.good else 1


class _Stop:
    """Ctrl-C and SIGTERM, which end the run where nothing is half done: no container is left in the making."""

    def __init__(self) -> None:
        self._asked = False
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, self._ask)

    def _ask(self, signum: int, frame: object) -> None:
        self._asked = True
        print("stopping: containers and workers are taken down ...", file=sys.stderr, flush=True)

    def check(self) -> None:
        """Raise KeyboardInterrupt once the run is to end."""
        if self._asked:
            raise KeyboardInterrupt


class _Progress:
    """Lines on stderr, with the time since the start."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def __call__(self, line: str) -> None:
        print(f"{time.monotonic() - self._started:7.1f} s  {line}", file=sys.stderr, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--faults", type=int, default=100, help="how many (%(default)s)")
    parser.add_argument("--seed", type=int, default=7, help="decides which and when (%(default)s)")
    parser.add_argument(
        "--delivery",
        choices=("at_least_once", "exactly_once"),
        default="at_least_once",
        help="the workers' setting (%(default)s)",
    )
    parser.add_argument("--ticks-per-s", type=int, default=2000, help="the load (%(default)s)")
    parser.add_argument("--instruments", type=int, default=40, help="in the load (%(default)s)")
    parser.add_argument(
        "--only",
        action="append",
        choices=[fault.kind.name for fault in ALL],
        metavar="KIND",
        help="only faults of this kind; may be given again: " + ", ".join(f.kind.name for f in ALL),
    )
    parser.add_argument(
        "--logs", type=Path, metavar="DIR", help="keep the workers' configuration and logs here"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
