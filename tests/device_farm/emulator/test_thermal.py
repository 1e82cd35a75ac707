from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_farm.emulator.models import MODELS
from device_farm.emulator.phone_model import Thermal
from device_farm.emulator.thermal import ThermalState


def test_running_heats_and_throttles_and_the_air_cools() -> None:
    state = ThermalState(Thermal(heat_c=40.0, tau_s=50.0))
    idle_c = state.soc_c
    factors = []
    for second in range(1, 301):
        state.advance(second, load=1.0)
        factors.append(state.clock_factor)
    assert factors[0] == 1.0 and factors == sorted(factors, reverse=True) and factors[-1] < 0.5
    assert state.soc_c == pytest.approx(28.0 + 44.0, abs=0.5)
    assert state.battery_c < state.skin_c < state.soc_c
    state.advance(700.0, load=0.0)
    assert state.soc_c == pytest.approx(idle_c, abs=0.1) and state.status == 0


@given(times=st.lists(st.floats(0, 1e4), max_size=20), load=st.floats(0, 8))
def test_the_way_there_does_not_matter(times: list[float], load: float) -> None:
    """In one step or in many; and time that goes back is no time."""
    often, once = ThermalState(Thermal()), ThermalState(Thermal())
    for at_s in sorted(times):
        often.advance(at_s, load=load)
        often.advance(at_s - 1, load=0.0)
    once.advance(max(times, default=0.0), load=load)
    assert often.soc_c == pytest.approx(once.soc_c, abs=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_one_busy_core_throttles_no_model(name: str) -> None:
    """Else two runs of a farm would not give the same figures. Four cores do."""
    state = ThermalState(MODELS[name].thermal)
    state.advance(1e5, load=1.0)
    assert state.status == 0
    state.advance(2e5, load=4.0)
    assert state.status > 0


@pytest.mark.parametrize("name", MODELS)
def test_models_are_consistent(name: str) -> None:
    model = MODELS[name]
    assert sorted(core for cluster in model.clusters for core in cluster.cores) == list(range(model.cores))
    assert len(model.thermal.steps) == len(model.thermal.throttle_c) + 1
    for cluster in model.clusters:
        assert list(cluster.khz) == sorted(set(cluster.khz))
        assert cluster.step(1.0) == cluster.max_khz and cluster.step(0.0) == cluster.khz[0]
    assert model.cluster_of(model.big_core) == max(model.clusters, key=lambda cluster: cluster.max_khz)
