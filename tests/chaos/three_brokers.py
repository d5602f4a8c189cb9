"""The loss of one broker of three interrupts nothing: each is killed in turn, under load, and comes back.

    python -m tests.chaos.three_brokers
    python -m tests.chaos.three_brokers --delivery exactly_once --json

Three workers with both roles, PostgreSQL and three brokers with Kafka's own settings run in containers on this
machine. Exit status 1 where a worker exits, a bar is not as the oracle has it, a record is dead-lettered, a
partition is lost, or bars do not come again before the broker does; 2 where there is too little memory.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from dataclasses import asdict
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))  # where pytest finds `support`

from chaos.outages import Options, Outcome, Run

NEEDED_GB = 4


def main() -> int:
    """Run, and report."""
    options = _options()
    if (there := psutil.virtual_memory().available) < NEEDED_GB << 30:
        print(
            f"three brokers, a database and three workers need {NEEDED_GB} GB of memory; "
            f"{there / (1 << 30):.1f} GB are available",
            file=sys.stderr,
        )
        return 2
    brokers = {} if options.broker_session is None else _sessions(options.broker_session)
    try:
        outcome = Run(
            Options(
                delivery=options.delivery,
                ticks_per_s=options.ticks_per_s,
                away_s=options.away,
                how=options.how,
                outages=options.outages,
                logs=options.logs,
                brokers=brokers,
                workers="".join(f"{line}\n" for line in options.set),
            ),
            Stop().check,
        ).go()
    except KeyboardInterrupt:
        print("stopped; containers and workers are gone", file=sys.stderr)
        return 130
    print(json.dumps(asdict(outcome), indent=2) if options.json else _text(outcome))
    return 1 if outcome.wrong else 0


def _sessions(seconds: float) -> dict[str, str]:
    return {
        "KAFKA_BROKER_SESSION_TIMEOUT_MS": str(int(seconds * 1000)),
        "KAFKA_BROKER_HEARTBEAT_INTERVAL_MS": str(int(seconds * 1000 / 6)),
    }


class Stop:
    """Ctrl-C and SIGTERM, heeded where nothing is half done: no container is left in the making."""

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


def _text(outcome: Outcome) -> str:
    rows = [
        (
            "broker",
            "failover s",
            "gap before s",
            "longest gap s",
            "of a partition s",
            "in sync s",
            "rebalances",
            "lost",
        )
    ]
    rows += [
        (
            str(o.broker),
            f"{o.failover_s:.1f}",
            f"{o.gap_before_s:.1f}",
            f"{o.gap_s:.1f}",
            f"{max(o.gaps_s, default=0):.1f}",
            f"{o.in_sync - o.killed:.0f}",
            str(o.rebalances),
            str(o.lost),
        )
        for o in outcome.outages
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]
    lines += ["", *(f"broker {o.broker}: {o.part}" for o in outcome.outages)]
    lines += [
        f"broker {o.broker}: {count} x {said}" for o in outcome.outages for said, count in o.log.items()
    ]
    lines += [
        "",
        f"{outcome.ticks:,} ticks, {outcome.bars:,} bars compared, {outcome.dead_letters} dead letters",
    ]
    return "\n".join([*lines, *(f"WRONG: {what}" for what in outcome.wrong)])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos.three_brokers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--delivery",
        choices=("at_least_once", "exactly_once"),
        default="at_least_once",
        help="the workers' setting (%(default)s)",
    )
    parser.add_argument("--ticks-per-s", type=int, default=600, help="the load (%(default)s)")
    parser.add_argument(
        "--how",
        choices=("kill", "freeze"),
        default="kill",
        help="SIGKILL, or a machine that does not answer any more (%(default)s)",
    )
    parser.add_argument("--outages", type=int, default=3, help="how many brokers go (%(default)s)")
    parser.add_argument("--away", type=float, default=15, metavar="S", help="seconds each (%(default)s)")
    parser.add_argument(
        "--broker-session",
        type=float,
        metavar="S",
        help="broker.session.timeout.ms, in seconds (Kafka's own is 9)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="LINE",
        help="one more line for the workers' tidegate.toml",
    )
    parser.add_argument(
        "--logs", type=Path, metavar="DIR", help="keep the workers' configuration and logs here"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
