"""TE from the parts a node sees: published machines fall into its range, unknown parts say so, files tell the parts."""

import html
import json
from dataclasses import asdict, replace
from io import StringIO
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulebox.accounting.chips import (
    AMD_CARDS,
    APPROXIMATE,
    CARDS,
    CHIPS,
    CPUS,
    FOOTPRINTS,
    Area,
    CpuFamily,
    Die,
    _chiplets,
    _one,
)
from joulebox.accounting.embodied import _DIE_KG_PER_CM2, DESKTOP_KG, SERVER_HIGH_KG, embodied_of_parts
from joulebox.console import show_receipt
from joulebox.evidence import decode_trace, encode_trace
from joulebox.model import CpuPart, DiskPart, Embodied, GpuPart, MachineParts, Water, WaterFactors
from joulebox.node.parts import machine_parts
from joulebox.server.grid import embodied_of
from joulebox.server.pages import render_receipt
from joulebox.settings import Settings
from page_stage import powercap_receipt
from server_stage import done, stage
from traces import trace

I7 = CpuPart(name="i7-12700", vendor="GenuineIntel", family=6, model=151, sockets=1, cores=12)
XEONS = CpuPart(name="Xeon Platinum 8180", vendor="GenuineIntel", family=6, model=85, sockets=2, cores=56)
TERABYTE = DiskPart(kind="ssd", size_bytes=10**12)
TOWER = MachineParts(form="desktop", cpu=I7, memory_bytes=64 * 10**9, disks=(TERABYTE,))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


LITRES = Water(
    l=0.0000612,
    low=0.0000411,
    high=0.0000813,
    on_site_l=None,
    electricity_l=0.0000612,
    factors=WaterFactors(on_site_l_per_kwh=None, electricity_l_per_kwh=1.95, source="WRI, Germany"),
)
sizes = st.integers(1, 10**13)


def te(parts: MachineParts | None) -> Embodied:
    return embodied_of_parts(parts, 4.0)


def dies(family: CpuFamily, cores: int) -> tuple[Area, ...]:
    """The silicon of a processor of this family with so many cores."""
    found = family.die(cores)
    assert found is not None
    return found.areas


def of_card(name: str) -> tuple[float, float, float]:
    """What a card adds to a tower."""
    with_it, without = te(replace(TOWER, gpus=(GpuPart(name=name, pci="10de:0"),))), te(TOWER)
    return (
        with_it.low_kg - without.low_kg,
        with_it.central_kg - without.central_kg,
        with_it.high_kg - without.high_kg,
    )


def test_a_die_by_hand() -> None:
    """Twelve Alder Lake cores are the die of sixteen, 215 mm2; at 1.83 kg per cm2 and 4.6 kg of package that is
    8.5 kg."""
    assert te(TOWER).parts[0].central_kg == round(215 / 100 * 1.83 + 4.6, 1) == 8.5


def test_a_factor_by_hand() -> None:
    """ACT at 5 nm on Taiwan's grid: (2.75 kWh x 0.583 + 0.43 + 0.5) / 0.875 = 2.90 kg per cm2, as in the table."""
    per_cm2 = {5: (2.75, 0.43), 7: (2.15, 0.35), 8: (1.52, 0.24), 10: (1.475, 0.24), 14: (1.2, 0.2), 28: (0.9, 0.175)}
    for process_nm, (energy_kwh, gases_kg) in per_cm2.items():
        for grid_kg, which in ((0.583, 1), (0.820, 2)):
            act_kg = (energy_kwh * grid_kg + gases_kg + 0.5) / 0.875
            assert _DIE_KG_PER_CM2[process_nm][which] == pytest.approx(act_kg, abs=0.006)


def test_published_machines_fall_into_the_range() -> None:
    """Dell's tower of the same parts (316 kg) and BoaviztAPI's figure for it (450) are inside; the centre is near."""
    tower = te(TOWER)
    assert tower.low_kg < 316 < tower.high_kg
    assert tower.low_kg < 450 < tower.high_kg
    assert tower.central_kg == pytest.approx(301, rel=0.25)


@pytest.mark.parametrize(
    ("card", "published_kg"),
    [
        ("NVIDIA H100 80GB HBM3", 164),  # NVIDIA's PCF
        ("NVIDIA H100 PCIe", 567),  # BoaviztAPI 2.5, ADEME's model
        ("NVIDIA A100-PCIE-40GB", 322),  # BoaviztAPI 2.5, as are those without a word
        ("NVIDIA A100-SXM4-80GB", 318),  # Chien et al., with its share of the instance
        ("NVIDIA L4", 123.5),
        ("NVIDIA L40S", 277),
        ("NVIDIA RTX A4500", 172),
        ("NVIDIA H200", 1067),
        ("NVIDIA B200", 284),
    ],
)
def test_published_cards_fall_into_the_range(card: str, published_kg: float) -> None:
    """What others published of a card lies between low and high."""
    low_kg, central_kg, high_kg = of_card(card)
    assert low_kg < published_kg < high_kg
    assert low_kg < central_kg < high_kg


def test_a_card_with_a_makers_footprint_has_that_footprint() -> None:
    """An H100 is an eighth of what NVIDIA published for a board of eight: 1312 / 8 = 164 kg."""
    assert of_card("NVIDIA H100 80GB HBM3")[1] == pytest.approx(1312 / 8)


@pytest.mark.parametrize("name", ["NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA RTX 4090", "Voodoo 2", None])
def test_a_card_that_is_not_in_the_table_is_unknown(name: str | None) -> None:
    """A name that is nearly right is no match: nothing in the centre, the largest card in the range, and it says so."""
    found = te(replace(TOWER, gpus=(GpuPart(name=name, pci="10de:ffff"),)))
    part = found.parts[-1]
    assert part.central_kg is None
    assert found.central_kg == te(TOWER).central_kg
    assert found.high_kg > te(TOWER).high_kg + 1000
    assert found.unknown == (part.part,)
    assert part.part in found.source
    assert "unknown" in part.source


def test_an_unknown_processor_widens_the_range_only() -> None:
    """A processor of another family adds nothing to the centre, more than any known one to the high end."""
    other = replace(I7, vendor="Other", name="Other 9000")
    found = te(replace(TOWER, cpu=other))
    assert found.unknown == ("CPU Other 9000",)
    assert found.central_kg == pytest.approx(te(TOWER).central_kg - 8.5)
    assert found.high_kg > te(TOWER).high_kg
    assert te(replace(TOWER, cpu=None)).unknown == ("CPU",)


def test_what_no_kernel_tells_is_told() -> None:
    """Without a form of the case its supply and case are unknown, and so are a laptop's display and battery."""
    assert te(replace(TOWER, form=None)).unknown == ("Power supply and case",)
    assert te(replace(TOWER, form="laptop")).unknown == ("Display, battery and case of a laptop",)
    assert te(replace(TOWER, form="server")).unknown == ()
    assert te(replace(TOWER, memory_bytes=None)).unknown == ("Memory",)


def test_nothing_known_is_a_generic_desktop() -> None:
    """Without parts, or with nothing in them, the figure is a generic desktop computer's and says so."""
    for nothing in (None, MachineParts(), MachineParts(form="server", disks=(TERABYTE,))):
        found = te(nothing)
        assert (found.low_kg, found.central_kg, found.high_kg) == DESKTOP_KG
        assert "generic desktop computer, not this machine" in found.source
        assert found.parts == ()


def test_a_virtual_machine_says_that_its_share_is_unknown() -> None:
    """What stands below a virtual machine is unknown: from nothing to a server; its own cards are counted."""
    bare = te(replace(TOWER, virtual="KVM"))
    assert (bare.low_kg, bare.central_kg, bare.high_kg) == (0.0, DESKTOP_KG.central, SERVER_HIGH_KG)
    assert bare.unknown == ("share of a server (KVM)",)
    assert "a share of a server that it cannot see" in bare.source
    carded = te(replace(TOWER, virtual="KVM", gpus=(GpuPart(name="NVIDIA H100 80GB HBM3", pci="10de:2330"),)))
    assert carded.central_kg == bare.central_kg + 164
    assert carded.low_kg == 82


@given(
    cores=st.integers(1, 512),
    sockets=st.integers(1, 8),
    family=st.sampled_from(CPUS),
    memory=sizes,
    disks=st.lists(st.builds(DiskPart, kind=st.sampled_from(["ssd", "hdd"]), size_bytes=sizes), max_size=5),
    cards=st.lists(st.sampled_from([*CARDS, *FOOTPRINTS, "none such"]), max_size=4),
    form=st.sampled_from(["desktop", "mini", "laptop", "server", None]),
)
def test_parts_sum_to_the_whole(
    cores: int,
    sockets: int,
    family: CpuFamily,
    memory: int,
    disks: list[DiskPart],
    cards: list[str],
    form: str | None,
) -> None:
    """For any machine the parts sum to TE, low <= central <= high, and a further card or more memory never lowers
    it."""
    cpu = CpuPart(
        name="x",
        vendor=family.vendor,
        family=family.family,
        model=family.models[0],
        sockets=sockets,
        cores=cores * sockets,
    )
    parts = MachineParts(
        form=form,  # type: ignore[arg-type]
        cpu=cpu,
        memory_bytes=memory,
        disks=tuple(disks),
        gpus=tuple(GpuPart(name=f"NVIDIA {name}", pci="10de:0") for name in cards),
    )
    found = te(parts)
    assert found.low_kg == pytest.approx(sum(part.low_kg for part in found.parts), abs=0.06)
    assert found.central_kg == pytest.approx(sum(part.central_kg or 0.0 for part in found.parts), abs=0.06)
    assert found.high_kg == pytest.approx(sum(part.high_kg for part in found.parts), abs=0.06)
    assert 0 < found.low_kg <= found.central_kg <= found.high_kg
    more = te(replace(parts, memory_bytes=2 * memory, gpus=(*parts.gpus, GpuPart(name="Tesla T4", pci="10de:1eb8"))))
    assert more.low_kg > found.low_kg
    assert more.central_kg > found.central_kg
    assert more.high_kg > found.high_kg


def test_every_part_names_its_source() -> None:
    """No figure stands without where it comes from."""
    for form in ("desktop", "mini", "server", "laptop"):
        hdd = DiskPart(kind="hdd", size_bytes=10**12)
        parts = replace(TOWER, form=form, disks=(TERABYTE, hdd), gpus=(GpuPart(name="NVIDIA L4", pci="10de:27b8"),))
        for part in te(parts).parts:
            assert len(part.source) > 10, part
    assert {card.chip for card in (*CARDS.values(), *AMD_CARDS.values())} == set(CHIPS)


def test_the_area_of_a_server_processor() -> None:
    """It is that of the smallest published die that holds its cores; of chiplets, whole ones and the I/O die."""
    skylake = next(one for one in CPUS if 85 in one.models)
    for cores, mm2 in ((4, 325.4), (10, 325.4), (11, 485), (18, 485), (19, 694), (28, 694)):
        assert dies(skylake, cores) == (Area(mm2, 14),)
    milan = next(one for one in CPUS if one.name == "Zen 3 server")
    assert dies(milan, 64) == milan.largest.areas == (Area(8 * 80.7, 7), Area(416, 14))
    assert dies(milan, 9) == (Area(2 * 80.7, 7), Area(416, 14))
    assert te(MachineParts(cpu=XEONS)).parts[0].part == "2 CPUs Xeon Platinum 8180"


def test_the_range_reaches_to_the_largest_die_of_the_family() -> None:
    """Four cores may be what is left of 28: the low end is of the small die, the high one of the largest."""
    four, all_on = (te(MachineParts(cpu=replace(XEONS, sockets=1, cores=cores))).parts[0] for cores in (4, 28))
    assert four.high_kg == all_on.high_kg == round(694 / 100 * 1.92 * 1.25 + 9.14, 1)
    assert four.low_kg == round(325.4 / 100 * 0.97 * 0.9 + 0.15, 1)
    assert "325 mm² at 14 nm; at most 694 mm² at 14 nm" in four.source


def test_more_cores_than_any_die_of_the_family_has_are_unknown() -> None:
    """Two dies in one package, of which nobody published the area, are not guessed at."""
    part = te(MachineParts(cpu=replace(XEONS, sockets=1, cores=56))).parts[0]
    assert part.central_kg is None
    assert "no area of its dies is in the table" in part.source


def test_an_area_without_publication_says_so_and_has_a_wider_range() -> None:
    """What was confirmed nowhere carries the word on the receipt, and its low end is lower."""
    haswell = te(MachineParts(cpu=replace(XEONS, model=63, sockets=1, cores=12))).parts[0]
    assert f"492 mm² at 20 nm, {APPROXIMATE}" in haswell.source
    assert haswell.low_kg == round(492 / 100 * 0.91 * 0.75 + 0.15, 1)
    assert APPROXIMATE not in te(MachineParts(cpu=replace(XEONS, model=63, sockets=1, cores=18))).parts[0].source
    aldebaran = te(replace(TOWER, gpus=(GpuPart(name=None, pci="1002:740f"),))).parts[-1]
    assert APPROXIMATE in aldebaran.source


def test_a_card_sold_with_two_sizes_of_memory_has_the_range_of_both() -> None:
    """The driver's name is the same for 8 and 16 GB: the high end is of the larger, and the receipt says so."""
    with_16 = GpuPart(name="NVIDIA GeForce RTX 4060 Ti", pci="10de:2803", memory_bytes=16 * 10**9)
    either, known = (
        te(MachineParts(cpu=I7, gpus=(gpu,))).parts[-1] for gpu in (replace(with_16, memory_bytes=None), with_16)
    )
    assert either.high_kg == known.high_kg
    assert either.low_kg < known.low_kg
    assert "8 GB (others of its name: 16 GB)" in either.source


def test_the_table_is_in_order() -> None:
    """Each family's dies grow with their cores, no processor is of two families, and each row has a source."""
    for one in CPUS:
        assert [die.cores for die in one.dies] == sorted({die.cores for die in one.dies}), one.name
        mm2 = [sum(area.mm2 for area in die.areas) for die in one.dies]
        assert mm2 == sorted(mm2), one.name
        assert len(one.source) > 5
    models = [(one.vendor, one.family, model) for one in CPUS for model in one.models]
    assert len(models) == len(set(models))


def test_the_operators_footprint_wins_over_the_parts() -> None:
    """Where the operator gives the maker's figure, what the node saw changes nothing."""
    settings = Settings(embodied_kg=316, embodied_source="Dell, 2023")
    assert embodied_of(settings, TOWER).central_kg == 316
    assert embodied_of(settings, TOWER).parts == ()
    assert embodied_of(Settings(life_years=6), TOWER).life_years == 6
    assert embodied_of(Settings(), TOWER).central_kg == te(TOWER).central_kg


def test_each_node_has_its_own_footprint() -> None:
    """What the operator set on a node wins over what is set on the server, and that over the parts."""
    server, node = Settings(embodied_kg=500), Settings(embodied_kg=316, life_years=6)
    known = replace(TOWER, footprint=node.footprint)
    assert embodied_of(server, known) == node.footprint
    assert embodied_of(server, TOWER) == server.footprint
    assert embodied_of(Settings(), known).life_years == 6
    assert Settings().footprint is None


# --- what the node sees -----------------------------------------------------------------------------------------------


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def processor(number: int, socket: int, core: int) -> str:
    return (
        f"processor\t: {number}\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 151\n"
        f"model name\t: 12th Gen Intel(R)  Core(TM) i7-12700\nphysical id\t: {socket}\ncore id\t\t: {core}\n"
    )


@pytest.fixture
def tower(tmp_path: Path) -> Path:
    threads = [processor(2 * core + thread, 0, core) for core in range(12) for thread in range(2)]
    root = write(
        tmp_path,
        {
            "proc/cpuinfo": "\n".join(threads),
            "proc/meminfo": "MemTotal:       65536000 kB\nMemFree: 1 kB\n",
            "proc/driver/nvidia/gpus/0000:01:00.0/information": "Model: \t\t NVIDIA L4\nIRQ:   \t\t 172\n",
            "sys/class/dmi/id/chassis_type": "3\n",
            "sys/class/dmi/id/sys_vendor": "Dell Inc.\n",
            "sys/class/dmi/id/product_name": "Precision 3660\n",
            "sys/block/nvme0n1/size": "1953525168\n",
            "sys/block/nvme0n1/queue/rotational": "0\n",
            "sys/block/nvme0n1/device/model": "x",
            "sys/block/sda/size": "7814037168\n",
            "sys/block/sda/queue/rotational": "1\n",
            "sys/block/sda/removable": "0\n",
            "sys/block/sda/device/model": "x",
            "sys/block/sdb/size": "62333952\n",
            "sys/block/sdb/removable": "1\n",
            "sys/block/sdb/device/model": "a stick",
            "sys/block/loop0/size": "8\n",
            "sys/block/zram0/size": "8000000\n",
        },
    )
    for place, vendor, device, kind in (("01", "0x10de", "0x27b8", "0x030200"), ("02", "0x8086", "0x1", "0x020000")):
        folder = f"sys/bus/pci/devices/0000:{place}:00.0"
        write(root, {f"{folder}/vendor": vendor, f"{folder}/device": device, f"{folder}/class": kind})
    return root


def test_a_tower_tells_its_parts(tower: Path) -> None:
    """Cores, memory, disks that stay inside, the card by its driver's name, the form of the case."""
    parts = machine_parts(tower)
    assert parts.cpu == replace(I7, name="12th Gen Intel(R) Core(TM) i7-12700")
    assert parts.memory_bytes == 65536000 * 1024
    assert [disk.kind for disk in parts.disks] == ["ssd", "hdd"]
    assert [disk.size_bytes for disk in parts.disks] == [1953525168 * 512, 7814037168 * 512]
    assert parts.gpus == (GpuPart(name="NVIDIA L4", pci="10de:27b8"),)
    assert (parts.form, parts.product, parts.virtual) == ("desktop", "Dell Inc. Precision 3660", None)
    assert te(parts).unknown == ()


def test_two_sockets_and_a_card_without_driver(tower: Path) -> None:
    """Sockets are counted by the kernel's numbers; a card without driver has its PCI number and no name."""
    threads = [processor(8 * socket + core, socket, core) for socket in range(2) for core in range(8)]
    (tower / "proc/cpuinfo").write_text("\n".join(threads))
    (tower / "proc/driver/nvidia/gpus/0000:01:00.0/information").unlink()
    parts = machine_parts(tower)
    assert parts.cpu is not None
    assert (parts.cpu.sockets, parts.cpu.cores) == (2, 16)
    assert parts.gpus == (GpuPart(name=None, pci="10de:27b8"),)
    assert te(parts).unknown == ("GPU 0 10de:27b8",)


def test_an_amd_card_tells_its_memory(tower: Path) -> None:
    """An AMD card is known by its PCI number, and its memory by the driver."""
    card = tower / "sys/bus/pci/devices/0000:01:00.0"
    write(card, {"vendor": "0x1002", "device": "0x744c", "hwmon/hwmon0/power1_cap": "1", "mem_info_vram_total": "2000"})
    (found,) = machine_parts(tower).gpus
    assert (found.pci, found.memory_bytes) == ("1002:744c", 2000)
    assert te(machine_parts(tower)).unknown == ()


def test_an_empty_machine_is_all_unknown(tmp_path: Path) -> None:
    """Where no file is there nothing is guessed."""
    assert machine_parts(tmp_path) == MachineParts()


def test_odd_files_are_unknown(tower: Path) -> None:
    """Files that hold something else than expected leave their part unknown and break nothing."""
    odd = {
        "proc/cpuinfo": "processor : x\nmodel name : Odd\ncpu family : -\nmodel : ?\n\n::\n",
        "proc/meminfo": "MemTotal: much\n",
        "sys/block/nvme0n1/size": "big",
        "sys/block/sda/size": "0",
        "sys/class/dmi/id/chassis_type": "99",
    }
    parts = machine_parts(write(tower, odd))
    assert parts.cpu == CpuPart(name="Odd", vendor="", family=None, model=None, sockets=1, cores=1)
    assert (parts.memory_bytes, parts.disks, parts.form) == (None, (), None)
    assert set(te(parts).unknown) == {"CPU Odd", "Memory", "Power supply and case"}


def test_this_machine_tells_something() -> None:
    """On the machine of this test processor and memory are found."""
    parts = machine_parts()
    assert parts.cpu is not None
    assert parts.cpu.cores >= 1
    assert parts.memory_bytes is not None


# --- how it reaches the receipt -------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_nodes_parts_reach_store_and_receipt(tmp_path: Path) -> None:
    """A node tells its parts with its request for work and in its evidence: the server keeps them, and TE is theirs."""
    async with stage(tmp_path) as scene:
        await scene.join(parts=TOWER)
        await scene.ask()
        lease = await scene.lease(parts=TOWER)
        finished = await scene.finish(lease, done(lease, "hi", parts=TOWER))
        receipt = (await scene.http.get(f"/api/v1/receipts/{finished.json()['receipt_id']}")).json()
        (node,) = await scene.store.nodes()
        assert node.offer.parts == TOWER
        hardware = receipt["carbon"]["hardware"]
        assert hardware["central_kg"] == receipt["sci"]["answer"]["TE_kg"] == te(TOWER).central_kg
        assert [part["part"] for part in hardware["parts"]] == [part.part for part in te(TOWER).parts]


@pytest.mark.anyio
async def test_a_node_that_tells_no_parts_is_a_generic_desktop(tmp_path: Path) -> None:
    """A node of an earlier version tells nothing of itself: it is served, and its machine is called generic."""
    async with stage(tmp_path) as scene:
        await scene.join()
        await scene.ask()
        lease = await scene.lease()
        finished = await scene.finish(lease, done(lease, "hi"))
        receipt = (await scene.http.get(f"/api/v1/receipts/{finished.json()['receipt_id']}")).json()
        assert "generic desktop" in receipt["carbon"]["hardware"]["source"]


def test_evidence_keeps_the_parts() -> None:
    """Parts go through the evidence and come back the same."""
    run = trace(parts=TOWER)
    assert decode_trace(encode_trace(run)).parts == TOWER


# --- what people see --------------------------------------------------------------------------------------------------


def shown() -> dict[str, Any]:
    """A receipt of a tower with a card that is in the table and one that is not."""
    found: dict[str, Any] = json.loads(json.dumps(asdict(replace(powercap_receipt(), water=LITRES))))
    return found


def test_the_page_shows_every_part_with_its_source() -> None:
    """TE stands on the page with its parts, their ranges and sources, and what is unknown is called so."""
    page = html.unescape(render_receipt(shown()))
    for part in shown()["carbon"]["hardware"]["parts"]:
        assert part["part"] in page
        assert part["source"] in page
    assert "GPU 1 10de:ffff" in page
    assert "unknown: this model is not in the table" in page


def test_the_page_tells_idle_from_active_and_water_as_modelled() -> None:
    """The two parts of O, the PUE with its source, and water under the word modelled stand on the page."""
    page = render_receipt(shown())
    for words in ("of it above idle", "of it idling", "PUE 1, in E", "Water (modelled)", "on site unknown"):
        assert words in page


def test_the_terminal_prints_the_parts_when_asked() -> None:
    """`receipts show --parts` ends with the parts and their sum."""
    told, plain = StringIO(), StringIO()
    show_receipt(shown(), told, parts=True)
    show_receipt(shown(), plain)
    assert "Mainboard" in told.getvalue()
    assert "TE, in all" in told.getvalue()
    assert "Mainboard" not in plain.getvalue()


def test_receipts_from_before_are_still_shown() -> None:
    """A receipt made before parts and idle share were told is shown without them."""
    old = shown()
    for name in ("hardware", "pue", "pue_source"):
        del old["carbon"][name]
    for boundary in old["sci"].values():
        del boundary["O_active_g"], boundary["O_idle_g"]
    del old["water"]
    assert "Making this machine" not in render_receipt(old)
    show_receipt(old, StringIO(), parts=True)


def test_the_dies_of_a_family_follow_from_its_chiplets() -> None:
    """Chiplets of eight cores, one to `most`, and what is there once beside them; one die is one area."""
    small, large = _chiplets(Area(74, 7), 2, Area(125, 14))
    assert small == Die(8, (Area(74, 7), Area(125, 14)), confirmed=True)
    assert large == Die(16, (Area(148, 7), Area(125, 14)), confirmed=True)
    assert _one(12, 492, 20) == Die(12, (Area(492, 20),), confirmed=True)
    assert _one(12, 492, 20, confirmed=False) == Die(12, (Area(492, 20),), confirmed=False)


def test_the_smallest_die_that_has_the_cores() -> None:
    """A processor of exactly so many cores is of that die, one more of the next; more than the largest is of none."""
    haswell = next(one for one in CPUS if one.name == "Haswell server")
    assert [die and die.cores for die in map(haswell.die, (1, 8, 9, 12, 13, 18, 19))] == [8, 8, 12, 12, 18, 18, None]
    assert haswell.largest == _one(18, 662, 20)


def kilograms(found: Embodied) -> dict[str, tuple[float, float | None, float]]:
    return {one.part: (one.low_kg, one.central_kg, one.high_kg) for one in found.parts}


@pytest.mark.parametrize(
    ("form", "supply", "case"),
    [
        ("desktop", (24.3, 36.5, 72.9), (5.7, 11.5, 22.9)),  # 1, 1.5, 3 kg at 24.3; 3, 6, 12 kg of steel at 1.91
        ("mini", (4.9, 9.7, 19.4), (1.0, 1.9, 3.8)),
        ("server", (24.3, 72.9, 145.8), (75.0, 150.0, 225.0)),
    ],
)
def test_what_is_around_by_form(
    form: Literal["desktop", "mini", "server"], supply: tuple[float, ...], case: tuple[float, ...]
) -> None:
    """Board and assembly are alike, supply and case follow the form; 64 GB are 1, 4 or 8 modules of 5.22 kg and 0.065,
    0.72 or 1.39 kg a GB; a terabyte of SSD is 0.0107, 0.0435 or 0.16 kg a GB with up to 6.34 kg once."""
    disks = (TERABYTE, DiskPart(kind="hdd", size_bytes=4 * 10**12))
    found = embodied_of_parts(replace(TOWER, form=form, disks=disks), 4.0)
    kg = kilograms(found)
    assert kg["Mainboard"] == (33.0, 66.1, 113.0)
    assert kg["Assembly"] == (3.3, 6.7, 10.0)
    assert kg["Memory 64 GB"] == (9.4, 67.0, 130.7)
    assert kg["SSD 1000 GB"] == (10.7, 49.8, 166.3)
    assert kg["Disk 4000 GB"] == (15.5, 31.1, 46.7)
    assert (kg["Power supply"], kg["Case"]) == (supply, case)
    assert found.unknown == ()
    assert "not known" not in found.source
    sums = [round(sum(one[place] or 0.0 for one in kg.values()), 1) for place in range(3)]
    assert [found.low_kg, found.central_kg, found.high_kg] == sums


def test_what_is_not_known_widens_the_range_alone() -> None:
    """Without its figure a part is nothing at least and its bound at most, with the reason, and the whole says which:
    a laptop's rest 150 kg, a machine of no form 6 kg of supply at 24.3 and a rack of 225, memory 1,000 kg."""
    laptop = kilograms(embodied_of_parts(replace(TOWER, form="laptop"), 4.0))
    assert laptop["Display, battery and case of a laptop"] == (0.0, None, 150.0)
    found = embodied_of_parts(MachineParts(cpu=I7), 4.0)
    kg = kilograms(found)
    assert kg["Power supply and case"] == (0.0, None, 370.8)
    assert kg["Memory"] == (0.0, None, 1000.0)
    assert found.source.endswith("; not known, only in the range: Memory, Power supply and case")
    assert found.unknown == ("Memory", "Power supply and case")
    [cpu, *_] = embodied_of_parts(MachineParts(memory_bytes=64 * 10**9), 4.0).parts
    assert (cpu.part, cpu.low_kg, cpu.central_kg) == ("CPU", 0.0, None)
    assert cpu.source == "unknown: this machine does not tell its processor"
    strange = replace(I7, model=1)
    [one, *_] = embodied_of_parts(replace(TOWER, cpu=strange), 4.0).parts
    [two, *_] = embodied_of_parts(replace(TOWER, cpu=replace(strange, sockets=2)), 4.0).parts
    assert one.source == "unknown: no area of its dies is in the table"
    assert one.high_kg == cpu.high_kg
    assert two.part == "2 CPUs i7-12700"
    assert two.high_kg == pytest.approx(2 * cpu.high_kg, abs=0.1)
    [none, *_] = embodied_of_parts(replace(TOWER, cpu=replace(I7, cores=0)), 4.0).parts
    [single, *_] = embodied_of_parts(replace(TOWER, cpu=replace(I7, cores=1)), 4.0).parts
    assert (none.central_kg, single.central_kg is None) == (None, False)


def test_a_share_of_a_server_is_one_part() -> None:
    """A virtual machine is at least nothing, at most a server, with a desktop computer in the middle."""
    found = embodied_of_parts(MachineParts(virtual="kvm"), 4.0)
    [share] = found.parts
    assert share.part == "Share of a server"
    assert (share.low_kg, share.central_kg, share.high_kg) == (0.0, DESKTOP_KG.central, SERVER_HIGH_KG)
    assert share.source
    assert share.source != found.source
    assert found.unknown == ("share of a server (kvm)",)


def test_sources_stand_with_each_part() -> None:
    """Word for word: they are what a researcher looks up."""
    parts = {one.part: one.source for one in embodied_of_parts(TOWER, 4.0).parts}
    assert parts["Case"] == "6 kg of steel assumed of a desktop, 1.91 kg per kg (worldsteel 2023)"
    assert parts["Power supply"].startswith("24.3 kg per kg, ")
    assert parts["Power supply"].endswith("; 1.5 kg assumed of a desktop")
    assert parts["Mainboard"].endswith("; high: EcoDiag (CNRS EcoInfo); low: half, a convention")
    assert parts["Assembly"].endswith("; range ± 50 %, a convention")
    assert parts["Memory 64 GB"].endswith(
        "UBA at TechInsights' density of D1z, Dell's LCA of the R740; modules of 16 (64 to 8) GB assumed, the kernel "
        "does not tell them: UBA"
    )
    assert parts["SSD 1000 GB"].endswith(", UBA at 50.6 GB per cm², Tannu and Nair (HotCarbon 2022)")
    rack = {one.part: one.source for one in embodied_of_parts(replace(TOWER, form="server"), 4.0).parts}
    assert rack["Case"].startswith("rack server, ")
    assert rack["Case"].endswith("; range ± 50 %, a convention")
    bare = {one.part: one.source for one in embodied_of_parts(MachineParts(cpu=I7), 4.0).parts}
    assert bare["Memory"] == "unknown: this machine does not tell its memory"
    assert bare["Power supply and case"] == "unknown: this machine does not tell its form"
    laptop = {one.part: one.source for one in embodied_of_parts(replace(TOWER, form="laptop"), 4.0).parts}
    assert laptop["Display, battery and case of a laptop"] == "unknown: no figures here"
    card = GpuPart(name="Nobody's Card", pci="1234:5678", memory_bytes=None)
    *_, strange = embodied_of_parts(replace(TOWER, gpus=(card,)), 4.0).parts
    assert (strange.part, strange.source) == ("GPU 0 Nobody's Card", "unknown: this model is not in the table")
    name, footprint = next(iter(FOOTPRINTS.items()))
    *_, known = embodied_of_parts(replace(TOWER, gpus=(replace(card, name=f"NVIDIA {name}"),)), 4.0).parts
    assert (known.part, known.source) == (f"GPU 0 NVIDIA {name}", footprint.source)


def test_silicon_is_told_die_by_die() -> None:
    """Two areas are joined by a plus; a die that bounds its family names no larger one, a smaller one does."""
    zen = CpuPart(name="Ryzen 9 3950X", vendor="AuthenticAMD", family=23, model=113, sockets=1, cores=16)
    [whole, *_] = embodied_of_parts(replace(TOWER, cpu=zen), 4.0).parts
    [half, *_] = embodied_of_parts(replace(TOWER, cpu=replace(zen, cores=8)), 4.0).parts
    assert "Zen 2, 148 mm² at 7 nm + 125 mm² at 14 nm (" in whole.source
    assert "Zen 2, 74 mm² at 7 nm + 125 mm² at 14 nm; at most 148 mm² at 7 nm + 125 mm² at 14 nm (" in half.source
