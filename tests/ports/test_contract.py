"""Every port passes the contract check that third parties are given."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from colo_compare.ports import FramePort, open_port
from colo_compare.ports.memory import memory_pair
from colo_compare.ports.stream import StreamPort
from colo_compare.ports.tap import TapPort
from colo_compare.testing import check_port
from colo_compare.testing.port_contract import MakePair
from tests.namespaces import settle


def pair(one: str, other: str) -> MakePair:
    @asynccontextmanager
    async def make_pair() -> AsyncIterator[tuple[FramePort, FramePort]]:
        async with open_port(one) as first, open_port(other) as second:
            for port in (first, second):
                if isinstance(port, StreamPort):
                    await port.wait_connected()
                if isinstance(port, TapPort):
                    settle(port.interface)
            yield first, second

    return make_pair


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("options", ["", "?vnet_hdr=no"])
@pytest.mark.parametrize("other_options", ["", "?vnet_hdr=no"])
async def test_packet(veth: tuple[str, str], options: str, other_options: str) -> None:
    await check_port(pair(f"packet:left{options}", f"packet:right{other_options}"), longest=65549)


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("options", ["", "?vnet_hdr=no"])
async def test_tap(tap: str, options: str) -> None:
    await check_port(pair(f"tap:{tap}{options}", f"packet:{tap}"))


@pytest.mark.parametrize("vnet_hdr", ["yes", "no"])
async def test_stream_unix(tmp_path: Path, vnet_hdr: str) -> None:
    url = f"stream+unix://{tmp_path}/port?vnet_hdr={vnet_hdr}"
    await check_port(pair(f"{url}&listen=yes", f"{url}&reconnect=1ms"), longest=65549)


@pytest.mark.parametrize("vnet_hdr", ["yes", "no"])
async def test_stream_tcp(vnet_hdr: str, unused_port: int) -> None:
    url = f"stream+tcp://127.0.0.1:{unused_port}?vnet_hdr={vnet_hdr}"
    await check_port(pair(f"{url}&listen=yes", f"{url}&reconnect=1ms"), longest=65549)


async def test_dgram(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    await check_port(
        pair(f"dgram+unix://{one}?peer={other}", f"dgram+unix://{other}?peer={one}"), longest=65549
    )


async def test_named_memory() -> None:
    await check_port(pair("memory:pair", "memory:pair"), longest=65549)


@pytest.mark.parametrize("header_len", [0, 12])
async def test_memory(header_len: int) -> None:
    @asynccontextmanager
    async def make_pair() -> AsyncIterator[tuple[FramePort, FramePort]]:
        one, other = memory_pair(header_len=header_len)
        async with one, other:
            yield one, other

    await check_port(make_pair, longest=65549)


async def test_tracer(tmp_path: Path) -> None:
    await check_port(
        pair(f"memory:traced?trace={tmp_path}/one", f"memory:traced?trace={tmp_path}/other"), longest=65549
    )


@pytest.mark.parametrize("faults", ["fault=seed:1", "fault_send=delay:1ms", "fault_receive=delay:1ms"])
async def test_fault_injector(faults: str) -> None:
    await check_port(pair(f"memory:faulty?{faults}", f"memory:faulty?{faults}"), longest=65549)
