"""What this machine is made of, for its embodied emissions. Kernel files below a root are read, nothing else.

What the operating system does not tell is `None`, never a guess. Serial numbers are neither read nor sent.
"""

import re
from pathlib import Path
from typing import Final

from joulebox.model import CpuPart, DiskPart, Form, GpuPart, MachineParts
from joulebox.node import sysfs

_VENDORS: Final = re.compile(r"QEMU|KVM|VMware|VirtualBox|innotek|Xen|Bochs|Parallels|Amazon EC2|OpenStack", re.I)
_FORMS: Final[dict[str, Form]] = {
    **dict.fromkeys(("3", "4", "5", "6", "7", "13", "15", "24"), "desktop"),
    **dict.fromkeys(("35", "36"), "mini"),
    **dict.fromkeys(("8", "9", "10", "14", "31", "32"), "laptop"),
    **dict.fromkeys(("17", "23", "25", "28", "29"), "server"),
}
"""Chassis types of the SMBIOS specification (DMTF DSP0134, 7.4.1)."""
_NOT_PARTS: Final = ("loop", "ram", "zram", "dm-", "md", "sr", "fd", "nbd", "rbd", "drbd", "zd", "vd", "xvd")
_SECTOR_BYTES: Final = 512


def machine_parts(root: Path = Path("/")) -> MachineParts:
    """What the machine whose files stand below `root` is made of. Never raises: what cannot be read is unknown."""
    return MachineParts(
        virtual=hypervisor(root),
        form=_FORMS.get(sysfs.text_in(root / "sys/class/dmi/id/chassis_type") or ""),
        product=_product(root),
        cpu=_cpu(sysfs.text_in(root / "proc/cpuinfo") or ""),
        memory_bytes=_memory_bytes(sysfs.text_in(root / "proc/meminfo") or ""),
        disks=_disks(root / "sys/block"),
        gpus=_gpus(root),
    )


def hypervisor(root: Path) -> str | None:
    """The name of the machine under this machine, or `None` on bare metal."""
    names = [sysfs.text_in(root / f"sys/class/dmi/id/{name}") or "" for name in ("sys_vendor", "product_name")]
    named = next((name for name in names if _VENDORS.search(name)), None)
    kind = sysfs.text_in(root / "sys/hypervisor/type")
    flags = re.search(r"^flags\s*:.*\bhypervisor\b", sysfs.text_in(root / "proc/cpuinfo") or "", re.M)
    return named or kind or ("a hypervisor" if flags else None)


def _product(root: Path) -> str | None:
    """Maker and model, of boards without firmware tables the name in the device tree."""
    names = [sysfs.text_in(root / f"sys/class/dmi/id/{name}") for name in ("sys_vendor", "product_name")]
    told = " ".join(name for name in names if name)
    tree = (sysfs.text_in(root / "proc/device-tree/model") or "").rstrip("\0")
    return told or tree or None


def _cpu(text: str) -> CpuPart | None:
    """The processors of `/proc/cpuinfo`; `None` where it names none."""
    threads = [dict(_field(line) for line in block.splitlines() if ":" in line) for block in text.split("\n\n")]
    threads = [thread for thread in threads if "model name" in thread]
    if not threads:
        return None
    first = threads[0]
    cores = {
        (thread.get("physical id", "0"), thread.get("core id", thread.get("processor", "0"))) for thread in threads
    }
    return CpuPart(
        name=" ".join(first["model name"].split()),
        vendor=first.get("vendor_id", ""),
        family=_number(first.get("cpu family")),
        model=_number(first.get("model")),
        sockets=len({socket for socket, _ in cores}),
        cores=len(cores),
    )


def _field(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.strip(), value.strip()


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None


def _memory_bytes(text: str) -> int | None:
    found = re.search(r"^MemTotal:\s*(\d+) kB", text, re.M)
    return int(found[1]) * 1024 if found else None


def _disks(folder: Path) -> tuple[DiskPart, ...]:
    """Disks that stay in the machine; sticks, network and memory disks are none of its parts."""
    found = []
    for disk in sorted(folder.glob("*")):
        sectors = _number(sysfs.text_in(disk / "size"))
        inside = (disk / "device").exists() and sysfs.text_in(disk / "removable") != "1" and "/usb" not in _real(disk)
        if not sectors or not inside or disk.name.startswith(_NOT_PARTS) or "boot" in disk.name:
            continue
        spins = sysfs.text_in(disk / "queue/rotational") == "1"
        found.append(DiskPart(kind="hdd" if spins else "ssd", size_bytes=sectors * _SECTOR_BYTES))
    return tuple(found)


def _real(path: Path) -> str:
    return str(path.resolve())


def _gpus(root: Path) -> tuple[GpuPart, ...]:
    """Graphics cards on the PCI bus, with the name that NVIDIA's driver gives its own."""
    found = []
    for card in sysfs.cards(root / "sys"):
        pci = ":".join((sysfs.text_in(card / name) or "").removeprefix("0x") for name in ("vendor", "device"))
        told = sysfs.text_in(root / "proc/driver/nvidia/gpus" / card.name / "information") or ""
        model = re.search(r"^Model:\s*(.+)$", told, re.M)
        name = model[1].strip() if model else sysfs.text_in(card / "product_name")
        memory_bytes = _number(sysfs.text_in(card / "mem_info_vram_total"))
        found.append(GpuPart(name=name or None, pci=pci, memory_bytes=memory_bytes))
    return tuple(found)
