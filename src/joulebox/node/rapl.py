"""How far RAPL counters may be off: the same silicon behind the `powercap` and the `perf` meter."""

from typing import Final

# Uncalibrated, k = 2. Intel measures at the voltage regulator since Haswell (Hackenberg et al. 2015; follows plug power
# closely: Khan et al. 2018); older Intel and AMD Zen work it out from a model (Schöne et al. 2021), and the zone does
# not say which: one figure for all. Memory: Desrochers et al. 2016, worst when idle. psys: no check is known to us.
GAIN_U: Final = {
    "cpu": (0.10, "RAPL, not calibrated: 10 % (Hackenberg 2015, Khan 2018, Schöne 2021)"),
    "dram": (0.20, "RAPL memory, not calibrated: 20 % (Desrochers 2016)"),
    "platform": (0.20, "RAPL platform, not calibrated: 20 % (no check known)"),
}
"""By scope: gain uncertainty (expanded, k = 2) and its source."""
TICK_S: Final = 0.001
"""Both show the chip's counter, which moves once a millisecond."""
