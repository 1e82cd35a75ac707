"""python -m device_farm.simulator: a simulated day in a lab, as JSON."""

from __future__ import annotations

import argparse
import json

from device_farm.simulator.faults import FaultRates
from device_farm.simulator.scenario import lab
from device_farm.simulator.simulate import simulate


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m device_farm.simulator", description=__doc__)
    parser.add_argument("--phones", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--faults", type=float, default=0.01, metavar="RATE", help="of each kind, an hour and phone")
    arguments = parser.parse_args()
    scenario = lab(arguments.phones, arguments.jobs, faults=FaultRates.all_at(arguments.faults, spell_s=90.0))
    print(json.dumps(simulate(scenario, arguments.seed).to_json(), indent=1))


if __name__ == "__main__":
    main()
