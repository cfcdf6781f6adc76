"""The memory that a process holds in RAM, at most, as Linux counts it."""

from pathlib import Path

# What makes the kernel forget the peak so far (proc(5), /proc/pid/clear_refs).
FORGET_PEAK = "5"


def forget_peak() -> float:
    """Begins anew to look for this process's peak; gives what it holds now, in MiB."""
    Path("/proc/self/clear_refs").write_text(FORGET_PEAK)
    return peak_mib()


def peak_mib(process: int | str = "self") -> float:
    """The most that a process held, by its id."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    (peak_kib,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return int(peak_kib) / 1024
